/* The bits of linear groups: with any number of threads, with a backward in two parts, and stacked
 * behind each other. */
#include "kernels/base/alloc.h"
#include "tests/lora_group_case.h"

#include <stdlib.h>

static void run_both(struct rig *r, const struct group_case *c)
{
    struct group group;

    lora_group_make(&group, r, c);
    gr_lora_group_forward(r->dev, &group.g);
    gr_lora_group_backward(r->dev, &group.g);
}

SAME_BITS(lora_group)
{
    run_both(r, &lora_group_mixed);
}

SAME_BITS(lora_group_bf16)
{
    struct group_case c = lora_group_mixed;

    c.dropout = 0.1f;
    c.dtype = GR_BF16;
    run_both(r, &c);
}

SAME_BITS(lora_group_dropout)
{
    struct group_case c = lora_group_mixed;

    c.dropout = 0.1f;
    run_both(r, &c);
}

/* The shape of a real layer: several blocks of columns, tiles of rows and panels. */
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

SAME_BITS(lora_group_model_shape_bf16)
{
    struct group_case c = {.n = 640,
                           .in = 576,
                           .out = {576, 192, 192},
                           .r = {{16, 16, 16}},
                           .segments = 1,
                           .segment = {{0, 640, 0, {1, 2, 3}}},
                           .dtype = GR_BF16};

    run_both(r, &c);
}

/* A tile of a single row, where threads are many: it must not be summed as a lone row is. */
SAME_BITS(lora_group_segment_ends_behind_a_tile)
{
    struct group_case c = {.n = 192,
                           .in = 172,
                           .out = {200},
                           .r = {{8}},
                           .segments = 1,
                           .segment = {{0, 129, 0, {1, 2, 3}}}};

    run_both(r, &c);
}

/* Two slabs, and two segments that meet inside the second. */
SAME_BITS(lora_group_two_slabs)
{
    struct group_case c = {.n = 1152,
                           .in = 40,
                           .out = {48, 16},
                           .r = {{8, 8}, {3, 8}},
                           .segments = 2,
                           .segment = {{0, 1088, 0, {1, 2, 3}}, {1088, 1152, 1, {1, 2, 4}}},
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

/* ---- in two parts ---- */

/* Number i of what a backward leaves: dx, then dA and dB of each adapter and linear. */
static gr_tensor backward_output(const struct gr_lora_group *g, int i)
{
    if (i == 0)
        return g->dx;
    return i % 2 == 1 ? g->lora[(i - 1) / 2].da : g->lora[(i - 1) / 2].db;
}

static void fill_with_nan(struct rig *r, gr_tensor t)
{
    double *values = GR_NEW_ARRAY(double, gr_tensor_count(t));

    for (int64_t i = 0; i < gr_tensor_count(t); i++)
        values[i] = NAN;
    rig_write(r, t, values);
    gr_free(values);
}

/* dA apart, with an x that is there only for it. */
static void check_parts(const struct group_case *c, const char *isa)
{
    enum { OUTPUTS = 1 + 2 * ADAPTERS_MAX * LINEARS_MAX };
    struct rig r;
    struct group group;
    struct gr_lora_group *g = &group.g;
    double *x, *whole[OUTPUTS] = {0};
    int outputs;

    rig_open(&r, isa, 2);
    lora_group_make(&group, &r, c);
    outputs = 1 + 2 * g->adapters * g->linears;
    gr_lora_group_forward(r.dev, g);
    gr_lora_group_backward(r.dev, g);
    x = rig_read(&r, g->x);
    for (int i = 0; i < outputs; i++) {
        gr_tensor output = backward_output(g, i);

        if (gr_tensor_is_none(output))
            continue;
        whole[i] = rig_read(&r, output);
        fill_with_nan(&r, output);
    }
    fill_with_nan(&r, g->x);
    g->part = GR_LORA_BUT_DA;
    gr_lora_group_backward(r.dev, g);
    rig_write(&r, g->x, x);
    g->part = GR_LORA_DA;
    gr_lora_group_backward(r.dev, g);
    for (int i = 0; i < outputs; i++) {
        double *found = whole[i] == NULL ? NULL : rig_read(&r, backward_output(g, i));

        if (found != NULL)
            rig_assert_close("in two parts", found, whole[i],
                             gr_tensor_count(backward_output(g, i)), 0);
        gr_free(found);
        gr_free(whole[i]);
    }
    gr_free(x);
    rig_close(&r);
}

TEST(lora_group_backward_in_two_parts_same_bits)
{
    struct group_case dropped = lora_group_mixed, joined = lora_group_mixed;
    const char *isa;

    dropped.dropout = 0.1f;
    dropped.dtype = GR_BF16;
    joined.joined = true;
    joined.bias = false;
    joined.out[2] = 0;
    joined.segments = 1;
    joined.segment[0] = (struct gr_segment){0, 640, 0, {11, 5, 7}};
    joined.dtype = GR_BF16;
    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        check_parts(&lora_group_mixed, isa);
        check_parts(&dropped, isa);
        check_parts(&joined, isa);
    }
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
    lora_group_make(&group, &r, &c);
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
