/* Going through the start of a run without taking its memory.  See dry_run.h. */
#include "trainer/run/dry_run.h"

#include "kernels/base/alloc.h"
#include "trainer/run/device_config.h"
#include "trainer/run/flop.h"
#include "trainer/run/rank_check.h"
#include "trainer/run/saver.h"

#include <string.h>

gr_status gr_dry_run_load(struct gr_dry_run *r, const struct gr_config *config, int ranks,
                          bool reads_weights)
{
    gr_status status = GR_OK;

    memset(r, 0, sizeof *r);
    r->config = config;
    GR_TRY(gr_comm_create(&r->comm, (double)config->dist.timeout_seconds));
    GR_TRY(gr_device_open(&r->dev, config, 0, ranks));
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

static struct gr_work work_of(const struct gr_dry_run *r, const struct gr_documents *d, double rows)
{
    struct gr_work work = {.rows = rows, .labels = (double)d->supervised_count};

    for (int64_t i = 0; i < d->count; i++)
        gr_work_add_document(&work, &r->engine.model.config, d->document[i].length);
    return work;
}

double gr_dry_run_step_flop(struct gr_dry_run *r)
{
    const struct gr_model_config *model = &r->engine.model.config;
    double steps = (double)gr_loader_place(r->trial.loader, 1).epoch_steps;
    double rows = (double)gr_loader_rows(r->trial.loader) * (double)r->config->train.micro_batches;
    struct gr_work epoch = work_of(r, &r->inputs.train, rows * steps);

    return (gr_flop(&gr_passes_forward, &epoch, model, r->trial.adapter) +
            gr_flop(&gr_passes_backward, &epoch, model, r->trial.adapter) +
            gr_flop_linears_redone(r->plan.redone, &epoch, model) +
            gr_flop_attention_redone(r->plan.redone, &epoch, model)) /
           steps;
}

double gr_dry_run_eval_flop(struct gr_dry_run *r)
{
    struct gr_work all;

    if (!r->has_eval)
        return 0;
    all = work_of(r, &r->inputs.eval,
                  (double)r->evaluator.packs * (double)gr_loader_rows(r->evaluator.loader));
    return gr_flop(&gr_passes_forward, &all, &r->engine.model.config, r->trial.adapter);
}
