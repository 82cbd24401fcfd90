/* The ops of ops.h: each checks its arguments once and calls the backend's table.
 *
 * The first check that fails makes the device fail (ERR_BUG with op, tensor and shapes) and the op
 * does nothing, as does every op on a device that has failed.  What stands in index tensors (ids,
 * positions, rows) may be on a GPU: the backends look at that. */
#include "kernels/backend.h"
#include "kernels/base/alloc.h"

#include <math.h>

/* One op's checks.  `ok` goes from true to false at most once. */
struct check {
    struct gr_device *dev;
    const char *op;
    bool ok;
};

static struct check check_begin(struct gr_device *dev, const char *op)
{
    return (struct check){dev, op, dev->failure.status == GR_OK};
}

/* Fails the op with a text unless the condition holds or something failed before. */
#define REQUIRE(c, condition, ...)                                                                 \
    do {                                                                                           \
        if ((c)->ok && !(condition)) {                                                             \
            gr_device_fail((c)->dev, GR_ERR_BUG, (c)->op, __VA_ARGS__);                            \
            (c)->ok = false;                                                                       \
        }                                                                                          \
    } while (0)

static gr_tensor shape_1d(enum gr_dtype dtype, int64_t n)
{
    return (gr_tensor){.dtype = dtype, .ndim = 1, .dim = {n, 1, 1, 1}, .stride = 1};
}

static gr_tensor shape_2d(enum gr_dtype dtype, int64_t n, int64_t c)
{
    return (gr_tensor){.dtype = dtype, .ndim = 2, .dim = {n, c, 1, 1}, .stride = c};
}

static gr_tensor shape_3d(enum gr_dtype dtype, int64_t n, int64_t h, int64_t d)
{
    return (gr_tensor){.dtype = dtype, .ndim = 3, .dim = {n, h, d, 1}, .stride = h * d};
}

/* The tensor is in memory and laid out as tensor.h says. */
static void check_layout(struct check *c, const char *name, gr_tensor t)
{
    char found[96];
    bool sane = t.ndim >= 1 && t.ndim <= GR_MAX_DIMS;

    for (int i = 0; i < GR_MAX_DIMS; i++)
        sane = sane && (i < t.ndim ? t.dim[i] >= 0 : t.dim[i] == 1);
    REQUIRE(c, sane, "%s is no tensor (found %d dimensions)", name, t.ndim);
    gr_tensor_describe(t, found, sizeof found);
    REQUIRE(c, t.data != NULL || gr_tensor_count(t) == 0, "%s has no memory (found %s)", name,
            found);
    REQUIRE(c, t.dim[0] <= 1 || (t.ndim == 1 ? t.stride == 1 : t.stride >= gr_tensor_row_size(t)),
            "%s has a wrong stride (found %s with stride %lld, expected at least a row)", name,
            found, (long long)t.stride);
}

/* The tensor has the dtype and dimensions of `expected`. */
static void check_is(struct check *c, const char *name, gr_tensor t, gr_tensor expected)
{
    char found[96], wanted[96];
    bool same = t.dtype == expected.dtype && t.ndim == expected.ndim;

    for (int i = 0; same && i < expected.ndim; i++)
        same = t.dim[i] == expected.dim[i];
    REQUIRE(c, same, "%s does not fit (found %s, expected %s)", name,
            gr_tensor_describe(t, found, sizeof found),
            gr_tensor_describe(expected, wanted, sizeof wanted));
    check_layout(c, name, t);
}

static bool computes(enum gr_dtype dtype)
{
    return dtype == GR_F32 || dtype == GR_BF16;
}

/* Activations: a compute dtype, `ndim` dimensions, a padded number of rows or one alone.  The
 * tensor the shapes of the op's others are measured by. */
static void check_rows(struct check *c, const char *name, gr_tensor t, int ndim)
{
    char found[96];

    gr_tensor_describe(t, found, sizeof found);
    REQUIRE(c, t.ndim == ndim && computes(t.dtype),
            "%s does not fit (found %s, expected F32 or BF16, %dD)", name, found, ndim);
    check_layout(c, name, t);
    REQUIRE(c, t.dim[0] % GR_ROW_MULTIPLE == 0 || t.dim[0] == 1,
            "%s needs a padded number of rows (found %s, expected a multiple of %d)", name, found,
            GR_ROW_MULTIPLE);
}

/* Any shape of this dtype and number of dimensions. */
static void check_kind(struct check *c, const char *name, gr_tensor t, enum gr_dtype dtype,
                       int ndim)
{
    char found[96];

    REQUIRE(c, t.ndim == ndim && t.dtype == dtype, "%s does not fit (found %s, expected %s %dD)",
            name, gr_tensor_describe(t, found, sizeof found), gr_dtype_name(dtype), ndim);
    check_layout(c, name, t);
}

static void check_workspace(struct check *c, int64_t bytes)
{
    REQUIRE(c, c->dev->workspace_bytes >= bytes,
            "the workspace is too small (found %lld bytes, expected %lld)",
            (long long)c->dev->workspace_bytes, (long long)bytes);
}

void gr_embedding_forward(struct gr_device *dev, gr_tensor y, gr_tensor table, gr_tensor ids)
{
    struct check c = check_begin(dev, "embedding_forward");

    check_rows(&c, "y", y, 2);
    check_is(&c, "table", table, shape_2d(y.dtype, table.dim[0], y.dim[1]));
    check_is(&c, "ids", ids, shape_1d(GR_I32, y.dim[0]));
    if (c.ok)
        dev->ops->embedding_forward(dev, y, table, ids);
}

/* x (N, C) with rstd (N), or x (N, H, HD) with rstd (N, H); w has the last dimension. */
static void check_rmsnorm(struct check *c, gr_tensor x, gr_tensor w, gr_tensor rstd)
{
    bool heads = x.ndim == 3;

    check_rows(c, "x", x, heads ? 3 : 2);
    check_is(c, "w", w, shape_1d(x.dtype, x.dim[heads ? 2 : 1]));
    check_is(c, "rstd", rstd,
             heads ? shape_2d(GR_F32, x.dim[0], x.dim[1]) : shape_1d(GR_F32, x.dim[0]));
}

void gr_rmsnorm_forward(struct gr_device *dev, gr_tensor y, gr_tensor rstd, gr_tensor x,
                        gr_tensor w, double eps)
{
    struct check c = check_begin(dev, "rmsnorm_forward");

    check_rmsnorm(&c, x, w, rstd);
    check_is(&c, "y", y, x);
    REQUIRE(&c, eps > 0 && isfinite(eps), "eps is out of range (found %g, expected > 0)", eps);
    if (c.ok)
        dev->ops->rmsnorm_forward(dev, y, rstd, x, w, eps);
}

void gr_rmsnorm_backward(struct gr_device *dev, gr_tensor dx, enum gr_write write, gr_tensor dy,
                         gr_tensor x, gr_tensor w, gr_tensor rstd)
{
    struct check c = check_begin(dev, "rmsnorm_backward");

    check_rmsnorm(&c, x, w, rstd);
    check_is(&c, "dx", dx, x);
    check_is(&c, "dy", dy, x);
    REQUIRE(&c, write == GR_OVERWRITE || (write == GR_ACCUMULATE && dx.data != dy.data),
            "dx must not be dy when it accumulates, and write is one of two (found %d)",
            (int)write);
    if (c.ok)
        dev->ops->rmsnorm_backward(dev, dx, write, dy, x, w, rstd);
}

void gr_rope(struct gr_device *dev, gr_tensor x, gr_tensor cos, gr_tensor sin, gr_tensor positions,
             int direction)
{
    struct check c = check_begin(dev, "rope");

    check_rows(&c, "x", x, 3);
    REQUIRE(&c, x.dim[2] % 2 == 0, "the head dimension is odd (found %lld, expected even)",
            (long long)x.dim[2]);
    check_is(&c, "cos", cos, shape_2d(GR_F32, cos.dim[0], x.dim[2] / 2));
    check_is(&c, "sin", sin, cos);
    check_is(&c, "positions", positions, shape_1d(GR_I32, x.dim[0]));
    REQUIRE(&c, direction == 1 || direction == -1,
            "direction is out of range (found %d, expected +1 or -1)", direction);
    if (c.ok)
        dev->ops->rope(dev, x, cos, sin, positions, direction);
}

static void check_heads(struct check *c, int64_t heads, int64_t kv_heads)
{
    REQUIRE(c, kv_heads > 0 && heads % kv_heads == 0,
            "the heads of k do not divide those of q (found %lld and %lld)", (long long)kv_heads,
            (long long)heads);
}

static void check_scale(struct check *c, float scale)
{
    REQUIRE(c, isfinite(scale), "scale is out of range (found %g)", (double)scale);
}

static void check_attention(struct check *c, const struct gr_attention *a)
{
    int64_t n = a->q.dim[0], heads = a->q.dim[1], head_dim = a->q.dim[2];

    check_rows(c, "q", a->q, 3);
    check_is(c, "k", a->k, shape_3d(a->q.dtype, n, a->k.dim[1], head_dim));
    check_is(c, "v", a->v, a->k);
    check_heads(c, heads, a->k.dim[1]);
    check_is(c, "docs", a->docs, shape_2d(GR_I32, a->docs.dim[0], 2));
    check_is(c, "o", a->o, a->q);
    check_is(c, "lse", a->lse, shape_2d(GR_F32, n, heads));
    check_scale(c, a->scale);
    REQUIRE(c, a->window >= 0, "window is out of range (found %lld, expected >= 0)",
            (long long)a->window);
    if (c->ok)
        check_workspace(c, c->dev->ops->attention_workspace_bytes(c->dev, n, heads, head_dim));
}

void gr_attention_forward(struct gr_device *dev, const struct gr_attention *a)
{
    struct check c = check_begin(dev, "attention_forward");

    check_attention(&c, a);
    if (c.ok)
        dev->ops->attention_forward(dev, a);
}

void gr_attention_backward(struct gr_device *dev, const struct gr_attention *a)
{
    struct check c = check_begin(dev, "attention_backward");

    check_attention(&c, a);
    check_is(&c, "d_o", a->d_o, a->q);
    check_is(&c, "dq", a->dq, a->q);
    check_is(&c, "dk", a->dk, a->k);
    check_is(&c, "dv", a->dv, a->v);
    if (c.ok)
        dev->ops->attention_backward(dev, a);
}

int64_t gr_attention_workspace_bytes(struct gr_device *dev, int64_t n, int64_t heads,
                                     int64_t head_dim)
{
    return dev->ops->attention_workspace_bytes(dev, n, heads, head_dim);
}

void gr_attention_last(struct gr_device *dev, gr_tensor o, gr_tensor q, gr_tensor k, gr_tensor v,
                       float scale)
{
    struct check c = check_begin(dev, "attention_last");
    int64_t heads = q.dim[1], kv_heads = k.dim[1];

    REQUIRE(&c, q.dim[0] == 1, "q has too many rows (found %lld, expected 1)", (long long)q.dim[0]);
    check_rows(&c, "q", q, 3);
    check_is(&c, "k", k, shape_3d(q.dtype, k.dim[0], kv_heads, q.dim[2]));
    check_is(&c, "v", v, k);
    REQUIRE(&c, k.dim[0] >= 1, "k has no row (found 0, expected at least 1)");
    check_heads(&c, heads, kv_heads);
    check_is(&c, "o", o, q);
    check_scale(&c, scale);
    if (c.ok)
        dev->ops->attention_last(dev, o, q, k, v, scale);
}

void gr_swiglu_forward(struct gr_device *dev, gr_tensor h, gr_tensor gate, gr_tensor up)
{
    struct check c = check_begin(dev, "swiglu_forward");

    check_rows(&c, "gate", gate, 2);
    check_is(&c, "up", up, gate);
    check_is(&c, "h", h, gate);
    if (c.ok)
        dev->ops->swiglu_forward(dev, h, gate, up);
}

void gr_swiglu_backward(struct gr_device *dev, gr_tensor dgate, gr_tensor dup, gr_tensor dh,
                        gr_tensor gate, gr_tensor up)
{
    struct check c = check_begin(dev, "swiglu_backward");

    check_rows(&c, "gate", gate, 2);
    check_is(&c, "up", up, gate);
    check_is(&c, "dh", dh, gate);
    check_is(&c, "dgate", dgate, gate);
    check_is(&c, "dup", dup, gate);
    if (c.ok)
        dev->ops->swiglu_backward(dev, dgate, dup, dh, gate, up);
}

/* Sums over the group's linears: the widths of y and of s. */
struct group_widths {
    int64_t out, r;
};

int64_t gr_lora_group_r(const struct gr_lora_group *g, int linear)
{
    int64_t r = 0;

    for (int a = 0; a < g->adapters; a++) {
        gr_tensor t = g->lora[(int64_t)a * g->linears + linear].a;

        if (!gr_tensor_is_none(t) && t.dim[0] > r)
            r = t.dim[0];
    }
    return r;
}

static struct group_widths check_linears(struct check *c, const struct gr_lora_group *g)
{
    struct group_widths widths = {0, 0};

    for (int i = 0; i < g->linears; i++) {
        const struct gr_linear *l = &g->linear[i];

        check_is(c, "weight", l->weight, shape_2d(g->x.dtype, l->weight.dim[0], g->x.dim[1]));
        if (!gr_tensor_is_none(l->bias))
            check_is(c, "bias", l->bias, shape_1d(g->x.dtype, l->weight.dim[0]));
        widths.out += l->weight.dim[0];
        widths.r += gr_lora_group_r(g, i);
    }
    return widths;
}

/* The adapter's pairs; gradients only where a backward will write them. */
static void check_adapter(struct check *c, const struct gr_lora_group *g, int adapter,
                          bool gradients)
{
    for (int i = 0; i < g->linears; i++) {
        const struct gr_lora *l = &g->lora[(int64_t)adapter * g->linears + i];
        int64_t r = l->a.dim[0], in = g->x.dim[1], out = g->linear[i].weight.dim[0];

        if (gr_tensor_is_none(l->a))
            continue;
        check_is(c, "a", l->a, shape_2d(g->x.dtype, r, in));
        check_is(c, "b", l->b, shape_2d(g->x.dtype, out, r));
        REQUIRE(c, isfinite(l->scale), "scale is out of range (found %g)", (double)l->scale);
        REQUIRE(c, l->dropout >= 0 && l->dropout < 1,
                "dropout is out of range (found %g, expected 0 <= p < 1)", (double)l->dropout);
        if (gradients) {
            check_is(c, "da", l->da, shape_2d(GR_F32, r, in));
            check_is(c, "db", l->db, shape_2d(GR_F32, out, r));
        }
    }
}

static void check_segments(struct check *c, const struct gr_lora_group *g, bool gradients)
{
    int64_t end = 0;

    for (int i = 0; i < g->segments; i++) {
        const struct gr_segment *s = &g->segment[i];

        REQUIRE(c,
                s->row_begin >= end && s->row_begin % GR_ROW_MULTIPLE == 0 &&
                    s->row_begin <= s->row_end && s->row_end <= g->x.dim[0],
                "segment %d does not fit (found rows %lld to %lld of %lld, previous end %lld)", i,
                (long long)s->row_begin, (long long)s->row_end, (long long)g->x.dim[0],
                (long long)end);
        REQUIRE(c, s->adapter >= -1 && s->adapter < g->adapters,
                "segment %d names an unknown adapter (found %d, expected -1 to %d)", i, s->adapter,
                g->adapters - 1);
        for (int j = 0; j < i; j++)
            REQUIRE(c, s->adapter == -1 || g->segment[j].adapter != s->adapter,
                    "adapter %d has two segments (found %d and %d)", s->adapter, j, i);
        if (c->ok && s->adapter >= 0)
            check_adapter(c, g, s->adapter, gradients);
        end = s->row_end;
    }
}

static struct group_widths check_lora_group(struct check *c, const struct gr_lora_group *g,
                                            bool backward)
{
    struct group_widths widths = {0, 0};

    check_rows(c, "x", g->x, 2);
    REQUIRE(c, g->linears >= 1 && g->adapters >= 0 && g->segments >= 0,
            "counts are out of range (found %d linears, %d adapters, %d segments)", g->linears,
            g->adapters, g->segments);
    REQUIRE(c,
            g->layer >= 0 && g->layer < 1 << 16 && g->module >= 0 && g->module + g->linears <= 256,
            "layer or module is out of range (found %d and %d)", g->layer, g->module);
    if (!c->ok)
        return widths;
    widths = check_linears(c, g);
    check_segments(c, g, backward);
    if (widths.r > 0)
        check_is(c, "s", g->s, shape_2d(g->x.dtype, g->x.dim[0], widths.r));
    if (c->ok)
        check_workspace(c, c->dev->ops->lora_group_workspace_bytes(c->dev, g->x.dim[0], g->x.dim[1],
                                                                   widths.out, widths.r));
    return widths;
}

void gr_lora_group_forward(struct gr_device *dev, const struct gr_lora_group *g)
{
    struct check c = check_begin(dev, "lora_group_forward");
    struct group_widths widths = check_lora_group(&c, g, false);
    gr_tensor y = shape_2d(g->x.dtype, g->x.dim[0], widths.out);

    check_is(&c, "y", g->y, y);
    if (!gr_tensor_is_none(g->residual))
        check_is(&c, "residual", g->residual, y);
    if (c.ok)
        dev->ops->lora_group_forward(dev, g);
}

void gr_lora_group_backward(struct gr_device *dev, const struct gr_lora_group *g)
{
    struct check c = check_begin(dev, "lora_group_backward");
    struct group_widths widths = check_lora_group(&c, g, true);

    check_is(&c, "dy", g->dy, shape_2d(g->x.dtype, g->x.dim[0], widths.out));
    if (!gr_tensor_is_none(g->dx))
        check_is(&c, "dx", g->dx, g->x);
    if (widths.r > 0)
        check_is(&c, "ds", g->ds, g->s);
    if (c.ok)
        dev->ops->lora_group_backward(dev, g);
}

int64_t gr_lora_group_workspace_bytes(struct gr_device *dev, int64_t n, int64_t in, int64_t out,
                                      int64_t r)
{
    return dev->ops->lora_group_workspace_bytes(dev, n, in, out, r);
}

void gr_head_loss(struct gr_device *dev, const struct gr_head_loss *a)
{
    struct check c = check_begin(dev, "head_loss");
    int64_t s = a->rows.dim[0], hidden = a->h.dim[1], vocab = a->weight.dim[0];

    check_rows(&c, "h", a->h, 2);
    check_is(&c, "weight", a->weight, shape_2d(a->h.dtype, vocab, hidden));
    check_is(&c, "rows", a->rows, shape_1d(GR_I32, s));
    REQUIRE(&c, s % GR_ROW_MULTIPLE == 0,
            "rows needs a padded length (found %lld, expected a multiple of %d)", (long long)s,
            GR_ROW_MULTIPLE);
    check_is(&c, "targets", a->targets, a->rows);
    check_is(&c, "row_loss", a->row_loss, shape_1d(GR_F64, s));
    if (!gr_tensor_is_none(a->dh))
        check_is(&c, "dh", a->dh, a->h);
    if (c.ok)
        check_workspace(&c, dev->ops->head_loss_workspace_bytes(dev, hidden, vocab));
    if (c.ok)
        dev->ops->head_loss(dev, a);
}

int64_t gr_head_loss_workspace_bytes(struct gr_device *dev, int64_t hidden, int64_t vocab)
{
    return dev->ops->head_loss_workspace_bytes(dev, hidden, vocab);
}

void gr_head_logits(struct gr_device *dev, gr_tensor logits, gr_tensor h, gr_tensor weight,
                    gr_tensor rows)
{
    struct check c = check_begin(dev, "head_logits");

    check_rows(&c, "h", h, 2);
    check_is(&c, "weight", weight, shape_2d(h.dtype, weight.dim[0], h.dim[1]));
    check_is(&c, "rows", rows, shape_1d(GR_I32, rows.dim[0]));
    check_is(&c, "logits", logits, shape_2d(GR_F32, rows.dim[0], weight.dim[0]));
    if (c.ok)
        check_workspace(&c, dev->ops->head_loss_workspace_bytes(dev, h.dim[1], weight.dim[0]));
    if (c.ok)
        dev->ops->head_logits(dev, logits, h, weight, rows);
}

void gr_sum_spans(struct gr_device *dev, gr_tensor sum, gr_tensor x, gr_tensor spans)
{
    struct check c = check_begin(dev, "sum_spans");

    check_kind(&c, "x", x, GR_F64, 1);
    check_is(&c, "spans", spans, shape_2d(GR_I32, spans.dim[0], 2));
    check_is(&c, "sum", sum, shape_1d(GR_F64, spans.dim[0]));
    if (c.ok)
        dev->ops->sum_spans(dev, sum, x, spans);
}

void gr_sum_squares(struct gr_device *dev, gr_tensor out, gr_tensor x)
{
    struct check c = check_begin(dev, "sum_squares");

    check_kind(&c, "x", x, GR_F32, 1);
    check_is(&c, "out", out, shape_1d(GR_F64, 1));
    if (c.ok)
        dev->ops->sum_squares(dev, out, x);
}

void gr_scale(struct gr_device *dev, gr_tensor x, float factor)
{
    struct check c = check_begin(dev, "scale");

    check_kind(&c, "x", x, GR_F32, x.ndim);
    if (c.ok)
        dev->ops->scale(dev, x, factor);
}

void gr_add(struct gr_device *dev, gr_tensor y, gr_tensor a, gr_tensor b)
{
    struct check c = check_begin(dev, "add");

    check_kind(&c, "y", y, GR_F32, y.ndim);
    check_is(&c, "a", a, y);
    check_is(&c, "b", b, y);
    if (c.ok)
        dev->ops->add(dev, y, a, b);
}

void gr_zero(struct gr_device *dev, gr_tensor x)
{
    struct check c = check_begin(dev, "zero");

    check_layout(&c, "x", x);
    if (c.ok)
        dev->ops->zero(dev, x);
}

void gr_copy(struct gr_device *dev, gr_tensor y, gr_tensor x)
{
    struct check c = check_begin(dev, "copy");

    gr_tensor like = x;

    check_kind(&c, "x", x, x.dtype == GR_BF16 ? GR_BF16 : GR_F32, x.ndim);
    if (computes(y.dtype))
        like.dtype = y.dtype;
    check_is(&c, "y", y, like);
    if (c.ok)
        dev->ops->copy(dev, y, x);
}

static void check_adamw_spans(struct check *c, const struct gr_adamw *a)
{
    int64_t end = 0;

    for (int i = 0; i < a->spans; i++) {
        const struct gr_adamw_span *s = &a->span[i];

        REQUIRE(c, s->begin >= end && s->begin <= s->end && s->end <= a->param.dim[0],
                "span %d does not fit (found %lld to %lld of %lld, previous end %lld)", i,
                (long long)s->begin, (long long)s->end, (long long)a->param.dim[0], (long long)end);
        if (!gr_tensor_is_none(s->copy))
            check_is(c, "copy", s->copy,
                     shape_1d(computes(s->copy.dtype) ? s->copy.dtype : GR_F32, s->end - s->begin));
        end = s->end;
    }
}

void gr_adamw(struct gr_device *dev, const struct gr_adamw *a)
{
    struct check c = check_begin(dev, "adamw");

    check_kind(&c, "param", a->param, GR_F32, 1);
    check_is(&c, "moment1", a->moment1, a->param);
    check_is(&c, "moment2", a->moment2, a->param);
    check_is(&c, "grad", a->grad, a->param);
    REQUIRE(&c, a->spans >= 0, "spans is out of range (found %d)", a->spans);
    REQUIRE(&c, a->beta1 >= 0 && a->beta1 < 1 && a->beta2 >= 0 && a->beta2 < 1 && a->eps >= 0,
            "a constant is out of range (found beta1 %g, beta2 %g, eps %g)", a->beta1, a->beta2,
            a->eps);
    REQUIRE(&c, a->step >= 1, "step is out of range (found %lld, expected >= 1)",
            (long long)a->step);
    check_adamw_spans(&c, a);
    if (c.ok)
        dev->ops->adamw(dev, a);
}
