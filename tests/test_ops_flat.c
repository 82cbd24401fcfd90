/* Sums, the element-wise ops and AdamW, on every instruction set: against f64 twins, exact values
 * and torch. */
#include "kernels/base/alloc.h"
#include "kernels/base/widen.h"
#include "tests/ref/ref.h"
#include "tests/rig.h"

static void each_isa(void (*body)(struct rig *r))
{
    const char *isa;
    struct rig r;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        rig_open(&r, isa, 1); /* more: test_ops_threads.c */
        body(&r);
        rig_close(&r);
    }
}

static gr_tensor flat(int64_t n)
{
    return gr_tensor_1d(NULL, GR_F32, n);
}

static void sum_squares(struct rig *r)
{
    /* the last is more chunks than there are partial sums */
    static const int64_t sizes[] = {0, 1, 15, 4095, 4096, 4097, 70001, 1025 * 4096 + 3};
    gr_tensor out = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0);

    for (int64_t i = 0; i < GR_COUNT(sizes); i++) {
        gr_tensor x = rig_random(r, flat(sizes[i]), 0, -2, 2);
        double *x_v = rig_read(r, x), *found, expected = ref_sum_squares(x_v, sizes[i]);

        gr_sum_squares(r->dev, out, x);
        found = rig_read(r, out);
        ASSERT_NEAR(found[0], expected, 1e-11 * expected); /* the twin's own error */
        gr_free(found);
        gr_free(x_v);
    }
}

TEST(sum_squares_any_size_equals_twin)
{
    each_isa(sum_squares);
}

static void sum_squares_bad(struct rig *r)
{
    static const double bad[] = {NAN, INFINITY};
    double values[5000] = {0}, *found;
    gr_tensor x = rig_tensor(r, flat(5000), 0);
    gr_tensor out = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0);

    for (int64_t i = 0; i < GR_COUNT(bad); i++) {
        values[4999] = bad[i];
        rig_write(r, x, values);
        gr_sum_squares(r->dev, out, x);
        found = rig_read(r, out);
        ASSERT(!isfinite(found[0]));
        gr_free(found);
    }
}

TEST(sum_squares_nan_or_inf_shows)
{
    each_isa(sum_squares_bad);
}

static void sum_spans(struct rig *r)
{
    static const double spans_v[] = {0, 10000, 3, 3, 17, 4113, 9999, 10000};
    static const double first[] = {0, 3, 17, 9999};
    gr_tensor x = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 10000), 0);
    gr_tensor spans = rig_tensor(r, gr_tensor_2d(NULL, GR_I32, 4, 2), 3);
    gr_tensor sum = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 4), 0);
    double *x_v = GR_NEW_ARRAY(double, 10000), *found;

    for (int i = 0; i < 10000; i++)
        x_v[i] = sin(i);
    rig_write(r, x, x_v);
    rig_write(r, spans, spans_v);
    gr_sum_spans(r->dev, sum, x, spans);
    found = rig_read(r, sum);
    for (int i = 0; i < 4; i++) {
        int64_t begin = (int64_t)first[i], end = (int64_t)spans_v[2 * i + 1];

        ASSERT_NEAR(found[i], ref_sum(x_v + begin, end - begin), 1e-11);
    }
    gr_free(found);
    gr_free(x_v);
}

TEST(sum_spans_any_length_equals_twin)
{
    each_isa(sum_spans);
}

/* To bf16: what the twin in f64 says of each element is rounded once, ties to even. */
static void copy_bf16(struct rig *r)
{
    static const double values[] = {1, 1 + 0x1p-8, 1 + 0x1.8p-7, 1 + 0x1.0002p-8, -0x1.fep127};
    static const double rounded[] = {1, 1, 1 + 0x1p-6, 1 + 0x1p-7, -0x1.fep127};
    gr_tensor x = rig_tensor(r, flat(5), 0), y = rig_tensor(r, gr_tensor_1d(NULL, GR_BF16, 5), 0);
    double *found;

    rig_write(r, x, values);
    gr_copy(r->dev, y, x);
    found = rig_read(r, y);
    for (int i = 0; i < 5; i++)
        ASSERT_MSG(found[i] == rounded[i], "%a is stored as %a, expected %a (off by %g)", values[i],
                   found[i], rounded[i], found[i] - rounded[i]);
    gr_free(found);
}

TEST(copy_to_bf16_rounds_to_nearest_even)
{
    each_isa(copy_bf16);
}

/* An update of 1e-5 of a weight is far below bf16's last place: the master moves, its copy is the
 * master rounded. */
static void adamw_bf16(struct rig *r)
{
    enum { ELEMENTS = 9001, BEGIN = 5 };
    struct gr_adamw_span span = {.begin = BEGIN, .end = ELEMENTS, .learning_rate = 1e-5};
    struct gr_adamw a = {.param = rig_random(r, flat(ELEMENTS), 0, 0.5, 1),
                         .moment1 = rig_tensor(r, flat(ELEMENTS), 0),
                         .moment2 = rig_tensor(r, flat(ELEMENTS), 0),
                         .grad = rig_random(r, flat(ELEMENTS), 0, 1, 2),
                         .spans = 1,
                         .span = &span,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .step = 1};
    double *before = rig_read(r, a.param), *after, *copy;

    span.copy = rig_tensor(r, gr_tensor_1d(NULL, GR_BF16, ELEMENTS - BEGIN), 0);
    gr_zero(r->dev, a.moment1);
    gr_zero(r->dev, a.moment2);
    gr_adamw(r->dev, &a);
    after = rig_read(r, a.param);
    copy = rig_read(r, span.copy);
    for (int i = BEGIN; i < ELEMENTS; i++) {
        ASSERT_NEAR(before[i] - after[i], 1e-5, 1e-7);
        ASSERT_MSG(copy[i - BEGIN] == (double)gr_float_from_bf16(gr_float_to_bf16((float)after[i])),
                   "the copy of %.9g is %.9g", after[i], copy[i - BEGIN]);
    }
    gr_free(before);
    gr_free(after);
    gr_free(copy);
}

TEST(adamw_small_update_moves_master_and_rounds_copy)
{
    each_isa(adamw_bf16);
}

/* One rounding per element: the values are exact.  2-D views and gapless buffers. */
static void elements(struct rig *r)
{
    static const int64_t gaps[] = {0, 9};

    for (int64_t g = 0; g < GR_COUNT(gaps); g++) {
        gr_tensor shape = gr_tensor_2d(NULL, GR_F32, 3, 5001);
        int64_t count = gr_tensor_count(shape);
        gr_tensor a = rig_random(r, shape, gaps[g], -2, 2), b = rig_random(r, shape, 0, -2, 2);
        gr_tensor y = rig_tensor(r, shape, gaps[g]), z = rig_tensor(r, shape, 4);
        double *a_v = rig_read(r, a), *b_v = rig_read(r, b), *y_v, *z_v, *sum_v;

        gr_add(r->dev, y, a, b);
        gr_copy(r->dev, z, y);
        gr_scale(r->dev, z, 0.3f);
        gr_add(r->dev, a, a, b);
        y_v = rig_read(r, y);
        z_v = rig_read(r, z);
        sum_v = rig_read(r, a);
        for (int64_t i = 0; i < count; i++) {
            a_v[i] = (double)((float)a_v[i] + (float)b_v[i]);
            b_v[i] = (double)((float)a_v[i] * 0.3f);
        }
        rig_assert_close("y = a + b", y_v, a_v, count, 0);
        rig_assert_close("a += b", sum_v, a_v, count, 0);
        rig_assert_close("z = 0.3 y", z_v, b_v, count, 0);
        gr_free(a_v);
        gr_free(b_v);
        gr_free(y_v);
        gr_free(z_v);
        gr_free(sum_v);
    }
}

TEST(add_copy_scale_views_exact)
{
    each_isa(elements);
}

static void zero(struct rig *r)
{
    static const enum gr_dtype dtypes[] = {GR_F32, GR_F64, GR_I32};

    for (int64_t i = 0; i < GR_COUNT(dtypes); i++) {
        gr_tensor x = rig_tensor(r, gr_tensor_2d(NULL, dtypes[i], 7, 700), 2 * i);
        double *found;

        gr_zero(r->dev, x); /* over NaN bits */
        found = rig_read(r, x);
        for (int64_t j = 0; j < gr_tensor_count(x); j++)
            ASSERT(found[j] == 0 && !signbit(found[j]));
        gr_free(found);
    }
}

TEST(zero_any_dtype_is_plus_zero)
{
    each_isa(zero);
}

/* Three steps of torch 2.15, each {param, exp_avg, exp_avg_sq}:
 *   p = torch.nn.Parameter(torch.tensor([0.5, -1.25, 3.0, 1e-3, -2.0, 0.0]))
 *   o = torch.optim.AdamW([p], lr=2e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1,
 *                         foreach=False)
 *   for k in range(3):
 *       p.grad = torch.tensor([0.1, -0.2, 1e-4, 3.0, 0.0, 1e-9]) * (k + 1) - 0.05 * k
 *       o.step()
 * written with float.hex(). */
enum { GOLDEN = 6, STEPS = 3 };
static const float golden[STEPS][3][GOLDEN] = {
    {{0x1.fdd98p-2f, -0x1.3f6c8cp+0f, 0x1.7faadp+1f, -0x1.06324ap-10f, -0x1.ffe5cap+0f,
      -0x1.7d4ce4p-13f},
     {0x1.47ae16p-7f, -0x1.47ae16p-6f, 0x1.4f8b58p-17f, 0x1.333334p-2f, 0.0f, 0x1.b7cdfep-34f},
     {0x1.a36e3p-13f, 0x1.a36e3p-11f, 0x1.b7cdfcp-33f, 0x1.70a3d6p-3f, 0.0f, 0x1.79ca0ep-66f}},
    {{0x1.fbb8e2p-2f, -0x1.3edfcep+0f, 0x1.7fc79ep+1f, -0x1.7f9a2cp-9f, -0x1.ff6a84p+0f,
      0x1.54a15ep-10f},
     {0x1.89374cp-6f, -0x1.020c4ap-4f, -0x1.45c78ap-8f, 0x1.bae148p-1f, -0x1.47ae16p-8f,
      -0x1.47ae14p-8f},
     {0x1.52b0a8p-11f, 0x1.3ccd12p-8f, 0x1.a01554p-15f, 0x1.c4d6ap-1f, 0x1.a36e3p-15f,
      0x1.a36e2cp-15f}},
    {{0x1.f99b56p-2f, -0x1.3e543cp+0f, 0x1.7fe9d2p+1f, -0x1.3cc3c6p-8f, -0x1.fee49p+0f,
      0x1.81d5ecp-9f},
     {0x1.54c986p-5f, -0x1.037b4ap-3f, -0x1.d94c38p-7f, 0x1.ab22d2p+0f, -0x1.db22d2p-7f,
      -0x1.db22dp-7f},
     {0x1.77ac62p-10f, 0x1.dc5be4p-7f, 0x1.036dd4p-12f, 0x1.39b916p+1f, 0x1.05186ep-12f,
      0x1.05186ep-12f}},
};

/* moments to the bit; parameters to one unit in the last place (torch's sqrt is not exact) */
static void adamw_torch(struct rig *r)
{
    static const double start[GOLDEN] = {0.5, -1.25, 3.0, 1e-3, -2.0, 0.0};
    static const float base[GOLDEN] = {0.1f, -0.2f, 1e-4f, 3.0f, 0.0f, 1e-9f};
    static const double zeros[GOLDEN] = {0};
    struct gr_adamw_span span = {.end = GOLDEN, .learning_rate = 2e-3, .weight_decay = 0.1};
    struct gr_adamw a = {.param = rig_tensor(r, flat(GOLDEN), 0),
                         .moment1 = rig_tensor(r, flat(GOLDEN), 0),
                         .moment2 = rig_tensor(r, flat(GOLDEN), 0),
                         .grad = rig_tensor(r, flat(GOLDEN), 0),
                         .spans = 1,
                         .span = &span,
                         .beta1 = 0.9,
                         .beta2 = 0.98,
                         .eps = 1e-8};

    rig_write(r, a.param, start);
    rig_write(r, a.moment1, zeros);
    rig_write(r, a.moment2, zeros);
    for (int k = 0; k < STEPS; k++) {
        double grad[GOLDEN], *p, *m, *v;

        for (int i = 0; i < GOLDEN; i++)
            grad[i] = (double)(base[i] * (float)(k + 1) - (float)(0.05 * k));
        rig_write(r, a.grad, grad);
        a.step = k + 1;
        gr_adamw(r->dev, &a);
        p = rig_read(r, a.param);
        m = rig_read(r, a.moment1);
        v = rig_read(r, a.moment2);
        for (int i = 0; i < GOLDEN; i++) {
            ASSERT_NEAR(p[i], golden[k][0][i], 0x1p-23 * fabs((double)golden[k][0][i]));
            ASSERT_NEAR(m[i], golden[k][1][i], 0);
            ASSERT_NEAR(v[i], golden[k][2][i], 0);
        }
        gr_free(p);
        gr_free(m);
        gr_free(v);
    }
}

TEST(adamw_three_steps_equal_torch)
{
    each_isa(adamw_torch);
}

/* beta1 = 0: torch's lerp ends at the gradient itself, to the bit. */
static void adamw_no_momentum(struct rig *r)
{
    struct gr_adamw_span span = {.end = 100, .learning_rate = 1e-3};
    struct gr_adamw a = {.param = rig_random(r, flat(100), 0, -1, 1),
                         .moment1 = rig_random(r, flat(100), 0, -1, 1),
                         .moment2 = rig_random(r, flat(100), 0, 0, 1),
                         .grad = rig_random(r, flat(100), 0, -1e-3, 1e-3),
                         .spans = 1,
                         .span = &span,
                         .beta2 = 0.99,
                         .eps = 1e-8,
                         .step = 1};
    double *m, *g;

    gr_adamw(r->dev, &a);
    m = rig_read(r, a.moment1);
    g = rig_read(r, a.grad);
    rig_assert_close("moment1", m, g, 100, 0);
    gr_free(m);
    gr_free(g);
}

TEST(adamw_without_momentum_takes_gradient)
{
    each_isa(adamw_no_momentum);
}

enum { STATE = 12000 };

/* What the twin makes of elements begin..end; what is in no span must stay. */
static void adamw_spans(struct rig *r)
{
    struct gr_adamw_span spans[] = {
        {.begin = 3, .end = 5003, .learning_rate = 1e-2, .weight_decay = 0.1},
        {.begin = 5003, .end = 5003, .learning_rate = 1},
        {.begin = 6000, .end = STATE, .learning_rate = 3e-2},
    };
    struct gr_adamw a = {.param = rig_random(r, flat(STATE), 0, -1, 1),
                         .moment1 = rig_random(r, flat(STATE), 0, -1, 1),
                         .moment2 = rig_random(r, flat(STATE), 0, 0.1, 1),
                         .grad = rig_random(r, flat(STATE), 0, -1, 1),
                         .spans = (int)GR_COUNT(spans),
                         .span = spans,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .step = 7};
    double *p = rig_read(r, a.param), *m = rig_read(r, a.moment1), *v = rig_read(r, a.moment2);
    double *g = rig_read(r, a.grad), *p_found, *m_found, *v_found, *copy;

    spans[2].copy = rig_tensor(r, flat(STATE - 6000), 0);
    gr_adamw(r->dev, &a);
    for (int64_t i = 0; i < GR_COUNT(spans); i++) {
        const struct gr_adamw_span *s = &spans[i];
        struct ref_adamw twin = {s->learning_rate, s->weight_decay, a.beta1,
                                 a.beta2,          a.eps,           a.step};

        ref_adamw(p + s->begin, m + s->begin, v + s->begin, g + s->begin, s->end - s->begin, &twin);
    }
    p_found = rig_read(r, a.param);
    m_found = rig_read(r, a.moment1);
    v_found = rig_read(r, a.moment2);
    copy = rig_read(r, spans[2].copy);
    rig_assert_close("param", p_found, p, STATE, 3e-7);
    rig_assert_close("moment1", m_found, m, STATE, 3e-7);
    rig_assert_close("moment2", v_found, v, STATE, 3e-7);
    rig_assert_close("param outside spans", p_found, p, 3, 0);
    rig_assert_close("param between spans", p_found + 5003, p + 5003, 997, 0);
    rig_assert_close("moment1 between spans", m_found + 5003, m + 5003, 997, 0);
    rig_assert_close("copy", copy, p_found + 6000, STATE - 6000, 0);
    gr_free(p);
    gr_free(m);
    gr_free(v);
    gr_free(g);
    gr_free(p_found);
    gr_free(m_found);
    gr_free(v_found);
    gr_free(copy);
}

TEST(adamw_spans_each_at_its_rate)
{
    each_isa(adamw_spans);
}
