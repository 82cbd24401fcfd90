/* See flop.h. */
#include "trainer/run/flop.h"

#include "kernels/base/alloc.h"

/* Forward, x W; backward, dy W'.  The adapter's two matrices have gradients of their own.
 * Attention: scores and their product with v; backward, the scores again and four products. */
const struct gr_passes gr_passes_forward = {1, 1, 2, 1}, gr_passes_backward = {1, 2, 5, 1};

void gr_work_add_document(struct gr_work *work, const struct gr_model_config *model, int64_t tokens)
{
    double t = (double)tokens;

    for (int64_t layer = 0; layer < model->layers; layer++) {
        int64_t window = gr_model_window(model, layer);
        double w = window > 0 && (double)window < t ? (double)window : t;

        work->pairs += w * (w + 1) / 2 + (t - w) * w;
    }
}

static double weights_of(const struct gr_model_config *model, enum gr_module module)
{
    return (double)gr_module_in(model, module) * (double)gr_module_out(model, module);
}

double gr_flop(const struct gr_passes *passes, const struct gr_work *work,
               const struct gr_model_config *model, const struct gr_adapter *adapter)
{
    double weights = 0, adapted = 0;

    for (int module = 0; module < GR_MODULE_COUNT; module++)
        weights += (double)model->layers * weights_of(model, (enum gr_module)module);
    for (int64_t i = 0; i < adapter->count; i++)
        adapted +=
            (double)(adapter->matrix[i].r * (adapter->matrix[i].in + adapter->matrix[i].out));
    return 2 * (work->rows * (passes->linear * weights + passes->adapter * adapted) +
                passes->attention * work->pairs * (double)(model->heads * model->head_dim) +
                passes->head * work->labels * (double)(model->hidden_size * model->vocab_size));
}

double gr_flop_linears_redone(const int64_t layers[GR_STAGE_COUNT], const struct gr_work *work,
                              const struct gr_model_config *model)
{
    static const enum gr_stage stage[] = {[GR_GROUP_QKV] = GR_STAGE_QKV,
                                          [GR_GROUP_O] = GR_STAGE_MID,
                                          [GR_GROUP_GATE_UP] = GR_STAGE_GATE_UP};
    double weights = 0;

    for (int64_t group = 0; group < GR_COUNT(stage); group++) {
        const struct gr_group_shape *shape = &gr_group_shapes[group];

        for (int i = 0; i < shape->count; i++)
            weights += (double)layers[stage[group]] *
                       weights_of(model, (enum gr_module)((int)shape->first + i));
    }
    return 2 * work->rows * weights;
}

double gr_flop_attention_redone(const int64_t layers[GR_STAGE_COUNT], const struct gr_work *work,
                                const struct gr_model_config *model)
{
    return 2 * gr_passes_forward.attention * work->pairs *
           (double)(model->heads * model->head_dim) * (double)layers[GR_STAGE_ATTENTION] /
           (double)model->layers;
}
