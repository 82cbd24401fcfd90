/* Linear groups against their f64 twin: awkward widths, adapters of mixed R, several segments,
 * dropout; then thread counts, and segments stacked behind each other.
 *
 * Tolerance: an element is a sum of up to 640 products of numbers of either sign.  Its rounding
 * error grows like the square root of their number, as does the largest element, so the quotient
 * stays at a few roundings of f32 (6e-8); dA and dB sum over rows what was rounded once before. */
#include "kernels/base/alloc.h"
#include "tests/ref/ref_lora_group.h"
#include "tests/rig.h"

#include <stdlib.h>

static const double tolerance = 1.5e-6;

enum { LINEARS_MAX = 3, ADAPTERS_MAX = 3 };

/* ---- a case, the group built from it, and the twin's arrays ---- */

struct group_case {
    int64_t n, in, out[LINEARS_MAX]; /* an out of 0 ends the list */
    int64_t r[ADAPTERS_MAX][LINEARS_MAX];
    int segments;
    struct gr_segment segment[4];
    float dropout;
    bool bias, residual, residual_is_y, eval, no_dx;
    int64_t gap;
    enum gr_dtype dtype;
};

struct group {
    struct gr_lora_group g;
    struct gr_linear linear[LINEARS_MAX];
    struct gr_lora lora[ADAPTERS_MAX * LINEARS_MAX];
};

static gr_tensor matrix(const struct group_case *c, int64_t rows, int64_t columns)
{
    return gr_tensor_2d(NULL, c->dtype, rows, columns);
}

static void make_lora(struct rig *r, struct gr_lora *lora, const struct group_case *c, int adapter,
                      int linear)
{
    int64_t rank = c->r[adapter][linear];

    *lora = (struct gr_lora){.scale = 0.5f + (float)adapter, .dropout = c->dropout};
    if (rank == 0)
        return;
    lora->a = rig_random(r, matrix(c, rank, c->in), c->gap, -1, 1);
    lora->b = rig_random(r, matrix(c, c->out[linear], rank), c->gap, -1, 1);
    lora->da = rig_tensor(r, gr_tensor_2d(NULL, GR_F32, rank, c->in), c->gap);
    lora->db = rig_tensor(r, gr_tensor_2d(NULL, GR_F32, c->out[linear], rank), c->gap);
}

static void make_group(struct group *b, struct rig *r, const struct group_case *c)
{
    struct gr_lora_group *g = &b->g;
    int64_t out = 0, s = 0;

    *g = (struct gr_lora_group){.layer = 2, .module = 4, .linear = b->linear, .lora = b->lora};
    while (g->linears < LINEARS_MAX && c->out[g->linears] > 0)
        out += c->out[g->linears++];
    g->adapters = ADAPTERS_MAX;
    g->segments = c->segments;
    g->segment = c->segment;
    g->train = !c->eval;
    for (int i = 0; i < g->linears; i++) {
        int64_t most = 0;

        b->linear[i].weight = rig_random(r, matrix(c, c->out[i], c->in), c->gap, -1, 1);
        b->linear[i].bias = (gr_tensor){0};
        if (c->bias && i != 1)
            b->linear[i].bias = rig_random(r, gr_tensor_1d(NULL, c->dtype, c->out[i]), 0, -1, 1);
        for (int a = 0; a < ADAPTERS_MAX; a++) {
            make_lora(r, &b->lora[a * g->linears + i], c, a, i);
            most = c->r[a][i] > most ? c->r[a][i] : most;
        }
        s += most;
    }
    g->x = rig_random(r, matrix(c, c->n, c->in), c->gap, -1, 1);
    g->residual = c->residual ? rig_random(r, matrix(c, c->n, out), c->gap, -1, 1) : (gr_tensor){0};
    g->y = c->residual_is_y ? g->residual : rig_tensor(r, matrix(c, c->n, out), c->gap + 1);
    g->dy = rig_random(r, matrix(c, c->n, out), c->gap, -1, 1);
    if (!c->no_dx)
        g->dx = rig_tensor(r, matrix(c, c->n, c->in), c->gap);
    if (s > 0) {
        g->s = rig_tensor(r, matrix(c, c->n, s), c->gap);
        g->ds = rig_tensor(r, matrix(c, c->n, s), c->gap);
    }
    rig_set_workspace(r, gr_lora_group_workspace_bytes(r->dev, c->n, c->in, out, s));
}

/* The twin's arrays; all of them are freed together. */
struct twin {
    struct ref_lora_group g;
    struct ref_linear linear[LINEARS_MAX];
    struct ref_lora lora[ADAPTERS_MAX * LINEARS_MAX];
    int arrays;
    double *array[64];
};

static double *keep(struct twin *t, double *array)
{
    t->array[t->arrays++] = array;
    return array;
}

static double *read_tensor(struct twin *t, struct rig *r, gr_tensor tensor)
{
    return gr_tensor_is_none(tensor) ? NULL : keep(t, rig_read(r, tensor));
}

static double *space(struct twin *t, gr_tensor like)
{
    return gr_tensor_is_none(like) ? NULL : keep(t, GR_NEW_ARRAY(double, gr_tensor_count(like)));
}

static void make_twin(struct twin *t, struct rig *r, const struct gr_lora_group *g)
{
    *t = (struct twin){0};
    for (int i = 0; i < g->linears; i++)
        t->linear[i] =
            (struct ref_linear){g->linear[i].weight.dim[0], read_tensor(t, r, g->linear[i].weight),
                                read_tensor(t, r, g->linear[i].bias)};
    for (int i = 0; i < g->adapters * g->linears; i++)
        t->lora[i] =
            (struct ref_lora){.r = gr_tensor_is_none(g->lora[i].a) ? 0 : g->lora[i].a.dim[0],
                              .a = read_tensor(t, r, g->lora[i].a),
                              .b = read_tensor(t, r, g->lora[i].b),
                              .scale = (double)g->lora[i].scale,
                              .dropout = g->lora[i].dropout,
                              .da = space(t, g->lora[i].da),
                              .db = space(t, g->lora[i].db)};
    t->g = (struct ref_lora_group){.layer = g->layer,
                                   .module = g->module,
                                   .linears = g->linears,
                                   .segments = g->segments,
                                   .linear = t->linear,
                                   .lora = t->lora,
                                   .segment = g->segment,
                                   .train = g->train,
                                   .n = g->x.dim[0],
                                   .in = g->x.dim[1],
                                   .x = read_tensor(t, r, g->x),
                                   .residual = read_tensor(t, r, g->residual),
                                   .y = space(t, g->y),
                                   .dy = read_tensor(t, r, g->dy),
                                   .dx = space(t, g->dx)};
    for (int i = 0; i < g->linears; i++) {
        int64_t most = 0;

        for (int a = 0; a < g->adapters; a++)
            most = t->lora[a * g->linears + i].r > most ? t->lora[a * g->linears + i].r : most;
        t->g.s_at[i] = t->g.s_width;
        t->g.s_width += most;
    }
}

static void free_twin(struct twin *t)
{
    for (int i = 0; i < t->arrays; i++)
        gr_free(t->array[i]);
}

static void assert_tensor(const char *what, struct rig *r, gr_tensor t, const double *expected)
{
    double *found = rig_read(r, t);

    rig_assert_stored(what, t.dtype, found, expected, gr_tensor_count(t), tolerance);
    gr_free(found);
}

/* ---- against the twin ---- */

/* S (and later dS) is checked where an adapter put it, and then computed with as it is stored: its
 * rounding is not the next product's. */
static const double *check_s(const char *what, struct rig *r, struct twin *t, gr_tensor s,
                             void (*expect)(double *s, const struct ref_lora_group *g))
{
    double *expected, *found;

    if (t->g.s_width == 0)
        return NULL;
    expected = space(t, s);
    found = keep(t, rig_read(r, s));
    expect(expected, &t->g);
    for (int64_t i = 0; i < gr_tensor_count(s); i++)
        if (expected[i] == 0) /* dS is left as it was there */
            found[i] = 0;
    rig_assert_stored(what, s.dtype, found, expected, gr_tensor_count(s), tolerance);
    return found;
}

static void check_gradients(struct rig *r, const struct gr_lora_group *g, const struct twin *t)
{
    for (int s = 0; s < g->segments; s++)
        for (int i = 0; i < g->linears && g->segment[s].adapter >= 0; i++) {
            int at = g->segment[s].adapter * g->linears + i;

            if (t->lora[at].r == 0)
                continue;
            assert_tensor("da", r, g->lora[at].da, t->lora[at].da);
            assert_tensor("db", r, g->lora[at].db, t->lora[at].db);
        }
}

static void check_case(const struct group_case *c, const char *isa, int threads)
{
    struct rig r;
    struct group group;
    struct twin twin;

    rig_open(&r, isa, threads);
    make_group(&group, &r, c);
    make_twin(&twin, &r, &group.g);
    gr_lora_group_forward(r.dev, &group.g);
    twin.g.s = check_s("s", &r, &twin, group.g.s, ref_lora_group_s);
    ref_lora_group_forward(&twin.g);
    assert_tensor("y", &r, group.g.y, twin.g.y);
    gr_lora_group_backward(r.dev, &group.g);
    twin.g.ds = check_s("ds", &r, &twin, group.g.ds, ref_lora_group_ds);
    ref_lora_group_backward(&twin.g);
    if (!c->no_dx)
        assert_tensor("dx", &r, group.g.dx, twin.g.dx);
    check_gradients(&r, &group.g, &twin);
    rig_close(&r);
    free_twin(&twin);
}

static void each_isa(const struct group_case *c)
{
    const char *isa;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        struct group_case stored = *c;

        check_case(c, isa, 2);
        stored.dtype = GR_BF16;
        check_case(&stored, isa, 2);
    }
}

TEST(lora_group_one_linear_equals_twin)
{
    struct group_case c = {.n = 64,
                           .in = 33,
                           .out = {7},
                           .r = {{3}},
                           .segments = 1,
                           .segment = {{0, 64, 0, {1, 2, 3}}}};

    each_isa(&c);
    c.residual = true;
    each_isa(&c);
    c.residual_is_y = true;
    each_isa(&c);
    c.bias = true;
    each_isa(&c);
    c.no_dx = true;
    each_isa(&c);
}

/* A token being generated: one row, which needs no padding. */
TEST(lora_group_one_row_equals_twin)
{
    struct group_case c = {.n = 1,
                           .in = 172,
                           .out = {200, 7, 33},
                           .r = {{8, 0, 3}},
                           .segments = 1,
                           .segment = {{0, 1, 0, {1, 2, 3}}},
                           .bias = true,
                           .gap = 5};

    each_isa(&c);
    c.segment[0].adapter = -1;
    each_isa(&c);
}

/* Three linears, two segments of 3 and 4 tiles, rows without segment between and behind. */
static const struct group_case mixed = {
    .n = 640,
    .in = 172,
    .out = {200, 7, 33},
    .r = {{8, 0, 3}, {16, 1, 8}, {1, 4, 0}},
    .segments = 3,
    .segment = {{64, 350, 1, {11, 5, 7}}, {384, 384, 2, {5, 6, 7}}, {384, 576, 0, {12, 5, 8}}},
    .bias = true,
    .gap = 5};

TEST(lora_group_mixed_segments_equal_twin)
{
    each_isa(&mixed);
}

TEST(lora_group_dropout_equals_twin)
{
    struct group_case c = mixed;

    c.dropout = 0.1f;
    each_isa(&c);
    c.no_dx = true;
    each_isa(&c);
}

/* Wider than the tile of masked x, and than one run of masks. */
TEST(lora_group_wide_dropout_equals_twin)
{
    struct group_case c = {.n = 64,
                           .in = 1333,
                           .out = {5},
                           .r = {{2}},
                           .segments = 1,
                           .segment = {{0, 64, 0, {1, 2, 3}}},
                           .dropout = 0.5f};

    each_isa(&c);
}

TEST(lora_group_evaluation_drops_nothing)
{
    struct group_case c = mixed;

    c.dropout = 0.1f;
    c.eval = true;
    each_isa(&c);
}

/* Adapter -1 with and without other adapters, and no segment at all. */
TEST(lora_group_base_only_equals_twin)
{
    struct group_case c = {.n = 128,
                           .in = 90,
                           .out = {33, 172},
                           .segments = 1,
                           .segment = {{0, 64, -1, {1, 2, 3}}},
                           .residual = true};

    each_isa(&c);
    c.r[0][0] = 8;
    each_isa(&c);
    c.segments = 0;
    each_isa(&c);
}

/* s is zero outside of segments with an adapter and right of an adapter's own R. */
TEST(lora_group_unused_s_is_zero)
{
    struct rig r;
    struct group group;
    double *s;

    rig_open(&r, NULL, 2);
    make_group(&group, &r, &mixed);
    gr_lora_group_forward(r.dev, &group.g);
    s = rig_read(&r, group.g.s);
    for (int64_t row = 0; row < mixed.n; row++)
        for (int64_t j = 0; j < 28; j++) { /* the linears' largest R: 16, 4, 8 */
            bool first = row >= 64 && row < 350, last = row >= 384 && row < 576;
            bool used = (first && (j < 17 || j >= 20)) || (last && (j < 8 || (j >= 20 && j < 23)));

            ASSERT_MSG((s[row * 28 + j] != 0) == used, "s[%" PRId64 ", %" PRId64 "] is %g", row, j,
                       s[row * 28 + j]);
        }
    gr_free(s);
    rig_close(&r);
}

/* ---- bits ---- */

static void run_both(struct rig *r, const struct group_case *c)
{
    struct group group;

    make_group(&group, r, c);
    gr_lora_group_forward(r->dev, &group.g);
    gr_lora_group_backward(r->dev, &group.g);
}

SAME_BITS(lora_group)
{
    run_both(r, &mixed);
}

SAME_BITS(lora_group_bf16)
{
    struct group_case c = mixed;

    c.dropout = 0.1f;
    c.dtype = GR_BF16;
    run_both(r, &c);
}

SAME_BITS(lora_group_dropout)
{
    struct group_case c = mixed;

    c.dropout = 0.1f;
    run_both(r, &c);
}

/* 576 columns and R 16: where oneDNN, given more threads, would round dB differently. */
SAME_BITS(lora_group_model_shape)
{
    struct group_case c = {.n = 640,
                           .in = 576,
                           .out = {576, 192, 192},
                           .r = {{16, 16, 16}},
                           .segments = 1,
                           .segment = {{0, 640, 0, {1, 2, 3}}},
                           .dropout = 0.1f};

    run_both(r, &c);
}

/* S takes much longer than y here, and dS than dA: who does not wait for them reads NaN. */
SAME_BITS(lora_group_slow_s)
{
    struct group_case c = {.n = 192,
                           .in = 4096,
                           .out = {16},
                           .r = {{16}},
                           .segments = 1,
                           .segment = {{0, 192, 0, {1, 2, 3}}}};

    run_both(r, &c);
}

SAME_BITS(lora_group_slow_ds)
{
    struct group_case c = {.n = 192,
                           .in = 16,
                           .out = {4096},
                           .r = {{16}},
                           .segments = 1,
                           .segment = {{0, 192, 0, {1, 2, 3}}},
                           .no_dx = true};

    run_both(r, &c);
}

/* ---- stacked behind another trial, a segment computes what it computes alone ---- */

struct results {
    double *y, *dx, *da, *db;
};

static struct results run_last(struct rig *r, struct group *group, int64_t rows)
{
    struct gr_lora_group *g = &group->g;
    int64_t n = g->x.dim[0];

    gr_lora_group_forward(r->dev, g);
    gr_lora_group_backward(r->dev, g);
    return (struct results){rig_read(r, gr_tensor_rows(g->y, n - rows, n)),
                            rig_read(r, gr_tensor_rows(g->dx, n - rows, n)),
                            rig_read(r, g->lora[0].da), rig_read(r, g->lora[0].db)};
}

static void free_results(struct results *x)
{
    gr_free(x->y);
    gr_free(x->dx);
    gr_free(x->da);
    gr_free(x->db);
}

TEST(lora_group_stacked_segment_equals_alone)
{
    enum { ROWS = 192, IN = 172, OUT = 90, R = 8 };
    struct group_case c = {.n = 320 + ROWS,
                           .in = IN,
                           .out = {OUT},
                           .r = {{R}, {3}},
                           .segments = 2,
                           .segment = {{0, 300, 1, {11, 5, 7}}, {320, 320 + ROWS, 0, {12, 5, 8}}},
                           .dropout = 0.1f};
    struct gr_segment only = {0, ROWS, 0, {12, 5, 8}};
    struct rig r;
    struct group group;
    struct results stacked, alone;

    rig_open(&r, NULL, 2);
    make_group(&group, &r, &c);
    stacked = run_last(&r, &group, ROWS);
    group.g.x = gr_tensor_rows(group.g.x, 320, c.n);
    group.g.y = gr_tensor_rows(group.g.y, 320, c.n);
    group.g.s = gr_tensor_rows(group.g.s, 320, c.n);
    group.g.ds = gr_tensor_rows(group.g.ds, 320, c.n);
    group.g.dx = gr_tensor_rows(group.g.dx, 320, c.n);
    group.g.dy = gr_tensor_rows(group.g.dy, 320, c.n);
    group.g.segments = 1;
    group.g.segment = &only;
    alone = run_last(&r, &group, ROWS);
    rig_assert_close("y", stacked.y, alone.y, ROWS * OUT, 1e-5);
    rig_assert_close("dx", stacked.dx, alone.dx, ROWS * IN, 1e-5);
    rig_assert_close("da", stacked.da, alone.da, R * IN, 1e-5);
    rig_assert_close("db", stacked.db, alone.db, OUT * R, 1e-5);
    free_results(&stacked);
    free_results(&alone);
    rig_close(&r);
}
