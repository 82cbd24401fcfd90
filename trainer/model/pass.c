/* The memory of a pass: which activations exist, which layers share them.  Declared in
 * transformer.h; the layer code never asks these questions. */
#include "trainer/model/transformer.h"

#include "kernels/base/alloc.h"

#include <string.h>

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

/* The most of any layer. */
static int64_t largest_rank(const struct gr_pass *p, enum gr_group group)
{
    int64_t rank = 0;

    for (int64_t layer = 0; layer < p->model->config.layers; layer++)
        rank = max(rank, group_rank(p, layer, group));
    return rank;
}

/* Past the last layer where there is no adapter. */
static void find_lowest(struct gr_pass *p)
{
    int64_t places = p->model->config.layers * GR_GROUP_COUNT, place = 0;

    while (place < places &&
           group_rank(p, place / GR_GROUP_COUNT, (enum gr_group)(place % GR_GROUP_COUNT)) == 0)
        place++;
    p->lowest.layer = place / GR_GROUP_COUNT;
    p->lowest.group = (enum gr_group)(place % GR_GROUP_COUNT);
}

struct gr_pass *gr_pass_create(const struct gr_model *model, int64_t rows,
                               struct gr_adapter *const *adapter, int adapters, bool has_backward)
{
    struct gr_pass *p = GR_NEW(struct gr_pass);
    int64_t layers = model->config.layers;

    p->model = model;
    p->rows = rows;
    p->adapter = adapter;
    p->adapters = adapters;
    p->is_joined = gr_joined_weights_fit(&model->joined, adapter, adapters);
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
    find_lowest(p);
    gr_pass_set_recompute(p, has_backward ? 0 : gr_pass_recompute_most(p));
    return p;
}

int64_t gr_pass_recompute_most(const struct gr_pass *p)
{
    return (int64_t)GR_REDO_ALL * p->model->config.layers;
}

int64_t gr_pass_offload_most(const struct gr_pass *p)
{
    return (int64_t)GR_OFFLOAD * p->model->config.layers;
}

/* The last layers recompute first: their level is never below that of those before them.  Below the
 * lowest adapter nothing is kept, since no backward comes there. */
void gr_pass_set_recompute(struct gr_pass *p, int64_t amount)
{
    int64_t layers = p->model->config.layers;
    enum gr_recompute most = p->has_backward ? GR_OFFLOAD : GR_REDO_ALL;

    for (int64_t layer = 0; layer < layers; layer++) {
        int64_t level = amount / layers + (layer >= layers - amount % layers ? 1 : 0);

        p->layer[layer].level = level > (int64_t)most ? most : (enum gr_recompute)level;
        if (layer < p->lowest.layer)
            p->layer[layer].level = GR_REDO_ALL;
    }
}

static bool is_offloaded(const struct gr_pass *p, int64_t layer)
{
    return layer < p->model->config.layers && p->layer[layer].level == GR_OFFLOAD;
}

/* A later layer takes its place: the last ones keep theirs. */
static bool goes_away(const struct gr_pass *p, int64_t layer)
{
    return is_offloaded(p, layer) && is_offloaded(p, layer + GR_STASH_LANES);
}

int64_t gr_pass_count_away(const struct gr_pass *p)
{
    int64_t count = 0;

    for (int64_t layer = 0; layer < p->model->config.layers; layer++)
        count += goes_away(p, layer);
    return count;
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

/* (N, columns) that are x or dy of up to two groups: where these are joined with room behind each
 * row for their S or dS. */
static gr_tensor take_rows(const struct gr_pass *p, struct gr_arena *step, int64_t columns,
                           enum gr_group one, enum gr_group other)
{
    int64_t room = max(largest_rank(p, one), largest_rank(p, other)), stride = columns;

    if (p->is_joined)
        stride = gr_joined_stride(columns + room);
    return gr_tensor_columns(gr_arena_tensor_2d(step, p->model->dtype, p->rows, stride), 0,
                             columns);
}

static void take_qkv(struct gr_layer_acts *a, const struct gr_pass *p, struct gr_arena *step)
{
    const struct gr_model_config *c = &p->model->config;
    int64_t n = p->rows, q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;

    a->rstd1 = gr_arena_tensor_1d(step, GR_F32, n);
    a->qkv = gr_arena_tensor_2d(step, p->model->dtype, n, q + 2 * kv);
    a->qk = gr_tensor_columns(a->qkv, 0, q + kv);
    if (!c->qk_norm)
        return;
    a->qk = gr_arena_tensor_2d(step, p->model->dtype, n, q + kv);
    a->rstd_q = gr_arena_tensor_2d(step, GR_F32, n, c->heads);
    a->rstd_k = gr_arena_tensor_2d(step, GR_F32, n, c->kv_heads);
}

static void take_attention(struct gr_layer_acts *a, const struct gr_pass *p, struct gr_arena *step)
{
    const struct gr_model_config *c = &p->model->config;

    a->o = take_rows(p, step, c->heads * c->head_dim, GR_GROUP_O, GR_GROUP_O);
    a->lse = gr_arena_tensor_2d(step, GR_F32, p->rows, c->heads);
}

static void take_mid(struct gr_layer_acts *a, const struct gr_pass *p, struct gr_arena *step)
{
    a->mid = gr_arena_tensor_2d(step, p->model->dtype, p->rows, p->model->config.hidden_size);
}

static void take_gate_up(struct gr_layer_acts *a, const struct gr_pass *p, struct gr_arena *step)
{
    a->rstd2 = gr_arena_tensor_1d(step, GR_F32, p->rows);
    a->gate_up = take_rows(p, step, 2 * p->model->config.intermediate_size, GR_GROUP_GATE_UP,
                           GR_GROUP_GATE_UP);
}

/* The memory of what each stage leaves. */
static const struct {
    enum gr_recompute level;
    void (*take)(struct gr_layer_acts *a, const struct gr_pass *p, struct gr_arena *step);
} stages[] = {
#define X(NAME, name, dropped_from) {dropped_from, take_##name},
    GR_LAYER_STAGES(X)
#undef X
};

void gr_pass_count_redone(int64_t layers[GR_STAGE_COUNT], const struct gr_pass *p)
{
    for (int64_t i = 0; i < GR_STAGE_COUNT; i++) {
        layers[i] = 0;
        for (int64_t layer = p->lowest.layer; layer < p->model->config.layers; layer++)
            layers[i] += p->layer[layer].level >= stages[i].level;
    }
}

/* Room for what any layer drops. */
static void layout_shared(struct gr_pass *p, struct gr_arena *step)
{
    enum gr_recompute most = GR_REDO_NOTHING;

    for (int64_t layer = 0; layer < p->model->config.layers; layer++)
        most = p->layer[layer].level > most ? p->layer[layer].level : most;
    for (int64_t i = 0; i < GR_COUNT(stages); i++) {
        if (most >= stages[i].level)
            stages[i].take(&p->shared, p, step);
    }
}

static void layout_layer(const struct gr_pass *p, struct gr_layer_acts *a, struct gr_arena *step)
{
    struct gr_layer_acts own = *a;

    *a = p->shared;
    a->level = own.level;
    memcpy(a->lora, own.lora, sizeof a->lora);
    for (int64_t i = 0; i < GR_COUNT(stages); i++) {
        if (a->level < stages[i].level)
            stages[i].take(a, p, step);
    }
}

/* (N, R) of a group; that of o lies behind o, which is kept as long and where joined has room. */
static gr_tensor take_s(const struct gr_pass *p, const struct gr_layer_acts *a,
                        struct gr_arena *step, int64_t layer, enum gr_group group)
{
    int64_t rank = group_rank(p, layer, group);

    if (rank == 0)
        return (gr_tensor){0};
    if (p->is_joined && group == GR_GROUP_O)
        return gr_joined_behind(a->o, rank);
    return gr_arena_tensor_2d(step, p->model->dtype, p->rows, rank);
}

static gr_tensor take_stream(const struct gr_pass *p, struct gr_arena *arena)
{
    return gr_arena_tensor_2d(arena, p->model->dtype, p->rows, p->model->config.hidden_size);
}

/* The layer's input. */
static void layout_input(struct gr_pass *p, int64_t layer, struct gr_arena *step,
                         struct gr_arena *away)
{
    struct gr_layer_acts *a = &p->layer[layer];

    if (p->has_backward && !is_offloaded(p, layer))
        a->x = take_stream(p, step);
    else
        a->x = p->place[layer % GR_STASH_LANES];
    a->away = goes_away(p, layer) ? take_stream(p, away) : (gr_tensor){0};
}

static void layout_layers(struct gr_pass *p, struct gr_arena *step, struct gr_arena *away)
{
    const struct gr_model_config *c = &p->model->config;
    int64_t n = p->rows, ds_columns = 0;

    /* Without a backward, too, layers read one and write the other. */
    for (int i = 0; i < GR_STASH_LANES; i++)
        p->place[i] = p->has_backward && !is_offloaded(p, c->layers - 1) ? (gr_tensor){0}
                                                                         : take_stream(p, step);
    layout_shared(p, step);
    for (int64_t layer = 0; layer < c->layers; layer++) {
        struct gr_layer_acts *a = &p->layer[layer];

        layout_layer(p, a, step);
        layout_input(p, layer, step, away);
        for (int group = 0; group < GR_GROUP_COUNT; group++) {
            a->s[group] = take_s(p, a, step, layer, (enum gr_group)group);
            if (p->has_backward && !p->is_joined)
                ds_columns = max(ds_columns, group_rank(p, layer, (enum gr_group)group));
        }
    }
    p->x_final = p->has_backward ? take_stream(p, step) : p->place[c->layers % GR_STASH_LANES];
    p->ds = gr_arena_tensor_2d(step, p->model->dtype, n, ds_columns);
}

static void layout_scratch(struct gr_pass *p, struct gr_arena *step)
{
    const struct gr_model_config *c = &p->model->config;
    int64_t n = p->rows, q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;

    p->rstd_final = gr_arena_tensor_1d(step, GR_F32, n);
    p->h_final = gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size);
    p->xn = take_rows(p, step, c->hidden_size, GR_GROUP_QKV, GR_GROUP_GATE_UP);
    p->ffn = take_rows(p, step, c->intermediate_size, GR_GROUP_DOWN, GR_GROUP_DOWN);
    if (!p->has_backward)
        return;
    p->dr = take_rows(p, step, c->hidden_size, GR_GROUP_O, GR_GROUP_DOWN);
    p->dxn = gr_arena_tensor_2d(step, p->model->dtype, n, c->hidden_size);
    p->d_o = gr_arena_tensor_2d(step, p->model->dtype, n, q);
    p->dqkv = take_rows(p, step, q + 2 * kv, GR_GROUP_QKV, GR_GROUP_QKV);
    p->dffn = gr_arena_tensor_2d(step, p->model->dtype, n, c->intermediate_size);
}

static int64_t workspace_bytes(const struct gr_pass *p)
{
    const struct gr_model_config *c = &p->model->config;
    struct gr_device *d = p->model->dev;
    int64_t bytes = max(gr_pass_attention_bytes(p),
                        gr_head_loss_workspace_bytes(d, c->hidden_size, c->vocab_size));

    for (int group = 0; group < GR_GROUP_COUNT; group++) {
        const struct gr_group_shape *shape = &gr_group_shapes[group];
        int64_t out = 0;

        for (int i = 0; i < shape->count; i++)
            out += gr_module_out(c, (enum gr_module)((int)shape->first + i));
        bytes =
            max(bytes, gr_lora_group_workspace_bytes(d, p->rows, gr_module_in(c, shape->first), out,
                                                     largest_rank(p, (enum gr_group)group)));
    }
    return bytes;
}

void gr_pass_layout(struct gr_pass *p, struct gr_arena *step, struct gr_arena *away)
{
    GR_CHECK(away != NULL || gr_pass_count_away(p) == 0, "%lld inputs without a stash",
             (long long)gr_pass_count_away(p));
    layout_inputs(p, step);
    layout_layers(p, step, away);
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

/* One linear's adapter, where it is computed with. */
static struct gr_lora view_lora(const struct gr_pass *p, int k, int64_t layer,
                                enum gr_module module, gr_tensor gradient)
{
    struct gr_lora view = gr_adapter_view(p->adapter[k], (int)layer, module, gradient);

    if (p->is_joined) {
        struct gr_joined_parts parts = gr_joined_weights_parts(&p->model->joined, layer, module);

        view.a = parts.a;
        view.b = parts.b;
    }
    return view;
}

void gr_pass_bind(struct gr_pass *p, const gr_tensor *gradient)
{
    for (int64_t layer = 0; layer < p->model->config.layers; layer++) {
        for (int group = 0; group < GR_GROUP_COUNT; group++) {
            const struct gr_group_shape *shape = &gr_group_shapes[group];

            for (int k = 0; k < p->adapters; k++) {
                for (int i = 0; i < shape->count; i++)
                    p->layer[layer].lora[group][k * shape->count + i] =
                        view_lora(p, k, layer, (enum gr_module)((int)shape->first + i),
                                  gradient == NULL ? (gr_tensor){0} : gradient[k]);
            }
        }
    }
}
