/* The exports and done.json.  See run_files.h. */
#include "trainer/state/run_files.h"

#include "data/hash.h"
#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "trainer/model/peft_files.h"
#include "trainer/state/identity.h"
#include "trainer/state/names.h"
#include "trainer/state/record.h"

#include <math.h>
#include <string.h>

/* The exported files, in the order they are put. */
static const char *const exported[] = {"adapter/adapter_model.safetensors",
                                       "adapter/adapter_config.json"};

static void hash_bytes(json_t *hashes, const char *key, const struct gr_buffer *bytes)
{
    char hash[GR_SHA256_HEX_BYTES];

    gr_sha256_hex(hash, bytes->data, (int64_t)bytes->length);
    json_object_set_new(hashes, key, json_string(hash));
}

/* {"adapter/...": hash} of what would be exported; bytes[2] are filled. */
static json_t *pack(struct gr_buffer bytes[2], const struct gr_adapter *adapter,
                    const float *values, const char *base_model)
{
    json_t *hashes = json_object();

    gr_peft_write_weights(&bytes[0], adapter, values);
    gr_peft_write_config(&bytes[1], adapter, base_model);
    for (int i = 0; i < GR_COUNT(exported); i++)
        hash_bytes(hashes, exported[i], &bytes[i]);
    return hashes;
}

/* The hashes that done.json tells; NULL if there is no done.json.  Whole is the caller's, hashes
 * are part of it. */
static gr_status read_done(json_t **whole, json_t **hashes, struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_buffer text = {0};
    char *place = gr_format("%s/done.json", store->url);

    *whole = *hashes = NULL;
    status = store->ops->get(store, &text, "done.json", 0, GR_RECORD_BYTES_MOST);
    if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
        goto out;
    }
    GR_TRY(status);
    *whole = json_loadb(text.data, text.length, 0, NULL);
    *hashes = json_object_get(*whole, "adapter_sha256");
    for (int i = 0; i < GR_COUNT(exported); i++) {
        const char *hash = json_string_value(json_object_get(*hashes, exported[i]));

        if (hash == NULL || !gr_name_is_hash(hash))
            GR_TRY(gr_fail(GR_ERR_DATA, place, "remove it and start again: the end is made anew",
                           "the file is damaged (expected what graft wrote there)"));
    }
out:
    if (status != GR_OK) {
        json_decref(*whole);
        *whole = *hashes = NULL;
    }
    gr_buffer_release(&text);
    gr_free(place);
    return status;
}

/* Whether the store holds these bytes under `key`. */
static gr_status is_there(bool *same, struct gr_store *store, const char *key, const char *hash,
                          int64_t bytes_most)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    char found[GR_SHA256_HEX_BYTES] = "";

    status = store->ops->get(store, &bytes, key, 0, bytes_most);
    if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
    } else if (status == GR_OK) {
        gr_sha256_hex(found, bytes.data, (int64_t)bytes.length);
    }
    *same = strcmp(found, hash) == 0;
    gr_buffer_release(&bytes);
    return status;
}

/* More than an export of this adapter takes: what is larger is another file. */
static int64_t export_bytes_most(const struct gr_adapter *adapter)
{
    const int64_t per_tensor = 1024, rest = 1 << 20;

    return adapter->elements * (int64_t)sizeof(float) + 2 * adapter->count * per_tensor + rest;
}

gr_status gr_run_look(enum gr_run_end *end, struct gr_store *store,
                      const struct gr_adapter *adapter)
{
    gr_status status = GR_OK;
    json_t *done = NULL, *hashes = NULL;

    *end = GR_RUN_OPEN;
    GR_TRY(read_done(&done, &hashes, store));
    if (done != NULL)
        *end = GR_RUN_DONE;
    for (int i = 0; i < GR_COUNT(exported) && done != NULL; i++) {
        bool same = false;

        GR_TRY(is_there(&same, store, exported[i],
                        json_string_value(json_object_get(hashes, exported[i])),
                        export_bytes_most(adapter)));
        if (!same)
            *end = GR_RUN_EXPORT_DAMAGED;
    }
out:
    json_decref(done);
    return status;
}

gr_status gr_run_export_again(bool *is_it, struct gr_store *store, const struct gr_adapter *adapter,
                              const float *values, const char *base_model)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes[2] = {{0}, {0}};
    json_t *done = NULL, *hashes = NULL, *mine = pack(bytes, adapter, values, base_model);

    *is_it = false;
    GR_TRY(read_done(&done, &hashes, store));
    *is_it = json_equal(mine, hashes);
    for (int i = 0; i < GR_COUNT(exported) && *is_it; i++)
        GR_TRY(store->ops->put(store, exported[i], bytes[i].data, (int64_t)bytes[i].length));
out:
    json_decref(done);
    json_decref(mine);
    gr_buffer_release(&bytes[0]);
    gr_buffer_release(&bytes[1]);
    return status;
}

static gr_status check_finite(const struct gr_adapter *adapter, const float *values)
{
    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *m = &adapter->matrix[i];
        char name[64];

        gr_lora_matrix_name(name, m);
        for (int64_t e = m->a_begin; e < m->end; e++) {
            if (!isfinite(values[e]))
                return gr_fail(GR_ERR_DIVERGED, "train",
                               "start again with a lower train.learning_rate and another output",
                               "the finished adapter is not finite: %s", name);
        }
    }
    return GR_OK;
}

gr_status gr_run_export(struct gr_store *store, const char *folder,
                        const struct gr_adapter *adapter, const float *values,
                        const char *base_model)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes[2] = {{0}, {0}};
    json_t *hashes = NULL;
    char *key = NULL;

    GR_TRY(check_finite(adapter, values));
    hashes = pack(bytes, adapter, values, base_model);
    for (int i = 0; i < GR_COUNT(exported); i++) {
        GR_TRY(gr_failpoint(i == 0 ? GR_FAILPOINT_EXPORT_WEIGHTS : GR_FAILPOINT_EXPORT_CONFIG));
        gr_free(key);
        key = gr_format("%s%s", folder, strchr(exported[i], '/'));
        GR_TRY(store->ops->put(store, key, bytes[i].data, (int64_t)bytes[i].length));
    }
out:
    gr_free(key);
    json_decref(hashes);
    gr_buffer_release(&bytes[0]);
    gr_buffer_release(&bytes[1]);
    return status;
}

gr_status gr_run_lost_best(struct gr_run_result *lost, struct gr_store *store)
{
    static const char *const keys[] = {"best/adapter_model.safetensors",
                                       "best/adapter_config.json"};
    gr_status status = GR_OK;
    json_t *done = NULL, *hashes = NULL;
    bool is_lost = false;

    *lost = (struct gr_run_result){0};
    GR_TRY(read_done(&done, &hashes, store));
    for (int i = 0; i < GR_COUNT(keys); i++) {
        struct gr_buffer first = {0};

        status = store->ops->get(store, &first, keys[i], 0, 1);
        gr_buffer_release(&first);
        if (status == GR_ERR_NOT_FOUND) {
            gr_error_clear();
            status = GR_OK;
            is_lost = true;
        }
        GR_TRY(status);
    }
    if (is_lost) {
        lost->best_step = json_integer_value(json_object_get(done, "best_step"));
        lost->best_eval_loss = json_number_value(json_object_get(done, "best_eval_loss"));
    }
out:
    json_decref(done);
    return status;
}

gr_status gr_run_put_done(struct gr_store *store, const struct gr_adapter *adapter,
                          const float *values, const char *base_model,
                          const struct gr_run_result *result)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes[2] = {{0}, {0}};
    json_t *done = json_object();
    enum gr_run_end end;
    char *place = gr_format("%s/done.json", store->url);

    json_object_set_new(done, "adapter_sha256", pack(bytes, adapter, values, base_model));
    json_object_set_new(done, "step", json_integer(result->step));
    if (isfinite(result->train_loss))
        json_object_set_new(done, "train_loss", json_real(result->train_loss));
    if (result->best_step > 0) {
        json_object_set_new(done, "best_step", json_integer(result->best_step));
        json_object_set_new(done, "best_eval_loss", json_real(result->best_eval_loss));
    }
    GR_TRY(gr_failpoint(GR_FAILPOINT_DONE_BEFORE));
    status = gr_run_put_json(store, "done.json", done);
    if (status == GR_ERR_EXISTS) { /* an earlier start got this far: the same adapter, or a bug */
        gr_error_clear();
        GR_TRY(gr_run_look(&end, store, adapter));
        if (end != GR_RUN_DONE)
            GR_TRY(gr_fail(GR_ERR_CORRUPT, place, "start again in another output",
                           "it tells of another adapter than this run's"));
        status = GR_OK;
    }
    GR_TRY(status);
    GR_TRY(gr_failpoint(GR_FAILPOINT_DONE_AFTER));
out:
    gr_free(place);
    json_decref(done);
    gr_buffer_release(&bytes[0]);
    gr_buffer_release(&bytes[1]);
    return status;
}
