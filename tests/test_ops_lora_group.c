/* Linear groups against their f64 twin: awkward widths, adapters of mixed R, several segments,
 * dropout.  Their bits are those of test_ops_lora_bits.c.
 *
 * Tolerance: an element is a sum of up to 640 products of numbers of either sign.  Its rounding
 * error grows like the square root of their number, as does the largest element, so the quotient
 * stays at a few roundings of f32 (6e-8); dA and dB sum over rows what was rounded once before. */
#include "kernels/base/alloc.h"
#include "tests/lora_group_case.h"
#include "tests/ref/ref_lora_group.h"

#include <stdlib.h>

static const double tolerance = 1.5e-6;

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

/* rounding: as rig_factor_rounding */
static void assert_tensor(const char *what, struct rig *r, double rounding, gr_tensor t,
                          const double *expected)
{
    double *found = rig_read(r, t);

    rig_assert_stored(what, t.dtype, found, expected, gr_tensor_count(t), tolerance + rounding);
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
    rig_assert_stored(what, s.dtype, found, expected, gr_tensor_count(s),
                      tolerance + rig_factor_rounding(r, s.dtype));
    return found;
}

static void check_gradients(struct rig *r, const struct gr_lora_group *g, const struct twin *t)
{
    double rounding = rig_factor_rounding(r, g->x.dtype);

    for (int s = 0; s < g->segments; s++)
        for (int i = 0; i < g->linears && g->segment[s].adapter >= 0; i++) {
            int at = g->segment[s].adapter * g->linears + i;

            if (t->lora[at].r == 0)
                continue;
            assert_tensor("da", r, rounding, g->lora[at].da, t->lora[at].da);
            assert_tensor("db", r, rounding, g->lora[at].db, t->lora[at].db);
        }
}

static void check_case(const struct group_case *c, const char *isa, int threads)
{
    struct rig r;
    struct group group;
    struct twin twin;
    bool rounds_once = c->joined && c->dropout == 0 && !c->bias && strcmp(isa, "cuda") == 0;
    double rounding;

    rig_open(&r, isa, threads);
    rounding = rounds_once ? 0 : rig_factor_rounding(&r, c->dtype);
    lora_group_make(&group, &r, c);
    make_twin(&twin, &r, &group.g);
    gr_lora_group_forward(r.dev, &group.g);
    twin.g.s = check_s("s", &r, &twin, group.g.s, ref_lora_group_s);
    ref_lora_group_forward(&twin.g);
    assert_tensor("y", &r, rounding, group.g.y, twin.g.y);
    gr_lora_group_backward(r.dev, &group.g);
    twin.g.ds = check_s("ds", &r, &twin, group.g.ds, ref_lora_group_ds);
    ref_lora_group_backward(&twin.g);
    if (!c->no_dx)
        assert_tensor("dx", &r, rounding, group.g.dx, twin.g.dx);
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

TEST(lora_group_mixed_segments_equal_twin)
{
    each_isa(&lora_group_mixed);
}

/* Widths and rows of whole tiles: operands that are multiplied as they lie. */
TEST(lora_group_whole_tiles_equal_twin)
{
    struct group_case c = {.n = 256,
                           .in = 160,
                           .out = {128, 64, 96},
                           .r = {{8, 4, 16}, {3, 8, 0}},
                           .segments = 2,
                           .segment = {{0, 150, 0, {11, 5, 7}}, {192, 256, 1, {5, 6, 7}}},
                           .residual = true,
                           .gap = 2};

    each_isa(&c);
}

TEST(lora_group_dropout_equals_twin)
{
    struct group_case c = lora_group_mixed;

    c.dropout = 0.1f;
    each_isa(&c);
    c.no_dx = true;
    each_isa(&c);
}

/* Wider than the tile of masked x, and than one run of masks; then longer than x is masked at a
 * time. */
TEST(lora_group_large_dropout_equals_twin)
{
    struct group_case c = {.n = 64,
                           .in = 1333,
                           .out = {5},
                           .r = {{2}},
                           .segments = 1,
                           .segment = {{0, 64, 0, {1, 2, 3}}},
                           .dropout = 0.5f};

    each_isa(&c);
    c.in = 7;
    c.n = c.segment[0].row_end = 2112;
    each_isa(&c);
}

/* Where adapters and weights are one matrix, their products are too; rows without a segment. */
TEST(lora_group_joined_equals_twin)
{
    struct group_case c = {.n = 192,
                           .in = 172,
                           .out = {200, 7, 33},
                           .r = {{8, 3, 5}},
                           .segments = 1,
                           .segment = {{0, 192, 0, {1, 2, 3}}},
                           .joined = true,
                           .gap = 5};

    each_isa(&c);
    c.out[2] = 0; /* the others have one scale */
    each_isa(&c);
    c.out[2] = 33;
    c.r[0][1] = 0;
    c.residual = true;
    c.segment[0] = (struct gr_segment){64, 150, 0, {1, 2, 3}};
    each_isa(&c);
    c.bias = true;
    c.dropout = 0.1f;
    each_isa(&c);
}

TEST(lora_group_evaluation_drops_nothing)
{
    struct group_case c = lora_group_mixed;

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
    lora_group_make(&group, &r, &lora_group_mixed);
    gr_lora_group_forward(r.dev, &group.g);
    s = rig_read(&r, group.g.s);
    for (int64_t row = 0; row < lora_group_mixed.n; row++)
        for (int64_t j = 0; j < 28; j++) { /* the linears' largest R: 16, 4, 8 */
            bool first = row >= 64 && row < 350, last = row >= 384 && row < 576;
            bool used = (first && (j < 17 || j >= 20)) || (last && (j < 8 || (j >= 20 && j < 23)));

            ASSERT_MSG((s[row * 28 + j] != 0) == used, "s[%" PRId64 ", %" PRId64 "] is %g", row, j,
                       s[row * 28 + j]);
        }
    gr_free(s);
    rig_close(&r);
}
