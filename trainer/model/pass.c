/* The memory of a pass: which activations exist, which layers share them.  Declared in
 * transformer.h; the layer code never asks these questions. */
#include "trainer/model/transformer.h"

#include "kernels/base/alloc.h"

static int64_t max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Columns of s: the sum over the group's linears of the largest rank any adapter has there. */
static int64_t group_rank(const struct gr_pass *p, int64_t layer, enum gr_group group)
{
    const struct gr_group_shape *shape = &gr_group_shapes[group];
    int64_t sum = 0;

    for (int i = 0; i < shape->count; i++) {
        int64_t largest = 0;

        for (int k = 0; k < p->adapters; k++)
            largest = max(largest, gr_adapter_rank(p->adapter[k], (int)layer,
                                                   (enum gr_module)((int)shape->first + i)));
        sum += largest;
    }
    return sum;
}

gr_status gr_pass_create(struct gr_pass **out, const struct gr_model *model, int64_t rows,
                         struct gr_adapter *const *adapter, int adapters, bool has_backward)
{
    struct gr_pass *p = GR_NEW(struct gr_pass);
    int64_t layers = model->config.layers;

    p->model = model;
    p->rows = rows;
    p->adapter = adapter;
    p->adapters = adapters;
    p->has_backward = has_backward;
    p->segment = GR_NEW_ARRAY(struct gr_segment, adapters + 1);
    p->layer = GR_NEW_ARRAY(struct gr_layer_acts, layers);
    for (int64_t layer = 0; layer < layers; layer++) {
        for (int group = 0; group < GR_GROUP_COUNT; group++)
            p->layer[layer].lora[group] =
                GR_NEW_ARRAY(struct gr_lora, adapters * gr_group_shapes[group].count);
    }
    p->host = (struct gr_pass_host){.ids = GR_NEW_ARRAY(int32_t, rows),
                                    .positions = GR_NEW_ARRAY(int32_t, rows),
                                    .docs = GR_NEW_ARRAY(int32_t, 2 * rows),
                                    .label_rows = GR_NEW_ARRAY(int32_t, rows),
                                    .targets = GR_NEW_ARRAY(int32_t, rows),
                                    .loss_spans = GR_NEW_ARRAY(int32_t, 2 * (adapters + 1))};
    *out = p;
    return GR_OK;
}

void gr_pass_destroy(struct gr_pass *p)
{
    if (p == NULL)
        return;
    for (int64_t layer = 0; layer < p->model->config.layers; layer++) {
        for (int group = 0; group < GR_GROUP_COUNT; group++)
            gr_free(p->layer[layer].lora[group]);
    }
    gr_free(p->host.ids);
    gr_free(p->host.positions);
    gr_free(p->host.docs);
    gr_free(p->host.label_rows);
    gr_free(p->host.targets);
    gr_free(p->host.loss_spans);
    gr_free(p->layer);
    gr_free(p->segment);
    gr_free(p);
}

static void layout_inputs(struct gr_pass *p, struct gr_arena *step)
{
    p->in.ids = gr_arena_tensor_1d(step, GR_I32, p->rows);
    p->in.positions = gr_arena_tensor_1d(step, GR_I32, p->rows);
    p->in.docs = gr_arena_tensor_2d(step, GR_I32, p->rows, 2);
    p->in.label_rows = gr_arena_tensor_1d(step, GR_I32, p->rows);
    p->in.targets = gr_arena_tensor_1d(step, GR_I32, p->rows);
    p->in.loss_spans = gr_arena_tensor_2d(step, GR_I32, p->adapters + 1, 2);
    p->loss = gr_arena_tensor_1d(step, GR_F64, p->adapters + 1);
    p->row_loss = gr_arena_tensor_1d(step, GR_F64, p->rows);
}

static void layout_layer(const struct gr_pass *p, struct gr_layer_acts *a, struct gr_arena *step)
{
    const struct gr_model_config *c = &p->model->config;
    int64_t n = p->rows, q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;

    a->rstd1 = gr_arena_tensor_1d(step, GR_F32, n);
    a->qkv = gr_arena_tensor_2d(step, p->model->dtype, n, q + 2 * kv);
    if (c->qk_norm) {
        a->qk = gr_arena_tensor_2d(step, p->model->dtype, n, q + kv);
        a->rstd_q = gr_arena_tensor_2d(step, GR_F32, n, c->heads);
        a->rstd_k = gr_arena_tensor_2d(step, GR_F32, n, c->kv_heads);
    } else {
        a->qk = gr_tensor_columns(a->qkv, 0, q + kv);
    }
    a->o = gr_arena_tensor_2d(step, p->model->dtype, n, q);
    a->lse = gr_arena_tensor_2d(step, GR_F32, n, c->heads);
    a->mid = gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size);
    a->rstd2 = gr_arena_tensor_1d(step, GR_F32, n);
    a->gate_up = gr_arena_tensor_2d(step, p->model->dtype, n, 2 * c->intermediate_size);
}

static void layout_layers(struct gr_pass *p, struct gr_arena *step)
{
    const struct gr_model_config *c = &p->model->config;
    int64_t n = p->rows, largest_rank = 0;
    gr_tensor streams[2]; /* without a backward, layers read one and write the other */

    for (int i = 0; i < 2 && !p->has_backward; i++)
        streams[i] = gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size);
    for (int64_t layer = 0; layer < c->layers; layer++) {
        struct gr_layer_acts *a = &p->layer[layer];
        const struct gr_layer_acts shared = p->layer[0];

        if (p->has_backward || layer == 0) {
            layout_layer(p, a, step);
        } else {
            struct gr_layer_acts own = *a;

            *a = shared;
            for (int group = 0; group < GR_GROUP_COUNT; group++)
                a->lora[group] = own.lora[group];
        }
        a->x = p->has_backward ? gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size)
                               : streams[layer % 2];
        for (int group = 0; group < GR_GROUP_COUNT; group++) {
            int64_t rank = group_rank(p, layer, (enum gr_group)group);

            a->s[group] =
                rank == 0 ? (gr_tensor){0} : gr_arena_tensor_2d(step, p->model->dtype, n, rank);
            largest_rank = max(largest_rank, rank);
        }
    }
    p->x_final = p->has_backward ? gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size)
                                 : streams[c->layers % 2];
    p->ds = gr_arena_tensor_2d(step, p->model->dtype, n, p->has_backward ? largest_rank : 0);
}

static void layout_scratch(struct gr_pass *p, struct gr_arena *step)
{
    const struct gr_model_config *c = &p->model->config;
    int64_t n = p->rows, q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;

    p->rstd_final = gr_arena_tensor_1d(step, GR_F32, n);
    p->h_final = gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size);
    p->xn = gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size);
    p->ffn = gr_arena_tensor_2d(step, p->model->dtype, n, c->intermediate_size);
    if (!p->has_backward)
        return;
    p->dr = gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size);
    p->dxn = gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size);
    p->d_o = gr_arena_tensor_2d(step, p->model->dtype, n, q);
    p->dqkv = gr_arena_tensor_2d(step, p->model->dtype, n, q + 2 * kv);
    p->dffn = gr_arena_tensor_2d(step, p->model->dtype, n, c->intermediate_size);
}

static int64_t workspace_bytes(const struct gr_pass *p)
{
    const struct gr_model_config *c = &p->model->config;
    struct gr_device *d = p->model->dev;
    int64_t bytes = max(gr_attention_workspace_bytes(d, p->rows, c->heads, c->head_dim),
                        gr_head_loss_workspace_bytes(d, c->hidden_size, c->vocab_size));

    for (int group = 0; group < GR_GROUP_COUNT; group++) {
        const struct gr_group_shape *shape = &gr_group_shapes[group];
        int64_t out = 0, rank = 0;

        for (int i = 0; i < shape->count; i++)
            out += gr_module_out(c, (enum gr_module)((int)shape->first + i));
        for (int64_t layer = 0; layer < c->layers; layer++)
            rank = max(rank, group_rank(p, layer, (enum gr_group)group));
        bytes = max(bytes, gr_lora_group_workspace_bytes(d, p->rows, gr_module_in(c, shape->first),
                                                         out, rank));
    }
    return bytes;
}

void gr_pass_layout(struct gr_pass *p, struct gr_arena *step)
{
    layout_inputs(p, step);
    layout_layers(p, step);
    layout_scratch(p, step);
    p->workspace_bytes = workspace_bytes(p);
    p->workspace = gr_arena_take(step, p->workspace_bytes);
}

void gr_kv_cache_layout(struct gr_kv_cache *cache, const struct gr_model *model,
                        struct gr_arena *arena)
{
    const struct gr_model_config *config = &model->config;
    int64_t rows = gr_mul(config->layers, cache->room), width = config->kv_heads * config->head_dim;

    cache->k = gr_arena_tensor_2d(arena, model->dtype, rows, width);
    cache->v = gr_arena_tensor_2d(arena, model->dtype, rows, width);
}

void gr_pass_bind(struct gr_pass *p, const gr_tensor *gradient)
{
    for (int64_t layer = 0; layer < p->model->config.layers; layer++) {
        for (int group = 0; group < GR_GROUP_COUNT; group++) {
            const struct gr_group_shape *shape = &gr_group_shapes[group];

            for (int k = 0; k < p->adapters; k++) {
                for (int i = 0; i < shape->count; i++)
                    p->layer[layer].lora[group][k * shape->count + i] = gr_adapter_view(
                        p->adapter[k], (int)layer, (enum gr_module)((int)shape->first + i),
                        gradient == NULL ? (gr_tensor){0} : gradient[k]);
            }
        }
    }
}
