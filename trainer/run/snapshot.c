/* Snapshots and checkpoint objects.  See snapshot.h. */
#include "trainer/run/snapshot.h"

#include "kernels/base/alloc.h"
#include "trainer/model/peft_files.h"

#include <stdio.h>
#include <string.h>

/* The objects, in the order they are put. */
enum { OBJECT_WEIGHTS, OBJECT_CONFIG, OBJECT_OPTIMIZER, OBJECT_COUNT };
static const char *const object_names[OBJECT_COUNT] = {
    [OBJECT_WEIGHTS] = "adapter_model.safetensors",
    [OBJECT_CONFIG] = "adapter_config.json",
    [OBJECT_OPTIMIZER] = "optimizer.safetensors",
};

void gr_snapshot_init(struct gr_snapshot *s, int64_t elements)
{
    memset(s, 0, sizeof *s);
    s->elements = elements;
    s->param = GR_NEW_ARRAY(float, elements);
    s->moment1 = GR_NEW_ARRAY(float, elements);
    s->moment2 = GR_NEW_ARRAY(float, elements);
}

void gr_snapshot_release(struct gr_snapshot *s)
{
    gr_free(s->param);
    gr_free(s->moment1);
    gr_free(s->moment2);
    memset(s, 0, sizeof *s);
}

static void pack_optimizer(struct gr_buffer *bytes, const struct gr_snapshot *s)
{
    const struct gr_safetensors_item items[] = {
        {"moment1", GR_F32, 1, {s->elements}, s->moment1},
        {"moment2", GR_F32, 1, {s->elements}, s->moment2},
    };

    gr_safetensors_write(bytes, items, GR_COUNT(items), NULL);
}

void gr_snapshot_pack(struct gr_checkpoint *c, const struct gr_snapshot *s,
                      const struct gr_adapter *adapter, const char *base_model)
{
    c->step = s->step;
    c->epoch = s->epoch;
    c->epoch_first_step = s->epoch_first_step;
    c->best_step = s->best_step;
    c->best_loss = s->best_loss;
    c->evals_since_best = s->evals_since_best;
    c->object_count = OBJECT_COUNT;
    for (int i = 0; i < OBJECT_COUNT; i++) {
        snprintf(c->object[i].name, sizeof c->object[i].name, "%s", object_names[i]);
        gr_buffer_clear(&c->object[i].bytes);
    }
    gr_peft_write_weights(&c->object[OBJECT_WEIGHTS].bytes, adapter, s->param);
    gr_peft_write_config(&c->object[OBJECT_CONFIG].bytes, adapter, base_model);
    pack_optimizer(&c->object[OBJECT_OPTIMIZER].bytes, s);
}

static gr_status open_object(struct gr_safetensors *file, const struct gr_checkpoint *c, int object)
{
    const struct gr_buffer *bytes = gr_checkpoint_object(c, object_names[object]);

    if (bytes == NULL)
        return gr_fail(GR_ERR_DATA, "checkpoint", "it was written by another version of graft",
                       "object %s is missing (found %lld objects, expected %d)",
                       object_names[object], (long long)c->object_count, OBJECT_COUNT);
    return gr_safetensors_parse(file, bytes->data, (int64_t)bytes->length, object_names[object]);
}

static gr_status copy_moment(float *values, const struct gr_safetensors *file, const char *name,
                             int64_t elements)
{
    const struct gr_safetensors_entry *entry = gr_safetensors_find(file, name);

    if (entry == NULL || entry->dtype != GR_F32 || entry->ndim != 1 || entry->dim[0] != elements)
        return gr_fail(GR_ERR_DATA, file->path, "it belongs to another adapter",
                       "tensor %s (expected F32 (%lld))", name, (long long)elements);
    memcpy(values, gr_safetensors_data(file, entry), (size_t)elements * sizeof *values);
    return GR_OK;
}

gr_status gr_snapshot_unpack(struct gr_snapshot *s, const struct gr_checkpoint *c,
                             const struct gr_adapter *adapter)
{
    gr_status status = GR_OK;
    struct gr_safetensors weights = {0}, optimizer = {0};

    GR_TRY(open_object(&weights, c, OBJECT_WEIGHTS));
    GR_TRY(gr_peft_copy_weights(s->param, adapter, &weights));
    GR_TRY(open_object(&optimizer, c, OBJECT_OPTIMIZER));
    GR_TRY(copy_moment(s->moment1, &optimizer, "moment1", s->elements));
    GR_TRY(copy_moment(s->moment2, &optimizer, "moment2", s->elements));
    s->step = c->step;
    s->epoch = c->epoch;
    s->epoch_first_step = c->epoch_first_step;
    s->best_step = c->best_step;
    s->best_loss = c->best_loss;
    s->evals_since_best = c->evals_since_best;
out:
    gr_safetensors_close(&weights);
    gr_safetensors_close(&optimizer);
    return status;
}

gr_status gr_snapshot_load(struct gr_snapshot *s, struct gr_store *store, const char *name,
                           const struct gr_adapter *adapter)
{
    gr_status status = GR_OK;
    struct gr_checkpoint c = {0};

    GR_TRY(gr_state_load(&c, store, name));
    GR_TRY(gr_snapshot_unpack(s, &c, adapter));
out:
    gr_checkpoint_release(&c);
    return status;
}
