/* Samples of a run that only its directory tells of: model, data and adapter are opened again.  See
 * samples.h. */
#include "trainer/report/samples.h"

#include "kernels/base/alloc.h"
#include "trainer/model/peft_files.h"
#include "trainer/run/device_config.h"
#include "trainer/run/snapshot.h"

#include <stdio.h>
#include <string.h>

struct opened {
    struct gr_config config; /* the run's, as this machine takes it */
    struct gr_comm *comm;
    struct gr_device *dev;
    struct gr_engine engine;
    struct gr_inputs inputs;
    struct gr_adapter *adapter;
    float *values;
};

static gr_status configure(struct opened *o, const struct gr_run_record *record)
{
    gr_status status = GR_OK;
    struct gr_config *c = &o->config;

    gr_config_init(c);
    GR_TRY(gr_config_load_text(c, &record->config_yaml, "config.yaml"));
    c->device.threads = 0; /* of this machine */
    if (record->dtype != NULL) {
        gr_free(c->device.dtype);
        c->device.dtype = gr_strdup(record->dtype);
    }
    if (c->data.eval.count > 0) /* then they are asked: nobody needs the others */
        GR_TRY(gr_config_set(c, "data.train=[]"));
out:
    return status;
}

/* The documents and the model's weights, which must be those of the run. */
static gr_status open_model(struct opened *o, const struct gr_run_record *record)
{
    gr_status status = GR_OK;
    const struct gr_config *c = &o->config;

    GR_TRY(gr_comm_create(&o->comm, (double)c->dist.timeout_seconds));
    GR_TRY(gr_device_open(&o->dev, c, 0, 1));
    GR_TRY(gr_engine_load_model(&o->engine, c, o->dev, o->comm));
    if (record->model_hash != NULL && strcmp(record->model_hash, o->engine.model_hash) != 0)
        GR_TRY(gr_fail(GR_ERR_DATA, c->model, "samples can be left out: --samples 0",
                       "another model than the run's stands there now"));
    GR_TRY(gr_inputs_load(&o->inputs, c, &o->engine.model.config, gr_device_threads(o->dev)));
out:
    return status;
}

static gr_status read_export(float *values, struct gr_store *store,
                             const struct gr_adapter *adapter)
{
    static const char key[] = "adapter/adapter_model.safetensors";
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    struct gr_safetensors file = {0};
    char *place = gr_format("%s/%s", store->url, key);

    GR_TRY(store->ops->get(store, &bytes, key, 0, -1));
    GR_TRY(gr_safetensors_parse(&file, bytes.data, (int64_t)bytes.length, place));
    GR_TRY(gr_peft_copy_weights(values, adapter, &file));
out:
    gr_safetensors_close(&file);
    gr_buffer_release(&bytes);
    gr_free(place);
    return status;
}

static gr_status read_checkpoint(float *values, struct gr_store *store, int64_t step,
                                 const struct gr_adapter *adapter)
{
    gr_status status = GR_OK;
    struct gr_snapshot snapshot = {0};
    char text[32], name[GR_CHECKPOINT_NAME_BYTES];

    if (step == 0)
        GR_TRY(gr_fail(GR_ERR_NOT_FOUND, store->url, NULL, "there is no checkpoint yet"));
    snprintf(text, sizeof text, "%lld", (long long)step);
    GR_TRY(gr_state_find(name, store, text));
    gr_snapshot_init(&snapshot, adapter->elements);
    GR_TRY(gr_snapshot_load(&snapshot, store, name, adapter));
    memcpy(values, snapshot.param, (size_t)adapter->elements * sizeof *values);
out:
    gr_snapshot_release(&snapshot);
    return status;
}

/* Of adapter/ where the run is finished, else of the newest good checkpoint. */
static gr_status read_adapter(struct opened *o, struct gr_store *store,
                              const struct gr_run_record *record)
{
    gr_status status = GR_OK;
    struct gr_lora_config lora = {0};

    gr_lora_config_from(&lora, &o->config);
    GR_TRY(gr_adapter_create(&o->adapter, &o->engine.model.config, &lora));
    o->values = GR_NEW_ARRAY(float, o->adapter->elements);
    if (record->is_done)
        GR_TRY(read_export(o->values, store, o->adapter));
    else
        GR_TRY(read_checkpoint(o->values, store, record->durable_step, o->adapter));
out:
    gr_lora_config_release(&lora);
    return status;
}

gr_status gr_samples_of_run(struct gr_samples *samples, struct gr_store *store,
                            const struct gr_run_record *record,
                            const struct gr_samples_options *options)
{
    gr_status status = GR_OK;
    struct opened o = {0};

    GR_TRY(configure(&o, record));
    GR_TRY(open_model(&o, record));
    GR_TRY(read_adapter(&o, store, record));
    samples->step = record->is_done ? gr_run_record_step(record) : record->durable_step;
    GR_TRY(gr_samples_make(samples, &o.engine, &o.inputs, o.adapter, o.values, options));
out:
    gr_inputs_release(&o.inputs);
    gr_engine_release(&o.engine);
    gr_device_destroy(o.dev);
    gr_comm_destroy(o.comm);
    gr_adapter_destroy(o.adapter);
    gr_free(o.values);
    gr_config_release(&o.config);
    return status;
}
