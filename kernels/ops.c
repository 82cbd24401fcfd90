/* The ops of ops.h that a transformer is made of: each checks its arguments once and calls the
 * backend's table.  The others are in ops_flat.c. */
#include "kernels/joined.h"
#include "kernels/ops_check.h"

void gr_embedding_forward(struct gr_device *dev, gr_tensor y, gr_tensor table, gr_tensor ids)
{
    struct check c = check_begin(dev, "embedding_forward");

    check_rows(&c, "y", y, 2);
    check_frozen(&c, "table", table, y.dtype, table.dim[0], y.dim[1]);
    check_is(&c, "ids", ids, shape_1d(GR_I32, y.dim[0]));
    if (c.ok)
        RUN(embedding_forward, 2 * bytes_of(y), dev, y, table, ids);
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
        RUN(rmsnorm_forward, 2 * bytes_of(x), dev, y, rstd, x, w, eps);
}

void gr_rmsnorm_backward(struct gr_device *dev, gr_tensor dx, enum gr_write write, gr_tensor y,
                         gr_tensor dy, gr_tensor x, gr_tensor w, gr_tensor rstd)
{
    struct check c = check_begin(dev, "rmsnorm_backward");
    int passes = (write == GR_ACCUMULATE ? 4 : 3) + (gr_tensor_is_none(y) ? 0 : 1);

    check_rmsnorm(&c, x, w, rstd);
    check_is(&c, "dx", dx, x);
    check_is(&c, "dy", dy, x);
    if (!gr_tensor_is_none(y))
        check_is(&c, "y", y, x);
    REQUIRE(&c, write == GR_OVERWRITE || (write == GR_ACCUMULATE && dx.data != dy.data),
            "dx must not be dy when it accumulates, and write is one of two (found %d)",
            (int)write);
    if (c.ok)
        RUN(rmsnorm_backward, passes * bytes_of(x), dev, dx, write, y, dy, x, w, rstd);
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
        RUN(rope, 2 * bytes_of(x), dev, x, cos, sin, positions, direction);
}

static void check_heads(struct check *c, int64_t heads, int64_t kv_heads)
{
    REQUIRE(c, kv_heads > 0 && heads % kv_heads == 0,
            "the heads of k do not divide those of q (found %lld and %lld)", (long long)kv_heads,
            (long long)heads);
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
        check_workspace(c, c->dev->ops->attention_workspace_bytes(c->dev, a));
}

void gr_attention_forward(struct gr_device *dev, const struct gr_attention *a)
{
    struct check c = check_begin(dev, "attention_forward");

    check_attention(&c, a);
    if (c.ok)
        RUN(attention_forward, 0, dev, a);
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
        RUN(attention_backward, 0, dev, a);
}

int64_t gr_attention_workspace_bytes(struct gr_device *dev, const struct gr_attention *a)
{
    return dev->ops->attention_workspace_bytes(dev, a);
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
        RUN(attention_last, 0, dev, o, q, k, v, scale);
}

void gr_swiglu_forward(struct gr_device *dev, gr_tensor h, gr_tensor gate, gr_tensor up)
{
    struct check c = check_begin(dev, "swiglu_forward");

    check_rows(&c, "gate", gate, 2);
    check_is(&c, "up", up, gate);
    check_is(&c, "h", h, gate);
    if (c.ok)
        RUN(swiglu_forward, 3 * bytes_of(h), dev, h, gate, up);
}

void gr_swiglu_backward(struct gr_device *dev, gr_tensor dgate, gr_tensor dup, gr_tensor h,
                        gr_tensor dh, gr_tensor gate, gr_tensor up)
{
    struct check c = check_begin(dev, "swiglu_backward");
    int passes = gr_tensor_is_none(h) ? 5 : 6;

    check_rows(&c, "gate", gate, 2);
    check_is(&c, "up", up, gate);
    check_is(&c, "dh", dh, gate);
    check_is(&c, "dgate", dgate, gate);
    check_is(&c, "dup", dup, gate);
    if (!gr_tensor_is_none(h))
        check_is(&c, "h", h, gate);
    if (c.ok)
        RUN(swiglu_backward, passes * bytes_of(dh), dev, dgate, dup, h, dh, gate, up);
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

        check_frozen(c, "weight", l->weight, g->x.dtype, l->weight.dim[0], g->x.dim[1]);
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
    REQUIRE(
        c, g->linears >= 1 && g->linears <= GR_LINEARS_MOST && g->adapters >= 0 && g->segments >= 0,
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
    if (!gr_tensor_is_none(g->joined))
        REQUIRE(c, gr_joined_misfit(g) == NULL, "joined does not fit: %s", gr_joined_misfit(g));
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
        RUN(lora_group_forward, 0, dev, g);
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
    REQUIRE(&c, widths.r == 0 || gr_tensor_is_none(g->joined) || gr_joined_is_behind(g->ds, g->dy),
            "joined does not fit: ds is not behind dy");
    REQUIRE(&c, g->part >= GR_LORA_WHOLE && g->part <= GR_LORA_DA,
            "part is out of range (found %d, expected 0 to 2)", (int)g->part);
    if (c.ok)
        RUN(lora_group_backward, 0, dev, g);
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
    check_frozen(&c, "weight", a->weight, a->h.dtype, vocab, hidden);
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
        RUN(head_loss, 0, dev, a);
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
    check_frozen(&c, "weight", weight, h.dtype, weight.dim[0], h.dim[1]);
    check_is(&c, "rows", rows, shape_1d(GR_I32, rows.dim[0]));
    check_is(&c, "logits", logits, shape_2d(GR_F32, rows.dim[0], weight.dim[0]));
    if (c.ok)
        check_workspace(&c, dev->ops->head_loss_workspace_bytes(dev, h.dim[1], weight.dim[0]));
    if (c.ok)
        RUN(head_logits, 0, dev, logits, h, weight, rows);
}
