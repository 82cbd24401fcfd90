/* The memory of a run: layouts, and how much of the activations is kept.  See engine.h; the model
 * is loaded in engine_model.c. */
#include "trainer/run/engine.h"

#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "kernels/peers.h"
#include "trainer/run/device_peers.h"

#include <string.h>

/* Of the memory that is free, when the configuration says nothing. */
#define FREE_SHARE 0.9

/* cos and sin for positions 0..max_length-1: every document begins at 0 and fits into a pack. */
static gr_status make_rope_tables(struct gr_engine *e, struct gr_arena *arena)
{
    const struct gr_model_config *c = &e->model.config;
    int64_t positions = e->config->data.max_length, half = c->head_dim / 2;
    gr_status status;
    float *table = NULL;

    e->model.cos = gr_arena_tensor_2d(arena, GR_F32, positions, half);
    e->model.sin = gr_arena_tensor_2d(arena, GR_F32, positions, half);
    if (gr_arena_measures(arena))
        return GR_OK;
    table = GR_NEW_ARRAY(float, 2 * positions * half);
    gr_rope_table(table, table + positions * half, c, positions);
    gr_device_upload(e->dev, e->model.cos, table);
    gr_device_upload(e->dev, e->model.sin, table + positions * half);
    status = gr_device_sync(e->dev);
    gr_free(table);
    return status;
}

/* Whether weights and adapter are joined: on a device to which the weights are copied anyway,
 * unless somebody wants to compare.  Passes are created, and the weights get their memory, after
 * this. */
static gr_status choose_layout(struct gr_engine *e, int adapters)
{
    const char *layout = gr_env(GR_ENV_GRAFT_LORA_LAYOUT);

    if (layout != NULL && strcmp(layout, "composed") != 0)
        return gr_fail(GR_ERR_USAGE, "GRAFT_LORA_LAYOUT", "unset it to let graft choose",
                       "unknown layout (found %s, expected composed)", layout);
    if (e->fixed.base == NULL && layout == NULL && !gr_device_uses_host_memory(e->dev))
        gr_joined_weights_init(&e->model.joined, &e->model.config, e->adapters, adapters);
    e->is_joined = gr_joined_weights_fit(&e->model.joined, e->adapters, adapters);
    return GR_OK;
}

/* What no step changes; where there is memory it is there when this returns. */
static gr_status layout_fixed(struct gr_engine *e, struct gr_arena *arena)
{
    if (!gr_device_uses_host_memory(e->dev)) {
        gr_joined_weights_layout(&e->model.joined, e->model.dtype, arena);
        gr_weights_layout(&e->model.weights, &e->model.config, &e->model.joined, e->dev, arena);
    }
    return make_rope_tables(e, arena);
}

/* Once: an engine that is prepared again has it. */
static gr_status carve_fixed(struct gr_engine *e)
{
    gr_status status = GR_OK;
    struct gr_arena measured = {.name = "weights"};

    if (e->fixed.base != NULL)
        return GR_OK;
    GR_TRY(layout_fixed(e, &measured));
    GR_TRY(gr_device_arena_create(e->dev, &e->fixed, "weights", measured.used));
    GR_TRY(layout_fixed(e, &e->fixed));
out:
    return status;
}

/* Passes that never run at the same time have the same memory. */
static void layout_shared(struct gr_pass *one, struct gr_pass *other, struct gr_arena *step,
                          struct gr_arena *away)
{
    int64_t mark = step->used, end;

    gr_pass_layout(one, step, away);
    if (other == NULL)
        return;
    end = step->used;
    gr_arena_reset(step, mark);
    gr_pass_layout(other, step, NULL);
    step->used = step->used > end ? step->used : end;
}

static void layout_param(struct gr_engine *e, struct gr_arena *state, int64_t elements)
{
    e->param = gr_arena_tensor_1d(state, GR_F32, elements);
    if (e->model.dtype != GR_F32 && !e->is_joined)
        e->copy = gr_arena_tensor_1d(state, e->model.dtype, elements);
}

/* Elements [begin, end) of the flat buffers are this adapter's. */
static void give_param(struct gr_engine *e, struct gr_adapter *adapter, int64_t begin, int64_t end)
{
    adapter->param = gr_tensor_rows(e->param, begin, end);
    adapter->copy = e->copy.ndim == 0 ? (gr_tensor){0} : gr_tensor_rows(e->copy, begin, end);
    if (e->is_joined)
        gr_joined_weights_bind(&e->model.joined, adapter);
}

/* What one process may take: of device.memory, or of what is free and what the weights have taken
 * already (mapped files count as free).  weights: its share of them; a device of its own has them
 * later, or since it was prepared before, and keeps nothing free for them.  Of a GPU with several
 * processes each has a part, measured before the first of them took any. */
static int64_t memory_limit(const struct gr_engine *e, int64_t weights, int processes)
{
    bool is_limited;
    int64_t available;

    if (e->config->device.memory > 0)
        return e->config->device.memory;
    if (!gr_device_uses_host_memory(e->dev)) {
        available = gr_device_processes(e->dev) > 1
                        ? gr_device_memory_share(e->dev) - weights
                        : gr_device_memory_available(e->dev) + e->fixed.used - weights;
        return (int64_t)((double)available * FREE_SHARE) + weights;
    }
    available = gr_memory_available(&is_limited);
    if (available < 0)
        return INT64_MAX;
    return ((int64_t)((double)available * FREE_SHARE) + e->model.weights.converted_bytes) /
           processes;
}

/* Runs twice: over arenas that measure, then over arenas with memory. */
static void layout(struct gr_engine *e, struct gr_arena *state, struct gr_arena *step,
                   struct gr_arena *away)
{
    int64_t elements = e->trials > 0 ? e->trial[e->trials - 1].end : 0;

    if (e->trials > 0) {
        layout_param(e, state, elements);
        e->moment1 = gr_arena_tensor_1d(state, GR_F32, elements);
        e->moment2 = gr_arena_tensor_1d(state, GR_F32, elements);
        gr_step_results_layout(&e->results, state);
        gr_tree_layout(e->tree, state);
        layout_shared(e->pass, e->eval_pass, step, away);
    } else {
        if (e->adapters != NULL)
            layout_param(e, state, e->adapters[0]->elements);
        if (e->next_pass != NULL) {
            gr_kv_cache_layout(&e->cache, &e->model, step);
            e->logits = gr_arena_tensor_2d(step, GR_F32, 1, e->model.config.vocab_size);
        }
        layout_shared(e->eval_pass, e->next_pass, step, NULL);
    }
}

static enum gr_reduce reduce_of(const struct gr_config *config)
{
    return strcmp(config->dist.reduce, "all_reduce") == 0 ? GR_REDUCE_ALL : GR_REDUCE_TREE;
}

/* One rank has nothing to sum with others, but must have a device whose peers could. */
static gr_status check_reduce(const struct gr_engine *e)
{
    bool can = gr_peers_are_joined(e->dev) ||
               (gr_comm_size(e->comm) == 1 && !gr_device_uses_host_memory(e->dev));

    if (reduce_of(e->config) == GR_REDUCE_TREE || can)
        return GR_OK;
    return gr_fail(GR_ERR_USAGE, "dist.reduce",
                   "set dist.reduce to tree; dist.backend nccl says what NCCL lacks here",
                   "all_reduce is NCCL's (found gradients that go through the host, expected a GPU "
                   "for each rank, and NCCL)");
}

gr_status gr_engine_join(struct gr_engine *e)
{
    gr_status status = GR_OK;

    GR_TRY(gr_device_join_peers(e->dev, e->comm, e->config->dist.backend, e->gradient_path));
    GR_TRY(check_reduce(e));
out:
    return status;
}

/* What it takes with `amount` recomputed, in a job of `ranks` processes. */
static void measure(struct gr_engine *e, struct gr_memory_plan *plan, int64_t amount, int ranks)
{
    struct gr_arena state = {.name = "state"}, step = {.name = "step"}, away = {.name = "away"};
    int64_t micro_batches = e->config->train.micro_batches;

    if (e->pass != NULL)
        gr_pass_set_recompute(e->pass, amount);
    layout(e, &state, &step, &away);
    plan->state_bytes = state.used;
    plan->step_bytes = step.used;
    plan->away_bytes = away.used;
    if (e->pass == NULL)
        return;
    plan->elements = e->trial[e->trials - 1].end;
    plan->gradient_bytes =
        gr_tree_state_bytes(micro_batches, ranks, plan->elements, reduce_of(e->config));
    plan->state_bytes +=
        plan->gradient_bytes - gr_tree_state_bytes(micro_batches, gr_comm_size(e->comm),
                                                   plan->elements, reduce_of(e->config));
    gr_pass_count_redone(plan->redone, e->pass);
    plan->away_layers = gr_pass_count_away(e->pass);
}

/* Of the host's memory, what each of its processes may take beside the device's. */
static int64_t away_limit(int processes)
{
    bool is_limited;
    int64_t available = gr_memory_available(&is_limited);

    return available < 0 ? INT64_MAX : (int64_t)((double)available * FREE_SHARE) / processes;
}

/* From where on more is computed again, or moved to the host where that is another memory, and the
 * most of it. */
static void amounts_asked(const struct gr_engine *e, int64_t *amount, int64_t *most)
{
    const char *asked = e->config->device.recompute;
    bool moves = e->pass != NULL && !gr_device_uses_host_memory(e->dev);
    int64_t all = e->pass == NULL ? 0 : gr_pass_recompute_most(e->pass);

    *most = moves ? gr_pass_offload_most(e->pass) : all;
    *amount = strcmp(asked, "all") == 0 ? all : strcmp(asked, "offload") == 0 ? *most : 0;
    if (strcmp(asked, "auto") != 0)
        *most = *amount;
}

/* The least recomputing with which each of the host's processes fits.  plan: weight_bytes is known,
 * the rest is told.  Errors: ERR_DEVICE where device.memory does not do. */
static gr_status choose_recompute(struct gr_engine *e, struct gr_memory_plan *plan, int ranks,
                                  int processes)
{
    int64_t share = gr_device_uses_host_memory(e->dev) ? processes : 1;
    int64_t weights = plan->weight_bytes / share, limit = memory_limit(e, weights, processes);
    int64_t room = away_limit(processes), amount, most;

    amounts_asked(e, &amount, &most);
    measure(e, plan, amount, ranks);
    while (amount < most && weights + plan->state_bytes + plan->step_bytes > limit) {
        measure(e, plan, ++amount, ranks);
        if (plan->away_bytes > room) { /* the host's memory is full as well */
            measure(e, plan, most = --amount, ranks);
        }
    }
    if (e->config->device.memory == 0 || weights + plan->state_bytes + plan->step_bytes <= limit)
        return GR_OK;
    gr_fail(GR_ERR_DEVICE, "device.memory", NULL,
            "the run does not fit (found %lld bytes, expected at least %lld per process: weights "
            "%lld, adapter, optimizer and gradients %lld, activations %lld)",
            (long long)limit, (long long)(weights + plan->state_bytes + plan->step_bytes),
            (long long)weights, (long long)plan->state_bytes, (long long)plan->step_bytes);
    gr_hint("lower data.max_length, train.micro_batch_size or lora.r%s, or raise device.memory",
            strcmp(e->config->device.recompute, "none") == 0 ? ", leave device.recompute out" : "");
    return GR_ERR_DEVICE;
}

static gr_status carve(struct gr_engine *e)
{
    gr_status status = GR_OK;
    struct gr_memory_plan plan = {.is_apart = !gr_device_uses_host_memory(e->dev),
                                  .weight_bytes =
                                      e->model.weights.bytes +
                                      gr_joined_weights_bytes(&e->model.joined, e->model.dtype)};

    GR_TRY(choose_recompute(e, &plan, gr_comm_size(e->comm), gr_comm_local_size(e->comm)));
    if (!e->plan_is_told)
        gr_memory_plan_print(&plan);
    e->plan_is_told = true;
    GR_TRY(carve_fixed(e));
    GR_TRY(gr_device_arena_create(e->dev, &e->state, "state", plan.state_bytes));
    GR_TRY(gr_device_arena_create(e->dev, &e->step, "step", plan.step_bytes));
    if (plan.away_bytes > 0)
        GR_TRY(gr_device_stash_create(e->dev, &e->away, "the inputs of layers", plan.away_bytes));
    layout(e, &e->state, &e->step, &e->away);
out:
    return status;
}

/* The heap parts of a training engine. */
static gr_status take_trials(struct gr_engine *e, struct gr_trial *trial, int trials,
                             int64_t eval_rows)
{
    gr_status status = GR_OK;
    int64_t rows = 0;

    e->trial = trial;
    e->trials = trials;
    e->adapters = GR_NEW_ARRAY(struct gr_adapter *, trials);
    e->gradient = GR_NEW_ARRAY(gr_tensor, trials);
    gr_step_results_init(&e->results, e->comm, e->config->train.micro_batches, trials);
    for (int i = 0; i < trials; i++) {
        e->adapters[i] = trial[i].adapter;
        rows += gr_loader_rows(trial[i].loader);
    }
    GR_TRY(gr_engine_join(e));
    GR_TRY(choose_layout(e, trials));
    e->tree = gr_tree_create(e->dev, e->comm, e->config->train.micro_batches, trial[trials - 1].end,
                             reduce_of(e->config));
    e->pass = gr_pass_create(&e->model, rows, e->adapters, trials, true);
    if (eval_rows > 0)
        e->eval_pass = gr_pass_create(&e->model, eval_rows, e->adapters, trials, false);
out:
    return status;
}

gr_status gr_engine_prepare(struct gr_engine *e, struct gr_trial *trial, int trials,
                            int64_t eval_rows)
{
    gr_status status = GR_OK;

    GR_TRY(take_trials(e, trial, trials, eval_rows));
    GR_TRY(carve(e));
    for (int i = 0; i < trials; i++) {
        give_param(e, trial[i].adapter, trial[i].begin, trial[i].end);
        gr_trial_bind_copy(&trial[i]);
    }
    if (e->eval_pass != NULL)
        gr_pass_bind(e->eval_pass, NULL);
out:
    return status;
}

/* As `ranks` processes of this host would, in turn. */
static void share_gpus(struct gr_device *dev, int ranks)
{
    int processes = (ranks + gr_device_count(dev) - 1) / gr_device_count(dev);

    if (!gr_device_uses_host_memory(dev))
        gr_device_set_share(dev, processes, gr_device_memory_available(dev) / processes);
}

gr_status gr_engine_plan(struct gr_engine *e, struct gr_memory_plan *plan, struct gr_trial *trial,
                         int trials, int64_t eval_rows, int ranks)
{
    gr_status status = GR_OK;
    struct gr_arena fixed = {.name = "weights"};

    GR_TRY(take_trials(e, trial, trials, eval_rows));
    plan->is_apart = !gr_device_uses_host_memory(e->dev);
    share_gpus(e->dev, ranks);
    plan->weight_bytes += gr_joined_weights_bytes(&e->model.joined, e->model.dtype);
    GR_TRY(choose_recompute(e, plan, ranks, ranks));
    GR_TRY(make_rope_tables(e, &fixed));
    plan->step_bytes += fixed.used;
out:
    return status;
}

/* text_tokens: of the cache; 0: nothing is generated. */
static gr_status prepare_forward(struct gr_engine *e, struct gr_adapter *adapter, int64_t rows,
                                 int64_t text_tokens)
{
    gr_status status = GR_OK;

    if (adapter != NULL) {
        e->adapters = GR_NEW_ARRAY(struct gr_adapter *, 1);
        e->adapters[0] = adapter;
    }
    GR_TRY(choose_layout(e, adapter != NULL));
    e->eval_pass = gr_pass_create(&e->model, rows, e->adapters, adapter != NULL, false);
    if (text_tokens > 0) {
        e->next_pass = gr_pass_create(&e->model, 1, e->adapters, adapter != NULL, false);
        e->cache.room = text_tokens;
        e->eval_pass->cache = e->next_pass->cache = &e->cache;
    }
    GR_TRY(carve(e));
    if (adapter != NULL)
        give_param(e, adapter, 0, adapter->elements);
    gr_pass_bind(e->eval_pass, NULL);
    if (e->next_pass != NULL)
        gr_pass_bind(e->next_pass, NULL);
out:
    return status;
}

gr_status gr_engine_prepare_eval(struct gr_engine *e, struct gr_adapter *adapter, int64_t rows)
{
    return prepare_forward(e, adapter, rows, 0);
}

gr_status gr_engine_prepare_generate(struct gr_engine *e, struct gr_adapter *adapter,
                                     int64_t prompt_tokens, int64_t text_tokens)
{
    return prepare_forward(e, adapter, gr_round_up_rows(prompt_tokens), text_tokens);
}

void gr_engine_retire(struct gr_engine *e)
{
    struct gr_engine kept = {.dev = e->dev,
                             .comm = e->comm,
                             .config = e->config,
                             .model = e->model,
                             .fixed = e->fixed,
                             .micro_batches_done = e->micro_batches_done,
                             .plan_is_told = e->plan_is_told};

    gr_pass_destroy(e->pass);
    gr_pass_destroy(e->eval_pass);
    gr_pass_destroy(e->next_pass);
    gr_tree_destroy(e->tree);
    if (e->dev != NULL) {
        gr_device_stash_release(e->dev, &e->away);
        gr_device_arena_release(e->dev, &e->step);
        gr_device_arena_release(e->dev, &e->state);
    }
    gr_free(e->adapters);
    gr_free(e->gradient);
    gr_step_results_release(&e->results);
    memcpy(kept.model_hash, e->model_hash, sizeof kept.model_hash);
    *e = kept;
}

void gr_engine_release(struct gr_engine *e)
{
    gr_engine_retire(e);
    if (e->dev != NULL)
        gr_device_arena_release(e->dev, &e->fixed);
    gr_joined_weights_release(&e->model.joined);
    gr_weights_release(&e->model.weights);
    memset(e, 0, sizeof *e);
}
