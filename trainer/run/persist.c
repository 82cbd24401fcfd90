/* Opening, resuming, saving and finishing a run's directory.  See persist.h. */
#include "trainer/run/persist.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/failpoint.h"
#include "kernels/base/log.h"
#include "trainer/run/parent.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const double patience_s = 10; /* with a disk that fails */

/* A finished run whose adapter/ was lost or changed: the last checkpoint still has it. */
static gr_status export_again(struct gr_persist *p, const struct gr_adapter *adapter)
{
    gr_status status = GR_OK;
    struct gr_checkpoint_rows rows = {0};
    struct gr_snapshot snapshot;
    const struct gr_checkpoint_row *newest;
    bool is_it = false;

    gr_snapshot_init(&snapshot, adapter->elements);
    GR_TRY(gr_state_list(&rows, p->store));
    newest = gr_checkpoint_rows_newest(&rows);
    if (newest != NULL) {
        GR_TRY(gr_snapshot_load(&snapshot, p->store, newest->name, adapter));
        GR_TRY(gr_run_export_again(&is_it, p->store, adapter, snapshot.param, p->config->model));
    }
    if (!is_it)
        GR_TRY(gr_fail(GR_ERR_CORRUPT, p->store->url, "train again in another output",
                       "adapter/ is not what done.json tells of, and the last checkpoint is gone "
                       "(found %lld others)",
                       (long long)rows.count));
    gr_note("the adapter was missing or changed: exported again");
out:
    gr_checkpoint_rows_release(&rows);
    gr_snapshot_release(&snapshot);
    return status;
}

/* The best evaluation's adapter as best/.  Its checkpoint is kept, but a disk may have damaged it:
 * that does not take the finished adapter away. */
static gr_status export_best(struct gr_persist *p, const struct gr_adapter *adapter)
{
    gr_status status = GR_OK;
    char step[32], name[GR_CHECKPOINT_NAME_BYTES];
    struct gr_snapshot snapshot;

    if (p->best_step == 0)
        return GR_OK;
    gr_snapshot_init(&snapshot, adapter->elements);
    snprintf(step, sizeof step, "%lld", (long long)p->best_step);
    status = gr_state_find(name, p->store, step);
    if (status == GR_OK)
        status = gr_snapshot_load(&snapshot, p->store, name, adapter);
    if (status == GR_OK)
        status = gr_run_export(p->store, "best", adapter, snapshot.param, p->config->model);
    gr_snapshot_release(&snapshot);
    if (status == GR_ERR_DATA || status == GR_ERR_NOT_FOUND) {
        gr_warn("best/ is not exported: %s", gr_error_message());
        gr_error_clear();
        return GR_OK;
    }
    if (status == GR_OK)
        gr_note("best: step %s, eval loss %.6g: %s/best", step, p->best_loss, p->config->output);
    return status;
}

/* Done already, with adapter/ and best/ in order again? */
static gr_status look(bool *is_done, struct gr_persist *p, const struct gr_adapter *adapter)
{
    gr_status status = GR_OK;
    enum gr_run_end end = GR_RUN_OPEN;
    struct gr_run_result lost;

    GR_TRY(gr_run_look(&end, p->store, adapter));
    *is_done = end != GR_RUN_OPEN;
    if (!*is_done)
        goto out;
    if (end == GR_RUN_EXPORT_DAMAGED)
        GR_TRY(export_again(p, adapter));
    GR_TRY(gr_run_lost_best(&lost, p->store));
    p->best_step = lost.best_step;
    p->best_loss = lost.best_eval_loss;
    GR_TRY(export_best(p, adapter));
out:
    return status;
}

/* Listing a folder removes what a writer that was killed left there a day ago. */
static gr_status sweep_exports(struct gr_persist *p)
{
    static const char *const folders[] = {"adapter/", "best/"};

    for (int i = 0; i < GR_COUNT(folders); i++) {
        struct gr_store_list list = {0};
        gr_status status = p->store->ops->list(p->store, &list, folders[i]);

        gr_store_list_release(&list);
        if (status != GR_OK)
            return status;
    }
    return GR_OK;
}

static gr_status open_on_io_rank(bool *is_done, struct gr_persist *p,
                                 const struct gr_adapter *adapter, bool takeover)
{
    gr_status status = GR_OK;
    bool is_there;

    GR_TRY(gr_store_open(&p->store, p->config->output));
    GR_TRY(gr_run_identity_check(&is_there, p->store, p->identity));
    GR_TRY(look(is_done, p, adapter));
    if (*is_done)
        goto out;
    GR_TRY(gr_run_lock_take(&p->lock, p->config->output, takeover, GR_RUN_LOCK_PATIENCE_S));
    GR_TRY(look(is_done, p, adapter)); /* its holder may just have finished */
    if (*is_done)
        goto out;
    GR_TRY(sweep_exports(p));
out:
    return status;
}

gr_status gr_persist_open(bool *is_done, struct gr_persist *p, const struct gr_config *config,
                          struct gr_comm *comm, const struct gr_run_identity *identity,
                          const struct gr_adapter *adapter, bool takeover)
{
    gr_status status = GR_OK;

    memset(p, 0, sizeof *p);
    p->config = config;
    p->comm = comm;
    p->is_io_rank = gr_comm_rank(comm) == gr_comm_io_rank(comm);
    p->identity = identity;
    *is_done = false;
    if (p->is_io_rank)
        status = open_on_io_rank(is_done, p, adapter, takeover);
    GR_TRY(gr_comm_agree_status(comm, status, "output"));
    GR_TRY(gr_comm_broadcast(comm, gr_comm_io_rank(comm), is_done, sizeof *is_done, "output"));
out:
    return status;
}

/* A resume copies the lines of steps that stand, so that metrics.jsonl has each step once and a
 * fenced writer goes on in a file that is gone.  This one may itself have slept, and be fenced by
 * now: then the file is another's. */
static gr_status rewrite_metrics(struct gr_persist *p, int64_t step)
{
    gr_status status = GR_OK;
    struct gr_buffer old = {0}, kept = {0};
    const int64_t bytes_most = INT64_C(4) << 30;

    status = p->store->ops->get(p->store, &old, "metrics.jsonl", 0, bytes_most);
    if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
        goto out;
    }
    GR_TRY(status);
    gr_jsonl_keep(&kept, old.data, step);
    GR_TRY(gr_failpoint(GR_FAILPOINT_RESUME_METRICS));
    GR_TRY(gr_state_check_fence(p->state));
    GR_TRY(p->store->ops->put(p->store, "metrics.jsonl", kept.data == NULL ? "" : kept.data,
                              (int64_t)kept.length));
out:
    gr_buffer_release(&old);
    gr_buffer_release(&kept);
    return status;
}

static gr_status read_parent(struct gr_persist *p, const struct gr_engine *engine)
{
    const struct gr_adapter *adapter = engine->adapters[0];

    p->parent = GR_NEW_ARRAY(float, adapter->elements);
    return gr_parent_read(p->parent, adapter, &engine->model.config, p->config->train.init_from);
}

/* What can still be refused of a new run is refused before the output is claimed for it. */
static gr_status claim(struct gr_persist *p, const struct gr_engine *engine)
{
    gr_status status = GR_OK;
    struct gr_buffer yaml = {0};
    bool is_there;

    GR_TRY(gr_run_identity_check(&is_there, p->store, p->identity));
    if (!is_there && p->config->train.init_from != NULL)
        GR_TRY(read_parent(p, engine));
    if (!is_there)
        GR_TRY(gr_run_identity_claim(p->store, p->identity));
    gr_config_print(&yaml, p->config, false);
    GR_TRY(p->store->ops->put(p->store, "config.yaml", yaml.data, (int64_t)yaml.length));
out:
    gr_buffer_release(&yaml);
    return status;
}

static gr_status start_on_io_rank(struct gr_persist *p, struct gr_snapshot *snapshot,
                                  const struct gr_engine *engine, const char *device_kind)
{
    gr_status status = GR_OK;
    const struct gr_adapter *adapter = engine->adapters[0];
    struct gr_checkpoint found = {0};
    char run_hash[GR_SHA256_HEX_BYTES], host[256] = "";
    struct gr_state_options options = {.run_hash = run_hash,
                                       .kind = device_kind,
                                       .host = host,
                                       .pid = getpid(),
                                       .world_size = gr_comm_size(p->comm),
                                       .save_total_limit = p->config->train.save_total_limit,
                                       .patience_s = patience_s,
                                       .fresh = strcmp(p->config->train.resume, "never") == 0,
                                       .clock = gr_state_real_clock()};

    gethostname(host, sizeof host - 1);
    GR_TRY(claim(p, engine));
    GR_TRY(gr_state_run_hash(run_hash, p->store));
    GR_TRY(gr_state_start(&p->state, &found, p->store, &options));
    p->term = gr_state_term(p->state);
    if (gr_state_kind_before(p->state)[0] != '\0' &&
        strcmp(gr_state_kind_before(p->state), device_kind) != 0)
        gr_warn("this machine computes with %s, the run began with %s: the bits differ from here",
                device_kind, gr_state_kind_before(p->state));
    if (found.step > 0)
        GR_TRY(gr_snapshot_unpack(snapshot, &found, adapter));
    GR_TRY(rewrite_metrics(p, found.step));
out:
    gr_checkpoint_release(&found);
    return status;
}

/* What the I/O rank found, for the others. */
struct resumed {
    int64_t step, term, best_step, evals_since_best;
    double best_loss;
};

static gr_status share(struct gr_persist *p, struct gr_snapshot *s)
{
    gr_status status = GR_OK;
    int root = gr_comm_io_rank(p->comm);
    int64_t bytes = s->elements * (int64_t)sizeof(float);
    struct resumed r = {s->step, p->term, s->best_step, s->evals_since_best, s->best_loss};

    GR_TRY(gr_comm_broadcast(p->comm, root, &r, (int64_t)sizeof r, "resume"));
    s->step = r.step;
    p->term = r.term;
    p->best_step = r.best_step;
    p->best_loss = r.best_loss;
    p->evals_since_best = r.evals_since_best;
    if (r.step == 0)
        goto out;
    GR_TRY(gr_comm_broadcast(p->comm, root, s->param, bytes, "resume"));
    GR_TRY(gr_comm_broadcast(p->comm, root, s->moment1, bytes, "resume"));
    GR_TRY(gr_comm_broadcast(p->comm, root, s->moment2, bytes, "resume"));
out:
    return status;
}

gr_status gr_persist_resume(struct gr_persist *p, int64_t *step, struct gr_engine *engine,
                            const char *device_kind)
{
    gr_status status = GR_OK;
    const struct gr_adapter *adapter = engine->adapters[0];
    struct gr_snapshot staged; /* nothing reaches the engine before all of it was verified */

    gr_snapshot_init(&staged, adapter->elements);
    if (p->is_io_rank)
        status = start_on_io_rank(p, &staged, engine, device_kind);
    GR_TRY(gr_comm_agree_status(p->comm, status, "resume"));
    GR_TRY(share(p, &staged));
    *step = p->base_step = staged.step;
    if (staged.step > 0) {
        GR_TRY(gr_engine_set_state(engine, staged.param, staged.moment1, staged.moment2, 0));
        gr_note("resumed: step %lld, term %lld", (long long)staged.step, (long long)p->term);
    }
out:
    gr_snapshot_release(&staged);
    return status;
}

gr_status gr_persist_init_from(struct gr_persist *p, struct gr_engine *engine)
{
    gr_status status = GR_OK;
    int64_t elements = engine->adapters[0]->elements;

    if (p->config->train.init_from == NULL)
        return GR_OK;
    if (!p->is_io_rank)
        p->parent = GR_NEW_ARRAY(float, elements);
    else if (p->parent == NULL)
        status = read_parent(p, engine);
    if (p->is_io_rank && status == GR_OK)
        status = gr_run_claim_parent(p->store, p->parent, elements);
    GR_TRY(gr_comm_agree_status(p->comm, status, "init_from"));
    GR_TRY(gr_comm_broadcast(p->comm, gr_comm_io_rank(p->comm), p->parent,
                             elements * (int64_t)sizeof *p->parent, "init_from"));
    GR_TRY(gr_engine_set_adapter(engine, p->parent, 0));
out:
    gr_free(p->parent);
    p->parent = NULL;
    return status;
}

gr_status gr_persist_begin(struct gr_persist *p, struct gr_engine *engine, struct gr_events *events)
{
    gr_status status = GR_OK;

    p->last_save_ns = gr_clock_ns();
    if (p->is_io_rank)
        status =
            gr_saver_create(&p->saver, p->state, events, engine->adapters[0], p->config->model);
    return gr_comm_agree_status(p->comm, status, "start");
}

bool gr_persist_wants_save(const struct gr_persist *p, int64_t step)
{
    const struct gr_config *c = p->config;
    double seconds = (double)(gr_clock_ns() - p->last_save_ns) * 1e-9;

    if (!p->is_io_rank || step <= p->base_step)
        return false;
    return (c->train.save_steps > 0 && step % c->train.save_steps == 0) ||
           (c->train.save_seconds > 0 && seconds >= (double)c->train.save_seconds);
}

gr_status gr_persist_status(struct gr_persist *p)
{
    return p->saver == NULL ? GR_OK : gr_saver_status(p->saver);
}

void gr_persist_note_eval(struct gr_persist *p, bool *is_best, int64_t step, double loss)
{
    *is_best = p->best_step == 0 || loss < p->best_loss;
    if (*is_best) {
        p->best_step = step;
        p->best_loss = loss;
        p->evals_since_best = 0;
    } else {
        p->evals_since_best++;
    }
}

gr_status gr_persist_save(struct gr_persist *p, struct gr_engine *engine, int64_t step,
                          bool is_periodic)
{
    gr_status status = GR_OK;
    struct gr_snapshot *s;
    struct gr_loader_place place;

    if (!p->is_io_rank || step == 0)
        return GR_OK;
    p->last_save_ns = gr_clock_ns();
    gr_run_lock_retry(p->lock);
    s = gr_saver_take(p->saver, !is_periodic);
    if (s == NULL)
        return GR_OK;
    place = gr_loader_place(engine->trial[0].loader, step);
    s->step = step;
    s->epoch = place.epoch;
    s->epoch_first_step = place.epoch_first_step;
    s->best_step = p->best_step;
    s->best_loss = p->best_loss;
    s->evals_since_best = p->evals_since_best;
    status = gr_engine_get_state(engine, s->param, s->moment1, s->moment2, 0);
    if (status != GR_OK) {
        gr_saver_give_back(p->saver, s);
        return status;
    }
    gr_saver_submit(p->saver, s);
    return is_periodic ? GR_OK : gr_saver_drain(p->saver);
}

bool gr_persist_is_exhausted(const struct gr_persist *p)
{
    int64_t patience = p->config->train.early_stopping_patience;

    return patience > 0 && p->evals_since_best >= patience;
}

static gr_status finish_on_io_rank(struct gr_persist *p, struct gr_engine *engine, int64_t step,
                                   double train_loss)
{
    gr_status status = GR_OK;
    const struct gr_run_result result = {step, train_loss, p->best_step, p->best_loss};
    const struct gr_adapter *adapter = engine->adapters[0];
    float *values = GR_NEW_ARRAY(float, adapter->elements);

    GR_TRY(gr_engine_get_adapter(engine, values, 0));
    GR_TRY(export_best(p, adapter));
    GR_TRY(gr_run_export(p->store, "adapter", adapter, values, p->config->model));
    GR_TRY(gr_state_check_fence(p->state));
    GR_TRY(gr_run_put_done(p->store, adapter, values, p->config->model, &result));
out:
    gr_free(values);
    return status;
}

gr_status gr_persist_finish(struct gr_persist *p, struct gr_engine *engine, int64_t step,
                            double train_loss)
{
    gr_status status = gr_persist_save(p, engine, step, false);

    if (status == GR_OK && p->is_io_rank) {
        gr_saver_destroy(
            p->saver); /* the exports take memory like its buffers, now in their place */
        p->saver = NULL;
        status = finish_on_io_rank(p, engine, step, train_loss);
    }
    return gr_comm_agree_status(p->comm, status, "export");
}

void gr_persist_release(struct gr_persist *p)
{
    gr_free(p->parent);
    gr_saver_destroy(p->saver);
    gr_state_destroy(p->state);
    gr_run_lock_release(p->lock);
    gr_store_close(p->store);
    memset(p, 0, sizeof *p);
}
