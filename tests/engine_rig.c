/* See engine_rig.h. */
#include "tests/engine_rig.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/peers.h"
#include "tests/ranks.h"
#include "tests/test.h"

#include <stdlib.h>

enum { LENGTH = 96 };

/* Lengths 5..90; about half of the tokens supervised, in runs. */
static void make_documents(struct gr_documents *documents)
{
    for (uint32_t d = 0; d < ENGINE_RIG_DOCUMENTS; d++) {
        uint32_t tokens[LENGTH];
        uint8_t labels[LENGTH];
        int32_t length = 5 + (int32_t)(gr_philox(7, d, 0, 0, 0).word[0] % 86);

        for (uint32_t i = 0; i < (uint32_t)length; i++) {
            tokens[i] = gr_philox(7, d, i, 1, 0).word[0] % 96;
            labels[i] = i / 4 % 2 == 1;
        }
        gr_documents_add(documents, tokens, labels, length, 0);
    }
}

static void set(struct engine_rig *r, const char *assignment)
{
    ASSERT_OK(gr_config_set(&r->config, assignment));
}

void engine_rig_open(struct engine_rig *r, const char *backend, const char *const *assignments)
{
    memset(r, 0, sizeof *r);
    gr_log_speaks(false);
    gr_config_init(&r->config);
    gr_free(r->config.model);
    r->config.model = gr_format("%s/tests/golden/llama", getenv("GRAFT_SOURCE_DIR"));
    set(r, "device.dtype=f32");
    set(r, "data.max_length=96");
    set(r, "lora.r=4");
    set(r, "train.learning_rate=1.0e-2");
    set(r, "train.warmup_ratio=0");
    set(r, "train.max_grad_norm=0");
    for (; *assignments != NULL; assignments++)
        set(r, *assignments);
    r->comm = ranks_join();
    ASSERT_OK(gr_device_create(&r->dev, backend, 2, NULL));
    make_documents(&r->documents);
    ASSERT_OK(gr_engine_load_model(&r->engine, &r->config, r->dev, r->comm));
}

void engine_rig_prepare(struct engine_rig *r, int trials)
{
    int64_t begin = 0;

    for (int i = 0; i < trials; i++) {
        r->config.train.seed = 42 + i;
        ASSERT_OK(gr_trial_init(&r->trial[i], &r->config, &r->engine.model.config, &r->documents, i,
                                begin));
        begin = r->trial[i].end;
    }
    ASSERT_OK(gr_engine_prepare(&r->engine, r->trial, trials, 0));
    ASSERT_OK(gr_engine_init_adapters(&r->engine));
}

void engine_rig_compute(struct engine_rig *r, int64_t step)
{
    int64_t micro_batches = r->config.train.micro_batches;
    int size = gr_comm_size(r->comm), rank = gr_comm_rank(r->comm);
    int64_t end = gr_tree_block_begin(micro_batches, size, rank + 1);

    for (int64_t m = gr_tree_block_begin(micro_batches, size, rank); m < end; m++)
        ASSERT_OK(gr_engine_micro_batch(&r->engine, step, m));
}

void engine_rig_step(struct engine_rig *r, struct gr_update *update, int64_t step)
{
    engine_rig_compute(r, step);
    ASSERT_OK(gr_engine_update(&r->engine, update, step));
}

void engine_rig_set_b_of_v(struct engine_rig *r, float size, int trial)
{
    const struct gr_adapter *adapter = r->trial[trial].adapter;
    const struct gr_lora_matrix *v = &adapter->matrix[adapter->place[GR_MODULE_V]];
    float *values = GR_NEW_ARRAY(float, 2 * adapter->elements), *zeros = values + adapter->elements;

    gr_adapter_init_values(values, adapter, 42);
    for (int64_t i = v->a_begin; i < v->end; i++)
        values[i] = i < v->b_begin ? 0 : size;
    ASSERT_OK(gr_engine_set_state(&r->engine, values, zeros, zeros, trial));
    gr_free(values);
}

float *engine_rig_state(struct engine_rig *r, int trial)
{
    int64_t elements = r->trial[trial].adapter->elements;
    float *state = GR_NEW_ARRAY(float, 3 * elements);

    ASSERT_OK(
        gr_engine_get_state(&r->engine, state, state + elements, state + 2 * elements, trial));
    return state;
}

void engine_rig_close(struct engine_rig *r)
{
    ASSERT_OK(gr_peers_leave(r->dev));
    gr_engine_release(&r->engine);
    for (int i = 0; i < ENGINE_RIG_TRIALS; i++)
        gr_trial_release(&r->trial[i]);
    gr_documents_release(&r->documents);
    gr_device_destroy(r->dev);
    gr_config_release(&r->config);
}
