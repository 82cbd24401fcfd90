/* The training loop, and what stands before and after it.  See train.h. */
#include "trainer/run/train.h"

#include "data/show.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/failpoint.h"
#include "kernels/base/log.h"
#include "kernels/peers.h"
#include "trainer/events/events.h"
#include "trainer/report/report.h"
#include "trainer/run/choices.h"
#include "trainer/run/compute_dtype.h"
#include "trainer/run/device_config.h"
#include "trainer/run/engine.h"
#include "trainer/run/eval.h"
#include "trainer/run/inputs.h"
#include "trainer/run/persist.h"
#include "trainer/run/profile.h"
#include "trainer/run/rank_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct run {
    const struct gr_config *config;
    const struct gr_train_options *options;
    struct gr_comm *comm;
    struct gr_device *dev;
    struct gr_inputs inputs;
    struct gr_engine engine;
    struct gr_trial trial; /* an ordinary run has one */
    struct gr_evaluator evaluator;
    bool has_eval;
    struct gr_run_identity identity;
    struct gr_persist persist; /* the run's directory */
    struct gr_choices choices; /* what computes, the same on all ranks */
    struct gr_events *events;  /* I/O rank only */
    int64_t done_steps;        /* updates made, this start's and earlier ones */
    int64_t total_steps;
    struct gr_update update; /* of the last step */
    struct gr_step_profile profile;
};

static void emit(const struct run *r, struct gr_event event, int64_t step)
{
    struct gr_loader_place place;

    if (r->events == NULL)
        return;
    event.step = step;
    event.total_steps = r->total_steps;
    event.term = r->persist.term;
    if (step > 0) {
        place = gr_loader_place(r->trial.loader, step);
        event.epoch = (double)place.epoch +
                      (double)(step - place.epoch_first_step + 1) / (double)place.epoch_steps;
    }
    gr_events_emit(r->events, &event);
}

static void emit_begin(const struct run *r)
{
    struct gr_event event = {.kind = GR_EVENT_BEGIN};
    const struct gr_documents *train = &r->inputs.train, *eval = &r->inputs.eval;

    gr_event_set(&event, GR_METRIC_train_documents, (double)train->count);
    gr_event_set(&event, GR_METRIC_train_tokens, (double)train->token_count);
    gr_event_set(&event, GR_METRIC_train_supervised_tokens, (double)train->supervised_count);
    gr_event_set(&event, GR_METRIC_eval_documents, (double)eval->count);
    gr_event_set(&event, GR_METRIC_eval_tokens, (double)eval->token_count);
    gr_event_set(&event, GR_METRIC_eval_supervised_tokens, (double)eval->supervised_count);
    gr_event_set(&event, GR_METRIC_trained_parameters, (double)r->trial.adapter->elements);
    gr_event_set(&event, GR_METRIC_ranks, gr_comm_size(r->comm));
    gr_event_set(&event, GR_METRIC_threads, gr_device_threads(r->dev));
    emit(r, event, r->done_steps);
}

static void log_step(const struct run *r, int64_t step, int64_t begin_ns)
{
    struct gr_event event = {.kind = GR_EVENT_STEP};
    double seconds = (double)(gr_clock_ns() - begin_ns) * 1e-9;

    if (step % r->config->train.logging_steps != 0 && step != r->total_steps)
        return;
    gr_event_set(&event, GR_METRIC_train_loss, r->update.loss);
    gr_event_set(&event, GR_METRIC_learning_rate, r->update.learning_rate);
    gr_event_set(&event, GR_METRIC_grad_norm, r->update.grad_norm);
    gr_event_set(&event, GR_METRIC_tokens_per_s, (double)r->update.tokens / seconds);
    gr_event_set(&event, GR_METRIC_step_time_ms, seconds * 1e3);
    gr_event_set(&event, GR_METRIC_supervised_tokens, (double)r->update.supervised);
    emit(r, event, step);
}

static gr_status evaluate(struct run *r, bool *is_best, int64_t step)
{
    gr_status status = GR_OK;
    struct gr_event event = {.kind = GR_EVENT_EVAL};
    struct gr_sums sums = {0};

    *is_best = false;
    if (!r->has_eval || (step % r->config->train.eval_steps != 0 && step != r->total_steps))
        return GR_OK;
    GR_TRY(gr_evaluate(&sums, &r->evaluator, &r->engine, 0));
    if (!isfinite(sums.loss))
        GR_TRY(gr_fail(GR_ERR_DIVERGED, "train", "start again with a lower train.learning_rate",
                       "the evaluation after step %lld is not finite", (long long)step));
    gr_event_set(&event, GR_METRIC_eval_loss, sums.loss / (double)sums.supervised);
    emit(r, event, step);
    gr_persist_note_eval(&r->persist, is_best, step, sums.loss / (double)sums.supervised);
out:
    return status;
}

/* After the last step, or as many evaluations without a better one as the patience. */
static bool is_over(const struct run *r)
{
    return r->done_steps >= r->total_steps || gr_persist_is_exhausted(&r->persist);
}

/* What ranks agree on at a step boundary. */
enum { WANTS_STOP = 1, WANTS_SAVE = 2 };

/* The best one and a stop are saved before anything else happens; a periodic save goes to the
 * saver's thread.  The end is saved by gr_persist_finish. */
static gr_status save(struct run *r, bool *stops, int64_t step, bool is_best)
{
    gr_status status = GR_OK;
    uint64_t wants = 0;

    if (r->options->stop_requested != NULL && r->options->stop_requested())
        wants |= WANTS_STOP;
    if (gr_persist_wants_save(&r->persist, step))
        wants |= WANTS_SAVE;
    GR_TRY(gr_comm_agree(r->comm, &wants, "step"));
    *stops = (wants & WANTS_STOP) != 0 && !is_over(r);
    status = gr_failpoint(GR_FAILPOINT_STEP_UPDATED);
    if (status == GR_OK && !is_over(r) && (*stops || is_best || (wants & WANTS_SAVE) != 0))
        status = gr_persist_save(&r->persist, &r->engine, step, !*stops && !is_best);
    GR_TRY(gr_comm_agree_status(r->comm, status, "save"));
out:
    return status;
}

/* This rank's leaves of the tree: data -> forward -> backward, micro-batch by micro-batch. */
static gr_status compute_block(struct run *r, int64_t step)
{
    gr_status status = GR_OK;
    int64_t micro_batches = r->config->train.micro_batches;
    int size = gr_comm_size(r->comm), rank = gr_comm_rank(r->comm);
    int64_t end = gr_tree_block_begin(micro_batches, size, rank + 1);

    GR_TRY(gr_persist_status(&r->persist));
    for (int64_t m = gr_tree_block_begin(micro_batches, size, rank); m < end; m++) {
        GR_TRY(gr_failpoint(GR_FAILPOINT_MICRO_BATCH));
        GR_TRY(gr_engine_micro_batch(&r->engine, step, m));
    }
    GR_TRY(gr_failpoint(GR_FAILPOINT_STEP_COMPUTED));
out:
    return status;
}

/* Where nothing goes from device to device any more, and all ranks come together: not after a
 * failure.  A rank that cannot leave has lost nothing. */
static void leave_peers(struct run *r)
{
    if (gr_peers_leave(r->dev) == GR_OK)
        return;
    gr_warn("%s", gr_error_message());
    gr_error_clear();
}

/* Whatever one rank fails at, all leave the step together. */
static gr_status train_steps(struct run *r)
{
    static const char restart[] = "start it again with the same command to go on";
    gr_status status = GR_OK;
    bool stops = false, is_best = false;

    GR_TRY(save(r, &stops, r->done_steps, false)); /* a stop may have come before the first step */
    if (r->options->profiles)
        gr_step_profile_start(&r->profile, &r->engine, r->total_steps - r->done_steps);
    while (!is_over(r) && !stops) {
        int64_t step = r->done_steps + 1, begin_ns = gr_clock_ns();

        gr_device_range_begin(r->dev, "step");
        GR_TRY(gr_comm_agree_status(r->comm, compute_block(r, step), "step"));
        gr_step_profile_lap(&r->profile, GR_PHASE_compute);
        status = gr_engine_update(&r->engine, &r->update, step); /* sum, 1/N, clip, AdamW */
        GR_TRY(gr_comm_agree_status(r->comm, status, "update"));
        gr_step_profile_lap(&r->profile, GR_PHASE_update);
        r->done_steps = step;
        log_step(r, step, begin_ns);
        GR_TRY(evaluate(r, &is_best, step));
        gr_step_profile_lap(&r->profile, GR_PHASE_evaluate);
        GR_TRY(save(r, &stops, step, is_best));
        gr_step_profile_lap(&r->profile, GR_PHASE_save);
        gr_device_range_end(r->dev);
    }
    leave_peers(r);
    if (r->events != NULL)
        gr_events_flush(r->events); /* the last step stands before what follows from it */
    if (r->persist.is_io_rank)
        gr_step_profile_print(&r->profile);
    if (stops && r->done_steps == 0)
        GR_TRY(gr_fail(GR_ERR_RETRY, "train", restart,
                       "stopped on request before the first step: nothing was trained yet"));
    if (stops)
        GR_TRY(gr_fail(GR_ERR_RETRY, "train", restart,
                       "stopped on request after step %lld of %lld, which is durable",
                       (long long)r->done_steps, (long long)r->total_steps));
out:
    return status;
}

static gr_status open_sinks(struct run *r)
{
    gr_status status = GR_OK;
    struct gr_sink *sink = NULL;
    char *path = gr_format("%s/metrics.jsonl", r->config->output);

    if (!r->persist.is_io_rank)
        goto out;
    GR_TRY(gr_sink_jsonl_create(&sink, path));
    GR_TRY(gr_events_create(&r->events));
    gr_events_add_sink(r->events, gr_sink_terminal_create(r->options->terminal));
    gr_events_add_sink(r->events, sink);
    sink = NULL;
out:
    if (sink != NULL)
        sink->ops->destroy(sink);
    gr_free(path);
    return status;
}

/* What the run is must match what its directory says; a finished run is not started again. */
static gr_status open_output(bool *is_done, struct run *r)
{
    r->identity = (struct gr_run_identity){.config = r->config,
                                           .model_hash = r->engine.model_hash,
                                           .tokenizer_hash = r->inputs.tokenizer_hash,
                                           .train_hash = r->inputs.train_hash,
                                           .eval_hash = r->inputs.eval_hash,
                                           .dtype = gr_compute_dtype_word(r->engine.model.dtype),
                                           .total_steps = r->total_steps};
    return gr_persist_open(is_done, &r->persist, r->config, r->comm, &r->identity, r->trial.adapter,
                           r->options->takeover);
}

static gr_status load_inputs(struct run *r)
{
    gr_status status = GR_OK;
    const struct gr_config *c = r->config;

    status = gr_device_open(&r->dev, c, gr_comm_local_rank(r->comm), gr_comm_local_size(r->comm));
    GR_TRY(gr_comm_agree_status(r->comm, status, "device"));
    GR_TRY(gr_engine_load_model(&r->engine, c, r->dev, r->comm));
    GR_TRY(gr_inputs_load(&r->inputs, c, &r->engine.model.config, gr_device_threads(r->dev)));
    GR_TRY(gr_trial_init(&r->trial, c, &r->engine.model.config, &r->inputs.train, 0, 0));
    r->total_steps = gr_loader_total_steps(r->trial.loader);
    r->has_eval = r->inputs.eval.count > 0;
    if (r->has_eval)
        GR_TRY(gr_evaluator_init(&r->evaluator, c, &r->inputs.eval, gr_comm_size(r->comm)));
out:
    return status;
}

/* Before step 1: what will be done, and what the model is going to see. */
static void introduce(const struct run *r)
{
    const struct gr_documents *d = &r->inputs.train;

    gr_note("data: %lld documents, %lld tokens, %lld of them supervised (%lld documents cut, %lld "
            "left out)",
            (long long)d->count, (long long)d->token_count, (long long)d->supervised_count,
            (long long)d->truncated_count, (long long)d->dropped_count);
    gr_note("run: %lld steps of %lld micro-batches, %lld trained parameters, %d rank%s of %d "
            "thread%s (%s, %s)",
            (long long)r->total_steps, (long long)r->config->train.micro_batches,
            (long long)r->trial.adapter->elements, gr_comm_size(r->comm),
            gr_comm_size(r->comm) == 1 ? "" : "s", gr_device_threads(r->dev),
            gr_device_threads(r->dev) == 1 ? "" : "s", gr_device_isa(r->dev),
            gr_compute_dtype_word(r->engine.model.dtype));
    if (gr_comm_size(r->comm) > 1 && !gr_device_uses_host_memory(r->dev))
        gr_note("gradients: %s", r->engine.gradient_path);
    if (strcmp(r->config->dist.reduce, "all_reduce") == 0)
        gr_warn("dist.reduce: all_reduce: the adapter's bits depend on the number of ranks and on "
                "how NCCL connects them");
}

/* The first pack with its supervised text marked: a wrong mask is seen before it costs anything. */
static gr_status show_first_pack(struct run *r)
{
    gr_status status = GR_OK;
    struct gr_buffer text = {0};

    if (!r->persist.is_io_rank)
        return GR_OK;
    gr_loader_fill(r->trial.loader, &r->trial.batch, 1, 0);
    GR_TRY(gr_show_first_pack(&text, r->inputs.tokenizer, &r->trial.batch,
                              r->config->train.micro_batch_size,
                              r->options->terminal >= 0 ? GR_SHOW_COLOURS : GR_SHOW_BRACKETS));
    fputs(text.data, stderr);
out:
    gr_buffer_release(&text);
    return status;
}

/* How the work was shared: what each rank counted. */
static gr_status report_shares(const struct run *r)
{
    gr_status status = GR_OK;
    struct gr_buffer text = {0};
    int64_t *all = GR_NEW_ARRAY(int64_t, gr_comm_size(r->comm));

    GR_TRY(gr_comm_all_gather(r->comm, all, &r->engine.micro_batches_done, (int64_t)sizeof *all,
                              "end"));
    for (int rank = 0; rank < gr_comm_size(r->comm); rank++)
        gr_buffer_add_format(&text, " %lld", (long long)all[rank]);
    gr_note("micro-batches computed by rank:%s", text.data);
out:
    gr_buffer_release(&text);
    gr_free(all);
    return status;
}

/* So that no step has to choose: the I/O rank, whose choices are everybody's. */
static gr_status rehearse(struct run *r)
{
    gr_status status = GR_OK;

    if (!r->persist.is_io_rank)
        return GR_OK;
    GR_TRY(gr_engine_rehearse(&r->engine));
    if (r->has_eval)
        GR_TRY(gr_evaluator_rehearse(&r->evaluator, &r->engine));
out:
    return status;
}

/* Memory, fresh adapters, and what computes. */
static gr_status prepare_engine(struct run *r)
{
    gr_status status = GR_OK;

    GR_TRY(gr_choices_begin(&r->choices, r->dev, r->comm, r->persist.store));
    status = gr_engine_prepare(&r->engine, &r->trial, 1,
                               r->has_eval ? gr_loader_rows(r->evaluator.loader) : 0);
    if (status == GR_OK)
        status = gr_engine_init_adapters(&r->engine);
    if (status == GR_OK)
        status = rehearse(r);
    GR_TRY(gr_comm_agree_status(r->comm, status, "start"));
    GR_TRY(gr_choices_settle(&r->choices));
out:
    return status;
}

/* The engine, and in it the newest good checkpoint; then the sinks. */
static gr_status prepare(struct run *r)
{
    gr_status status = GR_OK;
    char *kind = NULL;

    GR_TRY(prepare_engine(r));
    kind = gr_choices_kind(&r->choices, gr_compute_dtype_word(r->engine.model.dtype));
    GR_TRY(gr_persist_resume(&r->persist, &r->done_steps, &r->engine, kind));
    if (r->done_steps == 0)
        GR_TRY(gr_persist_init_from(&r->persist, &r->engine));
    GR_TRY(gr_comm_agree_status(r->comm, open_sinks(r), "start"));
    GR_TRY(gr_persist_begin(&r->persist, &r->engine, r->events));
    emit_begin(r);
out:
    gr_free(kind);
    return status;
}

static gr_status finish(struct run *r)
{
    gr_status status = GR_OK;

    if (r->done_steps < r->total_steps)
        gr_note("early stopping: none of the last %lld evaluations was better than step %lld's",
                (long long)r->persist.evals_since_best, (long long)r->persist.best_step);
    GR_TRY(gr_persist_finish(&r->persist, &r->engine, r->done_steps, r->update.loss));
    emit(r, (struct gr_event){.kind = GR_EVENT_END}, r->done_steps);
    if (r->events != NULL)
        gr_events_flush(r->events);
    if (gr_comm_size(r->comm) > 1)
        GR_TRY(report_shares(r));
    gr_note("finished: %s/adapter", r->config->output);
out:
    return status;
}

/* When everything stands and no rank waits any more: nothing of it can cost the run anything. */
static void report(struct run *r)
{
    const double samples_seconds = 10;
    struct gr_report_options options = {
        .program = r->options->program,
        .samples = {.count = r->config->train.report_samples, .seconds = samples_seconds}};

    if (!r->persist.is_io_rank || gr_failpoint_fails(GR_FAILPOINT_REPORT_BEGIN))
        return;
    gr_report_after_training(r->persist.store, &r->engine, &r->inputs, &options);
}

static void release_persist(struct run *r)
{
    gr_choices_release(&r->choices);
    gr_persist_release(&r->persist); /* its thread flushes the events */
    gr_events_destroy(r->events);
    r->events = NULL;
}

/* A rank was lost, and the caller is going to end the job: everybody hears of it, then what was
 * given to be saved becomes durable.  The rest stays as it is: a device waits, when its memory is
 * given back, for what is queued, and that may wait for the lost rank. */
static void give_up(struct run *r)
{
    gr_print_error();
    gr_error_clear();
    release_persist(r);
}

static void release(struct run *r)
{
    release_persist(r);
    gr_evaluator_release(&r->evaluator);
    gr_engine_release(&r->engine);
    gr_trial_release(&r->trial);
    gr_inputs_release(&r->inputs);
    gr_device_destroy(r->dev);
}

gr_status gr_train(struct gr_comm *comm, const struct gr_config *config,
                   const struct gr_train_options *options)
{
    gr_status status = GR_OK;
    struct run run = {.config = config, .options = options, .comm = comm, .update.loss = NAN};
    bool is_done = false;

    GR_TRY(gr_rank_check_count(gr_comm_size(comm), options->expect_ranks,
                               config->train.micro_batches));
    status = load_inputs(&run);
    GR_TRY(gr_comm_agree_status(comm, status, "start"));
    GR_TRY(gr_rank_check_same(&run.engine, &run.inputs, NULL));
    GR_TRY(gr_comm_agree_status(comm, gr_engine_join(&run.engine), "start"));
    GR_TRY(open_output(&is_done, &run));
    if (is_done) {
        gr_note("already finished: %s/adapter", config->output);
        leave_peers(&run);
        goto out;
    }
    introduce(&run);
    GR_TRY(gr_comm_agree_status(comm, show_first_pack(&run), "start"));
    GR_TRY(prepare(&run));
    GR_TRY(train_steps(&run));
    GR_TRY(finish(&run));
    GR_TRY(gr_comm_leave(comm));
    report(&run);
out:
    if (gr_comm_is_broken(comm))
        give_up(&run);
    else
        release(&run);
    return status;
}
