/* Forward and backward, facing each other.  See transformer.h.
 *
 * Rule: activation gradients are overwritten, but for the residual stream's (dr), to which every
 * branch adds; adapter gradients are overwritten, since each micro-batch has its own.  RMSNorm
 * outputs and silu(gate)*up are recomputed in the backward, by the kernels that pass over what they
 * are made of anyway: they are cheap and wide. */
#include "trainer/model/transformer.h"

#include "kernels/base/alloc.h"

static const gr_tensor none;

/* Columns of a fused buffer, as heads. */
static gr_tensor heads(gr_tensor t, int64_t begin, int64_t count, int64_t head_dim)
{
    return gr_tensor_heads(gr_tensor_columns(t, begin, begin + count * head_dim), count);
}

struct layer_views {
    gr_tensor q_raw, k_raw; /* before the q/k norm */
    gr_tensor q, k, v;      /* (N, heads, HD) */
    gr_tensor qk, dqk;      /* the heads of q, then those of k */
    gr_tensor dq, dk, dv;
    gr_tensor gate, up; /* (N, F) */
};

static struct layer_views view_layer(const struct gr_pass *p, const struct gr_layer_acts *a)
{
    const struct gr_model_config *c = &p->model->config;
    int64_t nh = c->heads, nkv = c->kv_heads, hd = c->head_dim, f = c->intermediate_size;
    struct layer_views v = {
        .q_raw = heads(a->qkv, 0, nh, hd),
        .k_raw = heads(a->qkv, nh * hd, nkv, hd),
        .v = heads(a->qkv, (nh + nkv) * hd, nkv, hd),
        .q = heads(a->qk, 0, nh, hd),
        .k = heads(a->qk, nh * hd, nkv, hd),
        .qk = heads(a->qk, 0, nh + nkv, hd),
        .gate = gr_tensor_columns(a->gate_up, 0, f),
        .up = gr_tensor_columns(a->gate_up, f, 2 * f),
    };

    if (p->has_backward) {
        v.dq = heads(p->dqkv, 0, nh, hd);
        v.dk = heads(p->dqkv, nh * hd, nkv, hd);
        v.dqk = heads(p->dqkv, 0, nh + nkv, hd);
        v.dv = heads(p->dqkv, (nh + nkv) * hd, nkv, hd);
    }
    return v;
}

static struct gr_attention attention_args(const struct gr_pass *p, const struct gr_layer_acts *a,
                                          const struct layer_views *v, int64_t layer)
{
    const struct gr_model_config *c = &p->model->config;

    return (struct gr_attention){.q = v->q,
                                 .k = v->k,
                                 .v = v->v,
                                 .docs = gr_tensor_rows(p->in.docs, 0, p->doc_count),
                                 .scale = gr_model_attention_scale(c),
                                 .window = gr_model_window(c, layer),
                                 .o = gr_tensor_heads(a->o, c->heads),
                                 .lse = a->lse,
                                 .dq = v->dq,
                                 .dk = v->dk,
                                 .dv = v->dv};
}

int64_t gr_pass_attention_bytes(const struct gr_pass *p)
{
    const int64_t heads = p->model->config.heads;
    int64_t most = 0;

    for (int64_t layer = 0; layer < p->model->config.layers; layer++) {
        const struct gr_layer_acts *a = &p->layer[layer];
        const struct layer_views v = view_layer(p, a);
        struct gr_attention attention = attention_args(p, a, &v, layer);
        int64_t bytes;

        if (p->has_backward)
            attention.d_o = gr_tensor_heads(p->d_o, heads);
        bytes = gr_attention_workspace_bytes(p->model->dev, &attention);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Of the group's weights and adapter, where the pass computes with such. */
static gr_tensor joined_matrix(const struct gr_pass *p, int64_t layer, enum gr_group group)
{
    return p->is_joined ? gr_joined_weights_matrix(&p->model->joined, layer, group)
                        : (gr_tensor){0};
}

/* One linear group of a layer with its adapters; the caller adds what the direction needs. */
static struct gr_lora_group group_args(const struct gr_pass *p, int64_t layer, enum gr_group group,
                                       struct gr_linear linear[3])
{
    const struct gr_layer_weights *w = &p->model->weights.layer[layer];
    const struct gr_linear all[GR_MODULE_COUNT] = {
        [GR_MODULE_Q] = {w->q, w->q_bias},          [GR_MODULE_K] = {w->k, w->k_bias},
        [GR_MODULE_V] = {w->v, w->v_bias},          [GR_MODULE_O] = {w->o, w->o_bias},
        [GR_MODULE_GATE] = {w->gate, w->gate_bias}, [GR_MODULE_UP] = {w->up, w->up_bias},
        [GR_MODULE_DOWN] = {w->down, w->down_bias},
    };
    const struct gr_group_shape *shape = &gr_group_shapes[group];

    for (int i = 0; i < shape->count; i++)
        linear[i] = all[(int)shape->first + i];
    return (struct gr_lora_group){.layer = (int)layer,
                                  .module = (int)shape->first,
                                  .linears = shape->count,
                                  .linear = linear,
                                  .adapters = p->adapters,
                                  .lora = p->layer[layer].lora[group],
                                  .segments = p->segments,
                                  .segment = p->segment,
                                  .s = p->layer[layer].s[group],
                                  .joined = joined_matrix(p, layer, group)};
}

static void group_forward(const struct gr_pass *p, int64_t layer, enum gr_group group, bool train,
                          gr_tensor y, gr_tensor x, gr_tensor residual)
{
    struct gr_linear linear[3];
    struct gr_lora_group g = group_args(p, layer, group, linear);

    g.train = train;
    g.y = y;
    g.x = x;
    g.residual = residual;
    gr_lora_group_forward(p->model->dev, &g);
}

/* Whether an adapter stands before this group, to which dx would lead. */
static bool goes_on(const struct gr_pass *p, int64_t layer, enum gr_group group)
{
    return layer > p->lowest.layer || group > p->lowest.group;
}

/* A part of it, or all; dx is left where the backward does not go on. */
static void group_backward(const struct gr_pass *p, int64_t layer, enum gr_group group,
                           enum gr_lora_part part, gr_tensor dx, gr_tensor dy, gr_tensor x)
{
    struct gr_linear linear[3];
    struct gr_lora_group g = group_args(p, layer, group, linear);

    g.train = true;
    g.part = part;
    g.dx = goes_on(p, layer, group) ? dx : (gr_tensor){0};
    g.dy = dy;
    g.x = x;
    if (g.s.ndim != 0)
        g.ds = p->is_joined ? gr_joined_behind(dy, g.s.dim[1])
                            : gr_tensor_columns(p->ds, 0, g.s.dim[1]);
    gr_lora_group_backward(p->model->dev, &g);
}

/* Rows [begin, end) of the document, of a layer's keys or values in the cache. */
static gr_tensor cached(const struct gr_pass *p, gr_tensor t, int64_t layer, int64_t begin,
                        int64_t end)
{
    int64_t first = layer * p->cache->room;

    return gr_tensor_heads(gr_tensor_rows(t, first + begin, first + end),
                           p->model->config.kv_heads);
}

/* Tokens of the document that a pass with a cache extends it by. */
static int64_t new_tokens(const struct gr_pass *p)
{
    return p->host.docs[1];
}

/* o <- softmax(qk')v, over the rows of this pass or all that the cache holds with them */
static void attention_forward(const struct gr_pass *p, const struct gr_attention *a, int64_t layer)
{
    struct gr_device *d = p->model->dev;
    const struct gr_kv_cache *cache = p->cache;
    int64_t begin, end, first;

    if (cache == NULL) {
        gr_attention_forward(d, a);
        return;
    }
    begin = cache->length;
    end = begin + new_tokens(p);
    gr_copy(d, cached(p, cache->k, layer, begin, end), gr_tensor_rows(a->k, 0, end - begin));
    gr_copy(d, cached(p, cache->v, layer, begin, end), gr_tensor_rows(a->v, 0, end - begin));
    if (begin == 0) {
        gr_attention_forward(d, a);
        return;
    }
    first = a->window > 0 && a->window < end ? end - a->window : 0;
    gr_attention_last(d, a->o, a->q, cached(p, cache->k, layer, first, end),
                      cached(p, cache->v, layer, first, end), a->scale);
}

/* ---- a layer ---------------------------------------------------------------------------------
 * The forward in four stages, whose results the backward needs: kept, or computed again by the very
 * same code, and then the last product. */

/* q, k, v <- rotated, normed projections of x */
static void compute_qkv(const struct gr_pass *p, int64_t layer, bool train)
{
    struct gr_device *d = p->model->dev;
    const struct gr_model *model = p->model;
    const struct gr_model_config *c = &model->config;
    const struct gr_layer_weights *w = &model->weights.layer[layer];
    const struct gr_layer_acts *a = &p->layer[layer];
    const struct layer_views v = view_layer(p, a);
    const double eps = c->rms_norm_eps;

    gr_rmsnorm_forward(d, p->xn, a->rstd1, a->x, w->input_norm, eps);  /* xn <- norm(x) */
    group_forward(p, layer, GR_GROUP_QKV, train, a->qkv, p->xn, none); /* qkv <- xn Wqkv' */
    if (c->qk_norm) {
        gr_rmsnorm_forward(d, v.q, a->rstd_q, v.q_raw, w->q_norm, eps); /* q <- norm(q) per head */
        gr_rmsnorm_forward(d, v.k, a->rstd_k, v.k_raw, w->k_norm, eps); /* k <- norm(k) per head */
    }
    gr_rope(d, v.qk, model->cos, model->sin, p->in.positions, +1); /* rotate(q), rotate(k) */
}

/* o <- softmax(qk')v */
static void compute_attention(const struct gr_pass *p, int64_t layer, bool train)
{
    const struct gr_layer_acts *a = &p->layer[layer];
    const struct layer_views v = view_layer(p, a);
    const struct gr_attention attention = attention_args(p, a, &v, layer);

    (void)train;
    attention_forward(p, &attention, layer);
}

/* mid <- x + o Wo' */
static void compute_mid(const struct gr_pass *p, int64_t layer, bool train)
{
    const struct gr_layer_acts *a = &p->layer[layer];

    group_forward(p, layer, GR_GROUP_O, train, a->mid, a->o, a->x);
}

/* gate, up <- norm(mid) Wgu' */
static void compute_gate_up(const struct gr_pass *p, int64_t layer, bool train)
{
    const struct gr_layer_weights *w = &p->model->weights.layer[layer];
    const struct gr_layer_acts *a = &p->layer[layer];

    gr_rmsnorm_forward(p->model->dev, p->xn, a->rstd2, a->mid, w->post_norm,
                       p->model->config.rms_norm_eps);
    group_forward(p, layer, GR_GROUP_GATE_UP, train, a->gate_up, p->xn, none);
}

static const struct {
    enum gr_recompute level;
    void (*compute)(const struct gr_pass *p, int64_t layer, bool train);
} stages[] = {
#define X(NAME, name, dropped_from) {dropped_from, compute_##name},
    GR_LAYER_STAGES(X)
#undef X
};

/* The stages whose results a layer of that level does not keep. */
static void compute_stages(const struct gr_pass *p, int64_t layer, bool train,
                           enum gr_recompute level)
{
    for (int64_t i = 0; i < GR_COUNT(stages); i++) {
        if (level >= stages[i].level)
            stages[i].compute(p, layer, train);
    }
}

/* y <- layer(x) */
static void layer_forward(const struct gr_pass *p, int64_t layer, bool train, gr_tensor y)
{
    const struct gr_layer_acts *a = &p->layer[layer];
    const struct layer_views v = view_layer(p, a);

    compute_stages(p, layer, train, GR_REDO_ALL);                     /* x .. gate, up */
    gr_swiglu_forward(p->model->dev, p->ffn, v.gate, v.up);           /* ffn <- silu(gate)*up */
    group_forward(p, layer, GR_GROUP_DOWN, train, y, p->ffn, a->mid); /* y <- mid + ffn Wdown' */
}

/* xn <- norm(x) again, the group's input;  dr += dL/dx, where the backward goes on */
static void norm_backward(const struct gr_pass *p, int64_t layer, enum gr_group group, gr_tensor x,
                          gr_tensor w, gr_tensor rstd)
{
    struct gr_device *d = p->model->dev;

    if (goes_on(p, layer, group))
        gr_rmsnorm_backward(d, p->dr, GR_ACCUMULATE, p->xn, p->dxn, x, w, rstd);
    else
        gr_rmsnorm_forward(d, p->xn, rstd, x, w, p->model->config.rms_norm_eps);
}

/* dr: in dL/dy, out dL/dx; left without the rest behind the lowest adapter: nobody needs it */
static void layer_backward(const struct gr_pass *p, int64_t layer)
{
    struct gr_device *d = p->model->dev;
    const struct gr_model *model = p->model;
    const struct gr_model_config *c = &model->config;
    const struct gr_layer_weights *w = &model->weights.layer[layer];
    const struct gr_layer_acts *a = &p->layer[layer];
    const struct layer_views v = view_layer(p, a);
    struct gr_attention attention = attention_args(p, a, &v, layer);

    compute_stages(p, layer, true, a->level);

    /* dffn <- dr Wdown;  gate, up <- their gradients;  ffn again */
    group_backward(p, layer, GR_GROUP_DOWN, GR_LORA_BUT_DA, p->dffn, p->dr, p->ffn);
    if (goes_on(p, layer, GR_GROUP_DOWN))
        gr_swiglu_backward(d, v.gate, v.up, p->ffn, p->dffn, v.gate, v.up);
    else
        gr_swiglu_forward(d, p->ffn, v.gate, v.up);
    group_backward(p, layer, GR_GROUP_DOWN, GR_LORA_DA, p->dffn, p->dr, p->ffn);
    if (!goes_on(p, layer, GR_GROUP_DOWN))
        return;

    /* dxn <- dgu Wgu;  dr += through the norm;  xn again */
    group_backward(p, layer, GR_GROUP_GATE_UP, GR_LORA_BUT_DA, p->dxn, a->gate_up, p->xn);
    norm_backward(p, layer, GR_GROUP_GATE_UP, a->mid, w->post_norm, a->rstd2);
    group_backward(p, layer, GR_GROUP_GATE_UP, GR_LORA_DA, p->dxn, a->gate_up, p->xn);
    if (!goes_on(p, layer, GR_GROUP_GATE_UP))
        return;

    /* d_o <- dr Wo */
    group_backward(p, layer, GR_GROUP_O, GR_LORA_WHOLE, p->d_o, p->dr, a->o);
    if (!goes_on(p, layer, GR_GROUP_O))
        return;
    attention.d_o = gr_tensor_heads(p->d_o, c->heads);
    gr_attention_backward(d, &attention);                           /* dq, dk, dv */
    gr_rope(d, v.dqk, model->cos, model->sin, p->in.positions, -1); /* rotate back */
    if (c->qk_norm) {
        gr_rmsnorm_backward(d, v.dq, GR_OVERWRITE, none, v.dq, v.q_raw, w->q_norm, a->rstd_q);
        gr_rmsnorm_backward(d, v.dk, GR_OVERWRITE, none, v.dk, v.k_raw, w->k_norm, a->rstd_k);
    }

    /* dxn <- dqkv Wqkv;  dr += through the norm;  xn again */
    group_backward(p, layer, GR_GROUP_QKV, GR_LORA_BUT_DA, p->dxn, p->dqkv, p->xn);
    norm_backward(p, layer, GR_GROUP_QKV, a->x, w->input_norm, a->rstd1);
    group_backward(p, layer, GR_GROUP_QKV, GR_LORA_DA, p->dxn, p->dqkv, p->xn);
}

/* ---- inputs of layers that wait in the host's memory: each copy runs beside the layer that
 * computes, and is waited for on the device, by what takes its place or reads it ---- */

static int lane_of(int64_t layer)
{
    return (int)(layer % GR_STASH_LANES);
}

static bool is_away(const struct gr_pass *p, int64_t layer)
{
    return layer >= 0 && !gr_tensor_is_none(p->layer[layer].away);
}

/* Before the layer computes, whose output takes the place of the input of the layer before. */
static void send_away(const struct gr_pass *p, int64_t layer)
{
    const struct gr_layer_acts *a = &p->layer[layer];

    if (is_away(p, layer))
        gr_device_stash_out(p->model->dev, a->away, a->x, lane_of(layer));
    if (is_away(p, layer - 1))
        gr_device_stash_wait(p->model->dev, lane_of(layer - 1));
}

/* Before the layer's backward: the input of the one below comes meanwhile, to a place that the
 * layer above is done with. */
static void bring_back(const struct gr_pass *p, int64_t layer)
{
    if (layer > p->lowest.layer && is_away(p, layer - 1))
        gr_device_stash_in(p->model->dev, p->layer[layer - 1].x, p->layer[layer - 1].away,
                           lane_of(layer - 1));
    if (is_away(p, layer))
        gr_device_stash_wait(p->model->dev, lane_of(layer));
}

static gr_tensor layer_output(const struct gr_pass *p, int64_t layer)
{
    return layer + 1 < p->model->config.layers ? p->layer[layer + 1].x : p->x_final;
}

gr_status gr_pass_forward(struct gr_pass *p, bool train)
{
    struct gr_device *d = p->model->dev;
    const struct gr_weights *w = &p->model->weights;

    if (p->cache != NULL)
        GR_CHECK(p->doc_count == 1 && p->host.docs[0] == 0 &&
                     (p->cache->length == 0 || p->rows == 1) &&
                     p->cache->length + new_tokens(p) <= p->cache->room,
                 "%lld tokens of %lld documents behind %lld of %lld", (long long)new_tokens(p),
                 (long long)p->doc_count, (long long)p->cache->length, (long long)p->cache->room);
    gr_device_set_workspace(d, p->workspace, p->workspace_bytes);
    gr_embedding_forward(d, p->layer[0].x, w->embedding, p->in.ids);
    for (int64_t layer = 0; layer < p->model->config.layers; layer++) {
        send_away(p, layer);
        layer_forward(p, layer, train, layer_output(p, layer));
    }
    gr_rmsnorm_forward(d, p->h_final, p->rstd_final, p->x_final, w->final_norm,
                       p->model->config.rms_norm_eps);
    if (p->cache != NULL)
        p->cache->length += new_tokens(p);
    return gr_device_status(d);
}

gr_status gr_pass_loss(struct gr_pass *p)
{
    struct gr_device *d = p->model->dev;
    gr_tensor row_loss = gr_tensor_rows(p->row_loss, 0, p->label_count);
    struct gr_head_loss head = {
        .row_loss = row_loss,
        .dh = p->has_backward ? p->dxn : (gr_tensor){0},
        .h = p->h_final,
        .weight = p->model->weights.head,
        .rows = gr_tensor_rows(p->in.label_rows, 0, p->label_count),
        .targets = gr_tensor_rows(p->in.targets, 0, p->label_count),
    };

    gr_head_loss(d, &head);
    gr_sum_spans(d, gr_tensor_rows(p->loss, 0, p->segments), row_loss,
                 gr_tensor_rows(p->in.loss_spans, 0, p->segments));
    return gr_device_status(d);
}

gr_status gr_pass_backward(struct gr_pass *p)
{
    struct gr_device *d = p->model->dev;

    /* gr_pass_loss left the gradient of h_final in dxn */
    gr_rmsnorm_backward(d, p->dr, GR_OVERWRITE, none, p->dxn, p->x_final,
                        p->model->weights.final_norm, p->rstd_final);
    for (int64_t layer = p->model->config.layers - 1; layer >= p->lowest.layer; layer--) {
        bring_back(p, layer);
        layer_backward(p, layer);
    }
    return gr_device_status(d);
}
