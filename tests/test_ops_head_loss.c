/* The head with its loss against its f64 twin, and the bare logits.
 *
 * Tolerances: logits are f32 sums of `hidden` products, a few roundings of their largest; a loss
 * takes over their absolute error, and logits here reach 10; dh sums `vocab` products of p, which
 * has the relative error of its logit (1e-6), with rows of the weight. */
#include "kernels/base/alloc.h"
#include "tests/ref/ref_head_loss.h"
#include "tests/rig.h"

static const double tolerance = 2e-6;

struct head_case {
    int64_t n, hidden, vocab, s, gap;
    bool no_dh;
    enum gr_dtype dtype;
};

/* Rows in an order that is not theirs, each once, the last `pads` and every seventh are padding. */
static void fill_rows(double *rows, const struct head_case *c, int64_t pads)
{
    for (int64_t i = 0; i < c->s; i++)
        rows[i] = i >= c->s - pads || i % 7 == 3 ? -1 : (double)((i * 37 + 5) % c->n);
}

static struct gr_head_loss make_head(struct rig *r, const struct head_case *c)
{
    struct gr_head_loss a = {
        .row_loss = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, c->s), 0),
        .h = rig_random(r, gr_tensor_2d(NULL, c->dtype, c->n, c->hidden), c->gap, -1, 1),
        .weight = rig_random(r, gr_tensor_2d(NULL, c->dtype, c->vocab, c->hidden), c->gap, -1, 1),
        .rows = rig_tensor(r, gr_tensor_1d(NULL, GR_I32, c->s), 0),
        .targets = rig_random(r, gr_tensor_1d(NULL, GR_I32, c->s), 0, 0, (double)c->vocab)};
    double *rows = GR_NEW_ARRAY(double, c->s);

    if (!c->no_dh)
        a.dh = rig_tensor(r, gr_tensor_2d(NULL, c->dtype, c->n, c->hidden), c->gap);
    fill_rows(rows, c, 20);
    rig_write(r, a.rows, rows);
    gr_free(rows);
    rig_set_workspace(r, gr_head_loss_workspace_bytes(r->dev, c->hidden, c->vocab));
    return a;
}

static void check_case(const struct head_case *c, const char *isa)
{
    struct rig r;
    struct gr_head_loss a;
    struct ref_head_loss twin;
    double *h, *weight, *found, *found_dh;
    int32_t *rows, *targets;

    rig_open(&r, isa, 2);
    a = make_head(&r, c);
    h = rig_read(&r, a.h);
    weight = rig_read(&r, a.weight);
    rows = rig_read_i32(&r, a.rows);
    targets = rig_read_i32(&r, a.targets);
    twin = (struct ref_head_loss){c->n,
                                  c->hidden,
                                  c->vocab,
                                  c->s,
                                  h,
                                  weight,
                                  rows,
                                  targets,
                                  GR_NEW_ARRAY(double, c->s),
                                  c->no_dh ? NULL : GR_NEW_ARRAY(double, c->n * c->hidden)};
    gr_head_loss(r.dev, &a);
    ref_head_loss(&twin);
    found = rig_read(&r, a.row_loss);
    rig_assert_close("row_loss", found, twin.row_loss, c->s, tolerance);
    gr_free(found);
    if (!c->no_dh) {
        found_dh = rig_read(&r, a.dh);
        rig_assert_stored("dh", c->dtype, found_dh, twin.dh, c->n * c->hidden,
                          tolerance + rig_factor_rounding(&r, c->dtype));
        gr_free(found_dh);
    }
    rig_close(&r);
    gr_free(h);
    gr_free(weight);
    gr_free(rows);
    gr_free(targets);
    gr_free(twin.row_loss);
    gr_free(twin.dh);
}

static const struct head_case cases[] = {
    {.n = 64, .hidden = 33, .vocab = 512, .s = 64},
    {.n = 640, .hidden = 90, .vocab = 1000, .s = 320, .gap = 5}, /* two chunks */
    {.n = 1152, .hidden = 9, .vocab = 40, .s = 1088},            /* two chunks on a GPU */
    {.n = 64, .hidden = 9, .vocab = 3001, .s = 64, .dtype = GR_BF16},
    {.n = 192, .hidden = 172, .vocab = 7, .s = 64, .gap = 3},
    {.n = 192, .hidden = 7, .vocab = 1000, .s = 128, .no_dh = true},
    {.n = 640, .hidden = 90, .vocab = 1000, .s = 320, .gap = 5, .dtype = GR_BF16},
    {.n = 192, .hidden = 572, .vocab = 7, .s = 64, .gap = 3, .dtype = GR_BF16}, /* in pieces */
};

TEST(head_loss_any_shape_equals_twin)
{
    const char *isa;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++)
        for (int64_t k = 0; k < GR_COUNT(cases); k++)
            check_case(&cases[k], isa);
}

/* A row the model is sure of: dlogit = p - 1 at its target is as small as the other p. */
TEST(head_loss_confident_row_keeps_small_gradient)
{
    enum { N = 64, V = 64 };
    struct rig r;
    struct gr_head_loss a;
    static double h[N], weight[V], rows[N], targets[N];
    double *dh;

    rig_open(&r, NULL, 1);
    for (int i = 0; i < N; i++) {
        h[i] = 1;
        rows[i] = i == 0 ? 0 : -1;
    }
    for (int v = 0; v < V; v++)
        weight[v] = v == 0 ? 20 : 0;
    a = (struct gr_head_loss){.row_loss = rig_tensor(&r, gr_tensor_1d(NULL, GR_F64, N), 0),
                              .dh = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, N, 1), 0),
                              .h = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, N, 1), 0),
                              .weight = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, V, 1), 0),
                              .rows = rig_tensor(&r, gr_tensor_1d(NULL, GR_I32, N), 0),
                              .targets = rig_tensor(&r, gr_tensor_1d(NULL, GR_I32, N), 0)};
    rig_write(&r, a.h, h);
    rig_write(&r, a.weight, weight);
    rig_write(&r, a.rows, rows);
    rig_write(&r, a.targets, targets);
    rig_set_workspace(&r, gr_head_loss_workspace_bytes(r.dev, 1, V));
    gr_head_loss(r.dev, &a);
    dh = rig_read(&r, a.dh);
    /* dh = 20 (p_0 - 1) = -20 * 63 e^-20 / (1 + 63 e^-20): 2.6e-6, where one f32 step of p is 6e-8
     * */
    ASSERT_NEAR(dh[0] / (-20 * 63 * exp(-20) / (1 + 63 * exp(-20))), 1, 1e-6);
    gr_free(dh);
    rig_close(&r);
}

/* The device has failed; on a GPU nobody can be told of it at once, and the loss shows it. */
static void assert_bad_index(struct rig *r, const struct gr_head_loss *a, int place)
{
    double *loss;

    if (strcmp(gr_device_name(r->dev), "cuda") != 0) {
        ASSERT_INT(gr_device_status(r->dev), GR_ERR_BUG);
        ASSERT_MSG(strstr(gr_error_message(), "out of range") != NULL, "%s", gr_error_message());
        gr_device_arena_release(r->dev, &r->workspace);
        gr_device_arena_release(r->dev, &r->arena);
        gr_device_destroy(r->dev);
        return;
    }
    loss = rig_read(r, a->row_loss);
    for (int64_t i = 0; i < a->rows.dim[0]; i++)
        ASSERT_INT(isnan(loss[i]) != 0, i == place);
    gr_free(loss);
    rig_close(r);
}

TEST(head_loss_bad_index_shows)
{
    static const double bad_rows[] = {64, -2, 0, 0}, bad_targets[] = {0, 0, 512, -1};
    struct head_case c = cases[0];

    for (int k = 0; k < 4; k++) {
        struct rig r;
        struct gr_head_loss a;
        double *rows = GR_NEW_ARRAY(double, c.s), *targets = GR_NEW_ARRAY(double, c.s);

        rig_open(&r, NULL, 1);
        a = make_head(&r, &c);
        for (int64_t i = 0; i < c.s; i++)
            rows[i] = (double)i;
        rows[5] = bad_rows[k] == 0 ? 5 : bad_rows[k];
        targets[5] = bad_targets[k];
        rig_write(&r, a.rows, rows);
        rig_write(&r, a.targets, targets);
        gr_head_loss(r.dev, &a);
        gr_free(rows);
        gr_free(targets);
        assert_bad_index(&r, &a, 5);
    }
}

/* A target beside padding is not looked at. */
TEST(head_loss_padding_target_is_ignored)
{
    struct head_case c = cases[0];
    struct rig r;
    struct gr_head_loss a;
    double *targets;

    rig_open(&r, NULL, 1);
    a = make_head(&r, &c);
    targets = rig_read(&r, a.targets);
    targets[c.s - 1] = -1;
    rig_write(&r, a.targets, targets);
    gr_free(targets);
    gr_head_loss(r.dev, &a);
    ASSERT_OK(gr_device_status(r.dev));
    rig_close(&r);
}

/* Any number of rows, padding and repetition included. */
TEST(head_logits_few_rows_equal_twin)
{
    static const double few[] = {5, -1, 5, 63, 0};
    struct head_case c = {.n = 64, .hidden = 90, .vocab = 1000, .s = 64, .gap = 3};
    const char *isa;

    for (int i = 0; (isa = rig_isa(i / 2)) != NULL; i++)
        for (int64_t s = 1; s <= 5; s += 2) {
            struct rig r;
            struct gr_head_loss a;
            gr_tensor logits, rows;
            double *h, *weight, *found, *expected = GR_NEW_ARRAY(double, s *c.vocab);
            struct ref_head_loss twin = {.n = c.n, .hidden = c.hidden, .vocab = c.vocab, .s = s};
            int32_t *rows_v;

            c.dtype = i % 2 == 0 ? GR_F32 : GR_BF16;
            rig_open(&r, isa, 2);
            a = make_head(&r, &c);
            rows = rig_tensor(&r, gr_tensor_1d(NULL, GR_I32, s), 0);
            logits = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, s, c.vocab), 7);
            rig_write(&r, rows, few);
            gr_head_logits(r.dev, logits, a.h, a.weight, rows);
            twin.h = h = rig_read(&r, a.h);
            twin.weight = weight = rig_read(&r, a.weight);
            twin.rows = rows_v = rig_read_i32(&r, rows);
            ref_head_logits(expected, &twin);
            found = rig_read(&r, logits);
            rig_assert_close("logits", found, expected, s * c.vocab, tolerance);
            gr_free(h);
            gr_free(weight);
            gr_free(rows_v);
            gr_free(found);
            gr_free(expected);
            rig_close(&r);
        }
}

SAME_BITS(head_loss)
{
    struct gr_head_loss a = make_head(r, &cases[1]);

    gr_head_loss(r->dev, &a);
}

SAME_BITS(head_loss_bf16)
{
    struct gr_head_loss a = make_head(r, &cases[6]);

    gr_head_loss(r->dev, &a);
}

SAME_BITS(head_loss_model_width)
{
    struct head_case c = {.n = 256, .hidden = 576, .vocab = 5000, .s = 192};
    struct gr_head_loss a = make_head(r, &c);

    gr_head_loss(r->dev, &a);
}

SAME_BITS(head_logits)
{
    struct gr_head_loss a = make_head(r, &cases[1]);
    gr_tensor logits = rig_tensor(r, gr_tensor_2d(NULL, GR_F32, a.rows.dim[0], 1000), 0);

    gr_head_logits(r->dev, logits, a.h, a.weight, a.rows);
}
