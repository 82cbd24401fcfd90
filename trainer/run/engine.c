/* The arithmetic of a run: its memory is engine_memory.c.  See engine.h. */
#include "trainer/run/engine.h"

#include "kernels/base/alloc.h"

#include <math.h>

static const char diverged_hint[] =
    "start again with a lower train.learning_rate and another output";

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
    if (e->is_joined)
        gr_joined_weights_refresh(&e->model.joined, e->dev);
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

/* Puts the micro-batch of every trial into the pass; returns the labels there are. */
static int64_t fill_pass(struct gr_engine *e, int64_t step, int64_t m)
{
    int64_t labels = 0;

    gr_pass_begin(e->pass);
    for (int i = 0; i < e->trials; i++) {
        struct gr_trial *trial = &e->trial[i];
        struct gr_rng rng = {
            .seed = trial->seed, .step = (uint32_t)step, .micro_batch = (uint32_t)m};

        gr_loader_fill(trial->loader, &trial->batch, step, m);
        gr_pass_add(e->pass, &trial->batch, i, rng);
        *gr_step_results_leaf(&e->results, m, i) = (struct gr_sums){
            .supervised = trial->batch.label_count, .tokens = trial->batch.token_count};
        labels += trial->batch.label_count;
    }
    return labels;
}

/* Queues what is in the pass: its gradients are written to leaf, its losses to their place. */
static gr_status run_pass(struct gr_engine *e, gr_tensor leaf, int64_t m)
{
    gr_status status = GR_OK;

    for (int i = 0; i < e->trials; i++)
        e->gradient[i] = trial_part(e, leaf, i);
    gr_pass_bind(e->pass, e->gradient);
    e->pass->loss = gr_step_results_losses(&e->results, m);
    gr_pass_upload(e->pass);
    gr_device_range_begin(e->dev, "forward");
    GR_TRY(gr_pass_forward(e->pass, true));
    GR_TRY(gr_pass_loss(e->pass));
    gr_device_range_end(e->dev);
    gr_device_range_begin(e->dev, "backward");
    GR_TRY(gr_pass_backward(e->pass));
    gr_device_range_end(e->dev);
out:
    return status;
}

/* The first micro-batch there is; the first moments, which are as long and are zero before the
 * first step, take its gradient. */
gr_status gr_engine_rehearse(struct gr_engine *e)
{
    gr_status status = GR_OK;

    if (gr_device_uses_host_memory(e->dev))
        return GR_OK;
    fill_pass(e, 1, 0);
    GR_TRY(run_pass(e, e->moment1, 0));
    gr_zero(e->dev, e->moment1);
    GR_TRY(gr_device_sync(e->dev));
out:
    return status;
}

static void count_work(struct gr_engine *e)
{
    for (int i = 0; i < e->trials; i++) {
        const struct gr_batch *batch = &e->trial[i].batch;

        e->work.rows += (double)batch->rows;
        e->work.labels += (double)batch->label_count;
        for (int64_t d = 0; d < batch->doc_count; d++)
            gr_work_add_document(&e->work, &e->model.config,
                                 batch->docs[2 * d + 1] - batch->docs[2 * d]);
    }
}

gr_status gr_engine_micro_batch(struct gr_engine *e, int64_t step, int64_t m)
{
    gr_status status = GR_OK;
    gr_tensor leaf = gr_tree_leaf(e->tree, m);

    e->micro_batches_done++;
    if (fill_pass(e, step, m) > 0) {
        count_work(e);
        GR_TRY(run_pass(e, leaf, m));
    } else { /* missing: the epoch's last step is short */
        gr_zero(e->dev, leaf);
        gr_zero(e->dev, gr_step_results_losses(&e->results, m));
    }
    for (int i = 0; i < e->trials; i++)
        gr_sum_squares(e->dev, gr_step_results_leaf_square(&e->results, m, i),
                       trial_part(e, leaf, i), 1);
    gr_tree_push(e->tree, m);
    status = gr_device_status(e->dev);
out:
    return status;
}

/* Queues the update by the mean over `supervised` labels, if that is finite. */
static void queue_update(struct gr_engine *e, gr_tensor root, int i, int64_t supervised,
                         int64_t step)
{
    const struct gr_config *c = e->config;
    struct gr_trial *trial = &e->trial[i];
    struct gr_adamw adamw = {
        .param = trial->adapter->param,
        .moment1 = trial_part(e, e->moment1, i),
        .moment2 = trial_part(e, e->moment2, i),
        .grad = trial_part(e, root, i),
        .grad_scale = (float)(1.0 / (double)supervised),
        .square_sum = gr_step_results_root_square(&e->results, i),
        .max_norm = c->train.max_grad_norm,
        .spans = trial->spans,
        .span = trial->span,
        .beta1 = c->train.adam_beta1,
        .beta2 = c->train.adam_beta2,
        .eps = c->train.adam_epsilon,
        .step = step,
    };

    GR_CHECK(supervised > 0, "step %lld", (long long)step);
    for (int k = 0; k < trial->spans; k++)
        trial->span[k].learning_rate =
            gr_trial_learning_rate(trial, c, step) * trial->span_ratio[k];
    gr_sum_squares(e->dev, adamw.square_sum, adamw.grad, adamw.grad_scale);
    gr_adamw(e->dev, &adamw); /* with the copy of each span */
    if (e->is_joined)
        gr_joined_weights_refresh(&e->model.joined, e->dev);
}

/* Computes micro-batch m again, of a trial that was not updated, and names the first matrix whose
 * gradient is not finite. */
static gr_status find_matrix(struct gr_engine *e, char name[64], gr_tensor root, int trial,
                             int64_t step, int64_t m)
{
    gr_status status = GR_OK;
    const struct gr_adapter *adapter = e->adapters[trial];
    gr_tensor square = gr_step_results_root_square(&e->results, trial);

    fill_pass(e, step, m);
    GR_TRY(run_pass(e, root, m));
    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *matrix = &adapter->matrix[i];
        double found = 0;

        gr_sum_squares(e->dev, square,
                       gr_tensor_rows(e->gradient[trial], matrix->a_begin, matrix->end), 1);
        gr_device_download(e->dev, &found, square);
        GR_TRY(gr_device_sync(e->dev));
        if (!isfinite(found)) {
            gr_lora_matrix_name(name, matrix);
            break;
        }
    }
out:
    return status;
}

/* All ranks have the same message: whoever computed the micro-batch names the matrix. */
static gr_status report_gradient(struct gr_engine *e, gr_tensor root, int trial, int64_t step,
                                 int64_t m)
{
    gr_status status = GR_OK;
    int owner = gr_tree_owner(e->config->train.micro_batches, gr_comm_size(e->comm), m);
    char name[64] = "";

    if (gr_comm_rank(e->comm) == owner)
        status = find_matrix(e, name, root, trial, step, m);
    GR_TRY(gr_comm_agree_status(e->comm, status, "gradients"));
    GR_TRY(gr_comm_broadcast(e->comm, owner, name, sizeof name, "gradients"));
    GR_TRY(gr_fail(GR_ERR_DIVERGED, "train", diverged_hint,
                   "not finite in step %lld, micro-batch %lld: gradient of %s", (long long)step,
                   (long long)m, name));
out:
    return status;
}

static gr_status check_micro_batch(struct gr_engine *e, gr_tensor root, int64_t step, int64_t m)
{
    for (int i = 0; i < e->trials; i++) {
        const struct gr_sums *leaf = gr_step_results_leaf(&e->results, m, i);

        if (!isfinite(leaf->loss))
            return gr_fail(GR_ERR_DIVERGED, "train", diverged_hint,
                           "not finite in step %lld, micro-batch %lld: loss", (long long)step,
                           (long long)m);
        if (!isfinite(leaf->squares))
            return report_gradient(e, root, i, step, m);
    }
    return GR_OK;
}

/* Of a step whose updates have been made, where they could be. */
static gr_status check_finite(struct gr_engine *e, gr_tensor root, int64_t step)
{
    gr_status status = GR_OK;

    for (int64_t m = 0; m < e->config->train.micro_batches; m++)
        GR_TRY(check_micro_batch(e, root, step, m));
    for (int i = 0; i < e->trials; i++) {
        double norm = gr_step_results_norm(&e->results, i);

        if (!isfinite(norm)) /* finite leaves, but not their sum */
            GR_TRY(gr_fail(GR_ERR_DIVERGED, "train", diverged_hint,
                           "not finite in step %lld: the sum of the gradients (found %g, expected "
                           "a finite norm)",
                           (long long)step, norm));
    }
out:
    return status;
}

/* The one wait of a step. */
static gr_status read_results(struct gr_engine *e)
{
    gr_status waited, shared;

    gr_step_results_read(&e->results, e->dev);
    waited = gr_tree_wait(e->tree);
    gr_step_results_take(&e->results);
    shared = gr_step_results_share(&e->results); /* after a failure, too: the others count on it */
    return waited != GR_OK ? waited : shared;
}

gr_status gr_engine_update(struct gr_engine *e, struct gr_update *update, int64_t step)
{
    gr_status status = GR_OK;
    gr_tensor root = {0};

    GR_TRY(gr_step_results_share(&e->results)); /* what was counted: N */
    gr_device_range_begin(e->dev, "exchange");
    GR_TRY(gr_tree_root(e->tree, &root));
    gr_device_range_end(e->dev);
    gr_device_range_begin(e->dev, "update");
    for (int i = 0; i < e->trials; i++)
        queue_update(e, root, i, gr_step_results_sum(&e->results, i).supervised, step);
    gr_device_range_end(e->dev);
    GR_TRY(read_results(e));
    GR_TRY(check_finite(e, root, step));
    for (int i = 0; i < e->trials; i++) {
        struct gr_sums sums = gr_step_results_sum(&e->results, i);

        update[i] = (struct gr_update){.loss = sums.loss / (double)sums.supervised,
                                       .supervised = sums.supervised,
                                       .tokens = sums.tokens,
                                       .grad_norm = gr_step_results_norm(&e->results, i),
                                       .learning_rate =
                                           gr_trial_learning_rate(&e->trial[i], e->config, step)};
    }
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
