/* Going through the start of a run without taking its memory.  See dry_run.h. */
#include "trainer/run/dry_run.h"

#include "trainer/run/device_config.h"
#include "trainer/run/not_yet.h"
#include "trainer/run/rank_check.h"
#include "trainer/run/saver.h"

#include <string.h>

gr_status gr_dry_run_load(struct gr_dry_run *r, const struct gr_config *config, int ranks,
                          bool reads_weights)
{
    gr_status status = GR_OK;

    memset(r, 0, sizeof *r);
    r->config = config;
    GR_TRY(gr_refuse_not_yet(config));
    GR_TRY(gr_comm_create(&r->comm, (double)config->dist.timeout_seconds));
    GR_TRY(gr_device_open(&r->dev, config, ranks));
    GR_TRY(gr_engine_examine_model(&r->engine, &r->plan, config, r->dev, r->comm, reads_weights));
    GR_TRY(gr_inputs_load(&r->inputs, config, &r->engine.model.config, gr_device_threads(r->dev)));
out:
    return status;
}

gr_status gr_dry_run_plan(struct gr_dry_run *r, int ranks)
{
    gr_status status = GR_OK;

    GR_TRY(gr_rank_check_count(ranks, 0, r->config->train.micro_batches));
    /* Before the heap parts of trial and engine, which are plain arrays of the plan. */
    r->plan.program_bytes = gr_memory_resident();
    GR_TRY(gr_trial_init(&r->trial, r->config, &r->engine.model.config, &r->inputs.train, 0, 0));
    r->total_steps = gr_loader_total_steps(r->trial.loader);
    r->has_eval = r->inputs.eval.count > 0;
    if (r->has_eval)
        GR_TRY(gr_evaluator_init(&r->evaluator, r->config, &r->inputs.eval, ranks));
    GR_TRY(gr_engine_plan(&r->engine, &r->plan, &r->trial, 1,
                          r->has_eval ? gr_loader_rows(r->evaluator.loader) : 0, ranks));
    r->plan.save_bytes = gr_saver_bytes(r->plan.elements);
out:
    return status;
}

void gr_dry_run_release(struct gr_dry_run *r)
{
    gr_evaluator_release(&r->evaluator);
    gr_engine_release(&r->engine);
    gr_trial_release(&r->trial);
    gr_inputs_release(&r->inputs);
    gr_device_destroy(r->dev);
    gr_comm_destroy(r->comm);
    memset(r, 0, sizeof *r);
}

/* Every row of a pack passes all linears, also where no document is.  Forward x W and, backward,
 * dy W': 2 each for a weight; the adapter's two matrices have gradients of their own: 3. */
static double row_flop(const struct gr_dry_run *r)
{
    const struct gr_model_config *c = &r->engine.model.config;
    const struct gr_adapter *adapter = r->trial.adapter;
    double weights = 0, adapted = 0;

    for (int module = 0; module < GR_MODULE_COUNT; module++)
        weights += (double)c->layers * (double)gr_module_in(c, (enum gr_module)module) *
                   (double)gr_module_out(c, (enum gr_module)module);
    for (int64_t i = 0; i < adapter->count; i++)
        adapted +=
            (double)(adapter->matrix[i].r * (adapter->matrix[i].in + adapter->matrix[i].out));
    return 2 * 2 * weights + 2 * 3 * adapted;
}

/* Scores and their product with v, forward; backward, the scores again and four products. */
static double attention_flop(const struct gr_dry_run *r)
{
    const struct gr_model_config *c = &r->engine.model.config;
    double pairs = 0;

    for (int64_t layer = 0; layer < c->layers; layer++) {
        int64_t window = gr_model_window(c, layer);

        for (int64_t i = 0; i < r->inputs.train.count; i++) {
            double t = (double)r->inputs.train.document[i].length;
            double w = window > 0 && (double)window < t ? (double)window : t;

            pairs += w * (w + 1) / 2 + (t - w) * w;
        }
    }
    return pairs * 2 * (2 + 5) * (double)(c->heads * c->head_dim);
}

double gr_dry_run_step_flop(struct gr_dry_run *r)
{
    const struct gr_model_config *c = &r->engine.model.config;
    const struct gr_documents *d = &r->inputs.train;
    double steps = (double)gr_loader_place(r->trial.loader, 1).epoch_steps;
    double rows = (double)gr_loader_rows(r->trial.loader) * (double)r->config->train.micro_batches;
    double head = 2 * 2 * (double)d->supervised_count * (double)(c->hidden_size * c->vocab_size);

    return rows * row_flop(r) + (head + attention_flop(r)) / steps;
}
