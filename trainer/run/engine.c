/* Memory and arithmetic of a run.  See engine.h. */
#include "trainer/run/engine.h"

#include "kernels/base/alloc.h"
#include "trainer/run/compute_dtype.h"
#include "trainer/run/inputs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const char diverged_hint[] =
    "start again with a lower train.learning_rate and another output";

/* cos and sin for positions 0..max_length-1: every document begins at 0 and fits into a pack. */
static gr_status make_rope_tables(struct gr_engine *e, struct gr_arena *arena)
{
    const struct gr_model_config *c = &e->model.config;
    int64_t positions = e->config->data.max_length, half = c->head_dim / 2;
    float *table = NULL;

    e->model.cos = gr_arena_tensor_2d(arena, GR_F32, positions, half);
    e->model.sin = gr_arena_tensor_2d(arena, GR_F32, positions, half);
    if (gr_arena_measures(arena))
        return GR_OK;
    table = GR_NEW_ARRAY(float, 2 * positions * half);
    gr_rope_table(table, table + positions * half, c, positions);
    gr_device_upload(e->dev, e->model.cos, table);
    gr_device_upload(e->dev, e->model.sin, table + positions * half);
    gr_device_sync(e->dev);
    gr_free(table);
    return gr_device_status(e->dev);
}

static gr_status check_length(const struct gr_engine *e)
{
    int64_t positions = e->model.config.max_position_embeddings;

    if (e->config->data.max_length <= positions)
        return GR_OK;
    gr_fail(GR_ERR_USAGE, "data.max_length", NULL,
            "the model has no such position (found %lld, expected at most %lld)",
            (long long)e->config->data.max_length, (long long)positions);
    gr_hint("--set data.max_length=%lld, or use a model with a longer context",
            (long long)positions);
    return GR_ERR_USAGE;
}

/* 128 random bits of rank 0, as hex, on every rank. */
static gr_status make_job_key(char key[33], struct gr_comm *comm)
{
    gr_status status = GR_OK;
    unsigned char random[16] = {0};

    if (gr_comm_rank(comm) == 0 && getrandom(random, sizeof random, 0) != sizeof random)
        status = gr_fail(GR_ERR_DEVICE, "start", "the kernel must have getrandom()",
                         "the system gives no random numbers (found none, expected 16 bytes)");
    GR_TRY(gr_comm_agree_status(comm, status, "job key"));
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(key + 2 * i, 3, "%02x", random[i]);
    GR_TRY(gr_comm_broadcast(comm, 0, key, 33, "job key"));
out:
    return status;
}

static void begin(struct gr_engine *e, const struct gr_config *config, struct gr_device *dev,
                  struct gr_comm *comm)
{
    memset(e, 0, sizeof *e);
    e->config = config;
    e->dev = dev;
    e->comm = comm;
    e->model.dev = dev;
}

/* What this rank does alone. */
static gr_status read_model(struct gr_engine *e, const struct gr_weight_sharing *sharing)
{
    gr_status status = GR_OK;
    const char *directory = e->config->model;

    GR_TRY(gr_model_config_load(&e->model.config, directory));
    GR_TRY(check_length(e));
    GR_TRY(gr_weights_load(&e->model.weights, e->model_hash, &e->model.config, directory, sharing));
out:
    return status;
}

gr_status gr_engine_load_model(struct gr_engine *e, const struct gr_config *config,
                               struct gr_device *dev, struct gr_comm *comm)
{
    gr_status status = GR_OK;
    struct gr_arena measured = {.name = "weights"};
    char job_key[33] = "", *cache_dir = gr_cache_dir(config);
    struct gr_weight_sharing sharing = {.local_rank = gr_comm_local_rank(comm),
                                        .local_size = gr_comm_local_size(comm),
                                        .job_key = job_key,
                                        .threads = gr_device_threads(dev),
                                        .cache_dir = cache_dir,
                                        .timeout_s = (double)config->dist.timeout_seconds};

    begin(e, config, dev, comm);
    GR_TRY(make_job_key(job_key, comm));
    GR_TRY(gr_compute_dtype_agree(&e->model.dtype, config, comm));
    sharing.dtype = e->model.dtype;
    GR_TRY(gr_comm_agree_status(comm, read_model(e, &sharing), "model"));
    GR_TRY(gr_weights_share(&e->model.weights, &e->model.config, &sharing));
    GR_TRY(make_rope_tables(e, &measured));
    GR_TRY(gr_device_arena_create(dev, &e->fixed, "weights", measured.used));
    GR_TRY(make_rope_tables(e, &e->fixed));
out:
    gr_free(cache_dir);
    return status;
}

/* Passes that never run at the same time have the same memory. */
static void layout_shared(struct gr_pass *one, struct gr_pass *other, struct gr_arena *step)
{
    int64_t mark = step->used, end;

    gr_pass_layout(one, step);
    if (other == NULL)
        return;
    end = step->used;
    gr_arena_reset(step, mark);
    gr_pass_layout(other, step);
    step->used = step->used > end ? step->used : end;
}

static void layout_param(struct gr_engine *e, struct gr_arena *state, int64_t elements)
{
    e->param = gr_arena_tensor_1d(state, GR_F32, elements);
    if (e->model.dtype != GR_F32)
        e->copy = gr_arena_tensor_1d(state, e->model.dtype, elements);
}

/* Elements [begin, end) of the flat buffers are this adapter's. */
static void give_param(const struct gr_engine *e, struct gr_adapter *adapter, int64_t begin,
                       int64_t end)
{
    adapter->param = gr_tensor_rows(e->param, begin, end);
    if (e->copy.ndim != 0)
        adapter->copy = gr_tensor_rows(e->copy, begin, end);
}

gr_status gr_engine_examine_model(struct gr_engine *e, struct gr_memory_plan *plan,
                                  const struct gr_config *config, struct gr_device *dev,
                                  struct gr_comm *comm, bool reads_values)
{
    gr_status status = GR_OK;
    char *cache_dir = gr_cache_dir(config);
    struct gr_weight_sharing sharing = {
        .local_size = 1, .threads = gr_device_threads(dev), .cache_dir = cache_dir};

    begin(e, config, dev, comm);
    GR_TRY(gr_model_config_load(&e->model.config, config->model));
    GR_TRY(check_length(e));
    GR_TRY(gr_compute_dtype_agree(&e->model.dtype, config, comm));
    sharing.dtype = e->model.dtype;
    GR_TRY(gr_weights_examine(&plan->weight_bytes, &e->model.config, config->model, &sharing,
                              reads_values));
out:
    gr_free(cache_dir);
    return status;
}

/* Runs twice: over arenas that measure, then over arenas with memory. */
static void layout(struct gr_engine *e, struct gr_arena *state, struct gr_arena *step)
{
    int64_t elements = e->trials > 0 ? e->trial[e->trials - 1].end : 0;

    if (e->trials > 0) {
        layout_param(e, state, elements);
        e->moment1 = gr_arena_tensor_1d(state, GR_F32, elements);
        e->moment2 = gr_arena_tensor_1d(state, GR_F32, elements);
        e->square_sum = gr_arena_tensor_1d(state, GR_F64, 1);
        gr_tree_layout(e->tree, state);
        layout_shared(e->pass, e->eval_pass, step);
    } else {
        if (e->adapters != NULL)
            layout_param(e, state, e->adapters[0]->elements);
        if (e->next_pass != NULL) {
            gr_kv_cache_layout(&e->cache, &e->model, step);
            e->logits = gr_arena_tensor_2d(step, GR_F32, 1, e->model.config.vocab_size);
        }
        layout_shared(e->eval_pass, e->next_pass, step);
    }
}

static gr_status carve(struct gr_engine *e)
{
    gr_status status = GR_OK;
    struct gr_arena state = {.name = "state"}, step = {.name = "step"};

    layout(e, &state, &step);
    gr_memory_plan_print(&(struct gr_memory_plan){.weight_bytes = e->model.weights.bytes,
                                                  .state_bytes = state.used,
                                                  .step_bytes = step.used});
    GR_TRY(gr_device_arena_create(e->dev, &e->state, "state", state.used));
    GR_TRY(gr_device_arena_create(e->dev, &e->step, "step", step.used));
    layout(e, &e->state, &e->step);
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
    e->loss = GR_NEW_ARRAY(double, trials);
    for (int i = 0; i < trials; i++) {
        e->adapters[i] = trial[i].adapter;
        rows += gr_loader_rows(trial[i].loader);
    }
    GR_TRY(gr_tree_create(&e->tree, e->dev, e->comm, e->config->train.micro_batches,
                          trial[trials - 1].end, trials));
    GR_TRY(gr_pass_create(&e->pass, &e->model, rows, e->adapters, trials, true));
    if (eval_rows > 0)
        GR_TRY(gr_pass_create(&e->eval_pass, &e->model, eval_rows, e->adapters, trials, false));
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

gr_status gr_engine_plan(struct gr_engine *e, struct gr_memory_plan *plan, struct gr_trial *trial,
                         int trials, int64_t eval_rows, int ranks)
{
    gr_status status = GR_OK;
    int64_t micro_batches = e->config->train.micro_batches;
    struct gr_arena state = {.name = "state"}, step = {.name = "step"}, fixed = {.name = "weights"};

    GR_TRY(take_trials(e, trial, trials, eval_rows));
    layout(e, &state, &step);
    GR_TRY(make_rope_tables(e, &fixed));
    plan->elements = trial[trials - 1].end;
    plan->gradient_bytes = gr_tree_state_bytes(micro_batches, ranks, plan->elements);
    plan->state_bytes = state.used + plan->gradient_bytes -
                        gr_tree_state_bytes(micro_batches, gr_comm_size(e->comm), plan->elements);
    plan->step_bytes = step.used + fixed.used;
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
    GR_TRY(gr_pass_create(&e->eval_pass, &e->model, rows, e->adapters, adapter != NULL, false));
    if (text_tokens > 0) {
        GR_TRY(gr_pass_create(&e->next_pass, &e->model, 1, e->adapters, adapter != NULL, false));
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

void gr_engine_release(struct gr_engine *e)
{
    gr_pass_destroy(e->pass);
    gr_pass_destroy(e->eval_pass);
    gr_pass_destroy(e->next_pass);
    gr_tree_destroy(e->tree);
    if (e->dev != NULL) {
        gr_device_arena_release(e->dev, &e->step);
        gr_device_arena_release(e->dev, &e->state);
        gr_device_arena_release(e->dev, &e->fixed);
    }
    gr_weights_release(&e->model.weights);
    gr_free(e->adapters);
    gr_free(e->gradient);
    gr_free(e->loss);
    memset(e, 0, sizeof *e);
}

gr_status gr_engine_get_adapter(struct gr_engine *e, float *values, int trial)
{
    gr_device_download(e->dev, values, e->adapters[trial]->param);
    return gr_device_sync(e->dev);
}

gr_status gr_engine_set_adapter(struct gr_engine *e, const float *values, int trial)
{
    const struct gr_adapter *adapter = e->adapters[trial];

    gr_device_upload(e->dev, adapter->param, values);
    if (!gr_tensor_is_none(adapter->copy))
        gr_copy(e->dev, adapter->copy, adapter->param);
    return gr_device_sync(e->dev);
}

static gr_tensor trial_part(const struct gr_engine *e, gr_tensor flat, int trial)
{
    return gr_tensor_rows(flat, e->trial[trial].begin, e->trial[trial].end);
}

gr_status gr_engine_get_state(struct gr_engine *e, float *param, float *moment1, float *moment2,
                              int trial)
{
    gr_device_download(e->dev, param, trial_part(e, e->param, trial));
    gr_device_download(e->dev, moment1, trial_part(e, e->moment1, trial));
    gr_device_download(e->dev, moment2, trial_part(e, e->moment2, trial));
    return gr_device_sync(e->dev);
}

gr_status gr_engine_set_state(struct gr_engine *e, const float *param, const float *moment1,
                              const float *moment2, int trial)
{
    gr_device_upload(e->dev, trial_part(e, e->moment1, trial), moment1);
    gr_device_upload(e->dev, trial_part(e, e->moment2, trial), moment2);
    return gr_engine_set_adapter(e, param, trial);
}

gr_status gr_engine_init_adapters(struct gr_engine *e)
{
    gr_status status = GR_OK;
    float *values = NULL;

    for (int i = 0; i < e->trials; i++) {
        values = gr_realloc(values, e->adapters[i]->elements, sizeof *values);
        gr_adapter_init_values(values, e->adapters[i], e->trial[i].seed);
        GR_TRY(gr_engine_set_adapter(e, values, i));
    }
    gr_zero(e->dev, e->moment1);
    gr_zero(e->dev, e->moment2);
    GR_TRY(gr_device_sync(e->dev));
out:
    gr_free(values);
    return status;
}

/* sqrt(sum x^2), NaN or infinite if any element is. */
static gr_status norm_of(double *norm, struct gr_engine *e, gr_tensor x)
{
    gr_status status = GR_OK;
    double sum = 0;

    gr_sum_squares(e->dev, e->square_sum, x);
    gr_device_download(e->dev, &sum, e->square_sum);
    GR_TRY(gr_device_sync(e->dev));
    *norm = sqrt(sum);
out:
    return status;
}

/* Names the first matrix whose gradient is not finite. */
static gr_status report_divergence(struct gr_engine *e, int trial, int64_t step, int64_t m)
{
    const struct gr_adapter *adapter = e->adapters[trial];
    char name[64] = "";
    double norm = 0;

    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *matrix = &adapter->matrix[i];

        if (norm_of(&norm, e, gr_tensor_rows(e->gradient[trial], matrix->a_begin, matrix->end)))
            return gr_device_status(e->dev);
        if (!isfinite(norm)) {
            gr_lora_matrix_name(name, matrix);
            break;
        }
    }
    return gr_fail(GR_ERR_DIVERGED, "train", diverged_hint,
                   "not finite in step %lld, micro-batch %lld: gradient of %s", (long long)step,
                   (long long)m, name);
}

static gr_status check_finite(struct gr_engine *e, const struct gr_sums *sums, int64_t step,
                              int64_t m)
{
    gr_status status = GR_OK;
    double norm = 0;

    for (int i = 0; i < e->trials; i++) {
        if (!isfinite(sums[i].loss))
            GR_TRY(gr_fail(GR_ERR_DIVERGED, "train", diverged_hint,
                           "not finite in step %lld, micro-batch %lld: loss", (long long)step,
                           (long long)m));
        GR_TRY(norm_of(&norm, e, e->gradient[i]));
        if (!isfinite(norm))
            GR_TRY(report_divergence(e, i, step, m));
    }
out:
    return status;
}

/* Puts the micro-batch of every trial into the pass; returns the labels there are. */
static int64_t fill_pass(struct gr_engine *e, struct gr_sums *sums, int64_t step, int64_t m)
{
    int64_t labels = 0;

    gr_pass_begin(e->pass);
    for (int i = 0; i < e->trials; i++) {
        struct gr_trial *trial = &e->trial[i];
        struct gr_rng rng = {
            .seed = trial->seed, .step = (uint32_t)step, .micro_batch = (uint32_t)m};

        gr_loader_fill(trial->loader, &trial->batch, step, m);
        gr_pass_add(e->pass, &trial->batch, i, rng);
        sums[i] = (struct gr_sums){.supervised = trial->batch.label_count,
                                   .tokens = trial->batch.token_count};
        labels += trial->batch.label_count;
    }
    return labels;
}

gr_status gr_engine_micro_batch(struct gr_engine *e, int64_t step, int64_t m)
{
    gr_status status = GR_OK;
    gr_tensor leaf = {0};
    struct gr_sums *sums = NULL;

    e->micro_batches_done++;
    gr_tree_leaf(e->tree, m, &leaf, &sums);
    if (fill_pass(e, sums, step, m) == 0) { /* missing: the epoch's last step is short */
        gr_zero(e->dev, leaf);
        gr_tree_push(e->tree, m);
        return gr_device_status(e->dev);
    }
    for (int i = 0; i < e->trials; i++)
        e->gradient[i] = gr_tensor_rows(leaf, e->trial[i].begin, e->trial[i].end);
    gr_pass_bind(e->pass, e->gradient);
    gr_pass_upload(e->pass);
    GR_TRY(gr_pass_forward(e->pass, true));
    GR_TRY(gr_pass_loss(e->pass));
    GR_TRY(gr_pass_backward(e->pass));
    gr_device_download(e->dev, e->loss, gr_tensor_rows(e->pass->loss, 0, e->trials));
    GR_TRY(gr_device_sync(e->dev));
    for (int i = 0; i < e->trials; i++)
        sums[i].loss = e->loss[i];
    GR_TRY(check_finite(e, sums, step, m));
    gr_tree_push(e->tree, m);
out:
    return status;
}

static gr_status update_trial(struct gr_engine *e, struct gr_update *update, struct gr_trial *trial,
                              gr_tensor gradient, const struct gr_sums *sums, int64_t step)
{
    gr_status status = GR_OK;
    const struct gr_config *c = e->config;
    double limit = c->train.max_grad_norm;
    struct gr_adamw adamw = {
        .param = trial->adapter->param,
        .moment1 = gr_tensor_rows(e->moment1, trial->begin, trial->end),
        .moment2 = gr_tensor_rows(e->moment2, trial->begin, trial->end),
        .grad = gradient,
        .spans = trial->spans,
        .span = trial->span,
        .beta1 = c->train.adam_beta1,
        .beta2 = c->train.adam_beta2,
        .eps = c->train.adam_epsilon,
        .step = step,
    };

    GR_CHECK(sums->supervised > 0, "step %lld", (long long)step);
    *update = (struct gr_update){.loss = sums->loss / (double)sums->supervised,
                                 .supervised = sums->supervised,
                                 .tokens = sums->tokens,
                                 .learning_rate = gr_trial_learning_rate(trial, c, step)};
    gr_scale(e->dev, gradient, (float)(1.0 / (double)sums->supervised));
    GR_TRY(norm_of(&update->grad_norm, e, gradient));
    if (!isfinite(update->grad_norm)) /* finite leaves, but not their sum */
        GR_TRY(gr_fail(GR_ERR_DIVERGED, "train", diverged_hint,
                       "not finite in step %lld: the sum of the gradients (found %g, expected a "
                       "finite norm)",
                       (long long)step, update->grad_norm));
    if (limit > 0 && limit / (update->grad_norm + 1e-6) < 1)
        gr_scale(e->dev, gradient, (float)(limit / (update->grad_norm + 1e-6)));
    for (int i = 0; i < trial->spans; i++)
        trial->span[i].learning_rate = update->learning_rate * trial->span_ratio[i];
    gr_adamw(e->dev, &adamw);
    GR_TRY(gr_device_sync(e->dev));
out:
    return status;
}

gr_status gr_engine_update(struct gr_engine *e, struct gr_update *update, int64_t step)
{
    gr_status status = GR_OK;
    gr_tensor root = {0};
    struct gr_sums *sums = NULL;

    GR_TRY(gr_tree_root(e->tree, &root, &sums));
    for (int i = 0; i < e->trials; i++)
        GR_TRY(update_trial(e, &update[i], &e->trial[i],
                            gr_tensor_rows(root, e->trial[i].begin, e->trial[i].end), &sums[i],
                            step));
out:
    return status;
}

gr_status gr_engine_eval_batch(struct gr_engine *e, struct gr_sums *sums,
                               const struct gr_batch *batch, int trial)
{
    gr_status status = GR_OK;
    double loss = 0;

    gr_pass_begin(e->eval_pass);
    gr_pass_add(e->eval_pass, batch, e->adapters == NULL ? -1 : trial, (struct gr_rng){0});
    gr_pass_upload(e->eval_pass);
    GR_TRY(gr_pass_forward(e->eval_pass, false));
    GR_TRY(gr_pass_loss(e->eval_pass));
    gr_device_download(e->dev, &loss, gr_tensor_rows(e->eval_pass->loss, 0, 1));
    GR_TRY(gr_device_sync(e->dev));
    sums->loss += loss;
    sums->supervised += batch->label_count;
    sums->tokens += batch->token_count;
out:
    return status;
}
