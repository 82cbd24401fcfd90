/* Reading the adapter a run starts from.  See parent.h. */
#include "trainer/run/parent.h"

#include "kernels/base/alloc.h"
#include "trainer/model/peft_files.h"
#include "trainer/run/snapshot.h"

#include <string.h>
#include <unistd.h>

static const char hint[] = "name a PEFT adapter, a run directory, or RUN@STEP; r, lora_alpha and "
                           "target_modules must be the parent's";

/* The same linears with the same scale: B and A mean the same to both. */
static gr_status compare(const struct gr_adapter *mine, const struct gr_adapter *parent,
                         const char *from)
{
    char name[64];

    if (mine->count != parent->count)
        return gr_fail(GR_ERR_USAGE, "train.init_from", hint,
                       "%s adapts other linears (found %lld, expected %lld)", from,
                       (long long)parent->count, (long long)mine->count);
    for (int64_t i = 0; i < mine->count; i++) {
        const struct gr_lora_matrix *m = &mine->matrix[i], *p = &parent->matrix[i];

        if (m->layer == p->layer && m->module == p->module && m->r == p->r && m->scale == p->scale)
            continue;
        gr_lora_matrix_name(name, m);
        return gr_fail(GR_ERR_USAGE, "train.init_from", hint,
                       "%s differs at %s (found r %lld and scale %g, expected r %lld and scale %g)",
                       from, name, (long long)p->r, (double)p->scale, (long long)m->r,
                       (double)m->scale);
    }
    return GR_OK;
}

static gr_status check_config(const struct gr_adapter *adapter, const struct gr_model_config *model,
                              const struct gr_lora_config *config, const char *from)
{
    gr_status status = GR_OK;
    struct gr_adapter *parent = NULL;

    GR_TRY(gr_adapter_create(&parent, model, config));
    GR_TRY(compare(adapter, parent, from));
out:
    gr_adapter_destroy(parent);
    return status;
}

static gr_status read_adapter(float *values, const struct gr_adapter *adapter,
                              const struct gr_model_config *model, const char *from)
{
    gr_status status = GR_OK;
    struct gr_lora_config config = {0};

    GR_TRY(gr_peft_read_config(&config, from));
    GR_TRY(check_config(adapter, model, &config, from));
    GR_TRY(gr_peft_read_weights(values, adapter, from));
out:
    gr_lora_config_release(&config);
    return status;
}

/* which: NULL for the newest. */
static gr_status read_checkpoint(float *values, const struct gr_adapter *adapter,
                                 const struct gr_model_config *model, const char *run,
                                 const char *which)
{
    gr_status status = GR_OK;
    struct gr_store *store = NULL;
    struct gr_checkpoint_rows rows = {0};
    struct gr_checkpoint c = {0};
    struct gr_snapshot snapshot;
    struct gr_lora_config config = {0};
    const struct gr_checkpoint_row *newest;
    const struct gr_buffer *json;
    char name[GR_CHECKPOINT_NAME_BYTES] = "";

    gr_snapshot_init(&snapshot, adapter->elements);
    if (access(run, R_OK) != 0)
        GR_TRY(gr_fail(GR_ERR_NOT_FOUND, "train.init_from", hint,
                       "%s: there is no such directory (found nothing, expected a run)", run));
    GR_TRY(gr_store_open(&store, run));
    GR_TRY(gr_state_list(&rows, store));
    newest = gr_checkpoint_rows_newest(&rows);
    if (which != NULL)
        GR_TRY(gr_state_find(name, store, which));
    else if (newest != NULL)
        memcpy(name, newest->name, sizeof name);
    else
        GR_TRY(gr_fail(GR_ERR_NOT_FOUND, "train.init_from", hint,
                       "%s holds no checkpoint (found %lld, expected a good one)", run,
                       (long long)rows.count));
    GR_TRY(gr_state_load(&c, store, name));
    json = gr_checkpoint_object(&c, "adapter_config.json");
    if (json != NULL) { /* else the next call says so */
        GR_TRY(gr_peft_parse_config(&config, json, run));
        GR_TRY(check_config(adapter, model, &config, run));
    }
    GR_TRY(gr_snapshot_unpack(&snapshot, &c, adapter));
    memcpy(values, snapshot.param, (size_t)adapter->elements * sizeof *values);
out:
    gr_lora_config_release(&config);
    gr_snapshot_release(&snapshot);
    gr_checkpoint_release(&c);
    gr_checkpoint_rows_release(&rows);
    gr_store_close(store);
    return status;
}

gr_status gr_parent_read(float *values, const struct gr_adapter *adapter,
                         const struct gr_model_config *model, const char *from)
{
    char *config = gr_format("%s/adapter_config.json", from);
    const char *at = access(from, F_OK) == 0 ? NULL : strrchr(from, '@'); /* or part of a path */
    bool is_adapter = access(config, R_OK) == 0;
    char *run = gr_strndup(from, at == NULL ? strlen(from) : (size_t)(at - from));
    gr_status status = is_adapter
                           ? read_adapter(values, adapter, model, from)
                           : read_checkpoint(values, adapter, model, run, at ? at + 1 : NULL);

    gr_free(config);
    gr_free(run);
    return status;
}
