/* AdamW on every instruction set: against torch and f64 twins. */
#include "kernels/base/alloc.h"
#include "tests/ref/ref.h"
#include "tests/rig.h"

static gr_tensor flat(int64_t n)
{
    return gr_tensor_1d(NULL, GR_F32, n);
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
                         .grad_scale = 1,
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
    rig_each_isa(adamw_torch);
}

/* beta1 = 0: torch's lerp ends at the gradient itself, to the bit. */
static void adamw_no_momentum(struct rig *r)
{
    struct gr_adamw_span span = {.end = 100, .learning_rate = 1e-3};
    struct gr_adamw a = {.param = rig_random(r, flat(100), 0, -1, 1),
                         .moment1 = rig_random(r, flat(100), 0, -1, 1),
                         .moment2 = rig_random(r, flat(100), 0, 0, 1),
                         .grad = rig_random(r, flat(100), 0, -1e-3, 1e-3),
                         .grad_scale = 1,
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
    rig_each_isa(adamw_no_momentum);
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
                         .grad_scale = 1,
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
    rig_each_isa(adamw_spans);
}

/* Three buffers of state, alike in each call of a rig that was opened alike. */
struct state {
    gr_tensor param, moment1, moment2, copy;
    struct gr_adamw_span span;
};

static struct gr_adamw adamw_of(struct rig *r, struct state *s, int64_t n)
{
    gr_tensor shape = flat(n);

    r->fills = 0;
    s->param = rig_random(r, shape, 0, -1, 1);
    s->moment1 = rig_random(r, shape, 0, -1, 1);
    s->moment2 = rig_random(r, shape, 0, 0.1, 1);
    shape.dtype = GR_BF16;
    s->copy = rig_tensor(r, shape, 0);
    s->span = (struct gr_adamw_span){
        .end = n, .learning_rate = 1e-2, .weight_decay = 0.1, .copy = s->copy};
    return (struct gr_adamw){.param = s->param,
                             .moment1 = s->moment1,
                             .moment2 = s->moment2,
                             .grad_scale = 1,
                             .spans = 1,
                             .span = &s->span,
                             .beta1 = 0.9,
                             .beta2 = 0.999,
                             .eps = 1e-8,
                             .step = 3};
}

static void assert_same_state(struct rig *r, const struct state *a, const struct state *b)
{
    const gr_tensor of_a[] = {a->param, a->moment1, a->moment2, a->copy};
    const gr_tensor of_b[] = {b->param, b->moment1, b->moment2, b->copy};

    for (int64_t i = 0; i < GR_COUNT(of_a); i++) {
        double *a_v = rig_read(r, of_a[i]), *b_v = rig_read(r, of_b[i]);

        for (int64_t k = 0; k < of_a[i].dim[0]; k++)
            ASSERT_MSG(a_v[k] == b_v[k] || (isnan(a_v[k]) && isnan(b_v[k])),
                       "buffer %" PRId64 ", element %" PRId64 ": %a, expected %a (off by %g)", i, k,
                       a_v[k], b_v[k], a_v[k] - b_v[k]);
        gr_free(a_v);
        gr_free(b_v);
    }
}

/* An update clipped on the device is that of the gradient clipped here: rounded after 1/N, then
 * after the factor; a limit above the norm changes nothing. */
static void adamw_clips(struct rig *r)
{
    static const double limits[] = {0, 0.5, 1e3};
    gr_tensor grad = rig_random(r, flat(STATE), 0, -50, 50);
    gr_tensor clipped = rig_tensor(r, flat(STATE), 0);
    gr_tensor square = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0);
    const float scale = (float)(1.0 / 70);
    double *grad_v = rig_read(r, grad), *square_v;

    gr_sum_squares(r->dev, square, grad, scale);
    square_v = rig_read(r, square);
    for (int64_t i = 0; i < GR_COUNT(limits); i++) {
        double factor = limits[i] / (sqrt(square_v[0]) + 1e-6);
        struct state expected, found;
        struct gr_adamw plain = adamw_of(r, &expected, STATE), a = adamw_of(r, &found, STATE);
        double *v = GR_NEW_ARRAY(double, STATE);

        for (int k = 0; k < STATE; k++)
            v[k] = (double)((float)grad_v[k] * scale * (i == 1 ? (float)factor : 1.0f));
        rig_write(r, clipped, v);
        plain.grad = clipped;
        gr_adamw(r->dev, &plain);
        a.grad = grad;
        a.grad_scale = scale;
        a.square_sum = square;
        a.max_norm = limits[i];
        gr_adamw(r->dev, &a);
        assert_same_state(r, &found, &expected);
        gr_free(v);
    }
    gr_free(grad_v);
    gr_free(square_v);
}

TEST(adamw_clips_as_the_gradient_clipped_before)
{
    rig_each_isa(adamw_clips);
}

/* Also without a limit. */
static void adamw_refuses(struct rig *r)
{
    static const double bad[] = {NAN, INFINITY};
    gr_tensor grad = rig_random(r, flat(STATE), 0, -1, 1);
    gr_tensor square = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0);

    for (int64_t i = 0; i < 2 * GR_COUNT(bad); i++) {
        struct state untouched, found;
        struct gr_adamw a;

        adamw_of(r, &untouched, STATE);
        a = adamw_of(r, &found, STATE);
        rig_write(r, square, &bad[i / 2]);
        a.grad = grad;
        a.square_sum = square;
        a.max_norm = i % 2 == 0 ? 0 : 1;
        gr_adamw(r->dev, &a);
        assert_same_state(r, &found, &untouched);
    }
}

TEST(adamw_of_a_norm_that_is_not_finite_changes_nothing)
{
    rig_each_isa(adamw_refuses);
}
