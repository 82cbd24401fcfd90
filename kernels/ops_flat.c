/* The ops of ops.h over flat buffers: sums, copies, AdamW.  See ops.c. */
#include "kernels/ops_check.h"

void gr_sum_spans(struct gr_device *dev, gr_tensor sum, gr_tensor x, gr_tensor spans)
{
    struct check c = check_begin(dev, "sum_spans");

    check_kind(&c, "x", x, GR_F64, 1);
    check_is(&c, "spans", spans, shape_2d(GR_I32, spans.dim[0], 2));
    check_is(&c, "sum", sum, shape_1d(GR_F64, spans.dim[0]));
    if (c.ok)
        RUN(sum_spans, bytes_of(x), dev, sum, x, spans);
}

void gr_sum_squares(struct gr_device *dev, gr_tensor out, gr_tensor x, float scale)
{
    struct check c = check_begin(dev, "sum_squares");

    check_kind(&c, "x", x, GR_F32, 1);
    check_is(&c, "out", out, shape_1d(GR_F64, 1));
    check_scale(&c, scale);
    if (c.ok)
        RUN(sum_squares, bytes_of(x), dev, out, x, scale);
}

void gr_add(struct gr_device *dev, gr_tensor y, gr_tensor a, gr_tensor b)
{
    struct check c = check_begin(dev, "add");

    check_kind(&c, "y", y, GR_F32, y.ndim);
    check_is(&c, "a", a, y);
    check_is(&c, "b", b, y);
    if (c.ok)
        RUN(add, 3 * bytes_of(y), dev, y, a, b);
}

void gr_zero(struct gr_device *dev, gr_tensor x)
{
    struct check c = check_begin(dev, "zero");

    check_layout(&c, "x", x);
    if (c.ok)
        RUN(zero, bytes_of(x), dev, x);
}

static void check_copy(struct check *c, gr_tensor y, gr_tensor x)
{
    check_kind(c, "x", x, x.dtype == GR_BF16 ? GR_BF16 : GR_F32, x.ndim);
    x.dtype = computes(y.dtype) ? y.dtype : x.dtype;
    check_is(c, "y", y, x);
}

void gr_copy(struct gr_device *dev, gr_tensor y, gr_tensor x)
{
    struct check c = check_begin(dev, "copy");

    check_copy(&c, y, x);
    if (c.ok)
        RUN(copy, bytes_of(y) + bytes_of(x), dev, y, x);
}

void gr_copy_pairs(struct gr_device *dev, const struct gr_copy_pair *pair, int64_t pairs)
{
    struct check c = check_begin(dev, "copy_pairs");
    double bytes = 0;

    for (int64_t i = 0; i < pairs; i++) {
        check_kind(&c, "x", pair[i].x, pair[0].x.dtype, 2);
        check_copy(&c, pair[i].y, pair[i].x);
        check_kind(&c, "y", pair[i].y, pair[0].y.dtype, 2);
        bytes += bytes_of(pair[i].y) + bytes_of(pair[i].x);
    }
    if (c.ok)
        RUN(copy_pairs, bytes, dev, pair, pairs);
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

/* Reads four buffers, writes three and the copies. */
static double adamw_bytes(const struct gr_adamw *a)
{
    double bytes = 0;

    for (int i = 0; i < a->spans; i++) {
        bytes += 7.0 * (double)(a->span[i].end - a->span[i].begin) * (double)sizeof(float);
        if (!gr_tensor_is_none(a->span[i].copy))
            bytes += bytes_of(a->span[i].copy);
    }
    return bytes;
}

void gr_adamw(struct gr_device *dev, const struct gr_adamw *a)
{
    struct check c = check_begin(dev, "adamw");

    check_kind(&c, "param", a->param, GR_F32, 1);
    check_is(&c, "moment1", a->moment1, a->param);
    check_is(&c, "moment2", a->moment2, a->param);
    check_is(&c, "grad", a->grad, a->param);
    check_scale(&c, a->grad_scale);
    if (!gr_tensor_is_none(a->square_sum))
        check_is(&c, "square_sum", a->square_sum, shape_1d(GR_F64, 1));
    REQUIRE(&c, a->max_norm >= 0 && isfinite(a->max_norm),
            "max_norm is out of range (found %g, expected >= 0)", a->max_norm);
    REQUIRE(&c, a->spans >= 0, "spans is out of range (found %d)", a->spans);
    REQUIRE(&c, a->beta1 >= 0 && a->beta1 < 1 && a->beta2 >= 0 && a->beta2 < 1 && a->eps >= 0,
            "a constant is out of range (found beta1 %g, beta2 %g, eps %g)", a->beta1, a->beta2,
            a->eps);
    REQUIRE(&c, a->step >= 1, "step is out of range (found %lld, expected >= 1)",
            (long long)a->step);
    check_adamw_spans(&c, a);
    if (c.ok)
        RUN(adamw, adamw_bytes(a), dev, a);
}
