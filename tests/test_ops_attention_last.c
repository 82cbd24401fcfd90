/* Attention of one query, as generation has it, against its f64 twin and over thread counts.
 *
 * Tolerance: that of test_ops_attention.c. */
#include "kernels/base/alloc.h"
#include "tests/ref/ref_attention.h"
#include "tests/rig.h"

static const double tolerance = 2e-6;

struct last_case {
    int64_t keys, heads, kv_heads, head_dim, gap;
    enum gr_dtype dtype;
};

static gr_tensor one_query(const struct last_case *c, int64_t rows, int64_t heads)
{
    return gr_tensor_3d(NULL, c->dtype, rows, heads, c->head_dim);
}

struct last {
    gr_tensor o, q, k, v;
    float scale;
};

static struct last make_last(struct rig *r, const struct last_case *c)
{
    return (struct last){
        .o = rig_tensor(r, one_query(c, 1, c->heads), c->gap),
        .q = rig_random(r, one_query(c, 1, c->heads), c->gap, -2, 2),
        .k = rig_random(r, one_query(c, c->keys, c->kv_heads), c->gap, -2, 2),
        .v = rig_random(r, one_query(c, c->keys, c->kv_heads), 2 * c->gap, -2, 2),
        .scale = 1 / sqrtf((float)c->head_dim),
    };
}

/* The twin has a query per key; its last one is ours, the others are 0. */
static void check_last(const struct last_case *c, const char *isa)
{
    int64_t wide = c->heads * c->head_dim, others = (c->keys - 1) * wide;
    const int32_t docs[2] = {0, (int32_t)c->keys};
    double *array[6], *query, *found;
    struct ref_attention twin;
    struct last a;
    struct rig r;

    rig_open(&r, isa, 2);
    a = make_last(&r, c);
    query = rig_read(&r, a.q);
    array[0] = GR_NEW_ARRAY(double, c->keys *wide);
    memcpy(array[0] + others, query, (size_t)wide * sizeof *query);
    array[1] = rig_read(&r, a.k);
    array[2] = rig_read(&r, a.v);
    array[3] = GR_NEW_ARRAY(double, c->keys *wide);
    array[4] = GR_NEW_ARRAY(double, c->keys * c->heads);
    array[5] = query;
    twin = (struct ref_attention){.n = c->keys,
                                  .heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .documents = 1,
                                  .docs = docs,
                                  .scale = (double)a.scale,
                                  .q = array[0],
                                  .k = array[1],
                                  .v = array[2],
                                  .o = array[3],
                                  .lse = array[4]};
    ref_attention_forward(&twin);
    gr_attention_last(r.dev, a.o, a.q, a.k, a.v, a.scale);
    found = rig_read(&r, a.o);
    rig_assert_stored("o", a.o.dtype, found, twin.o + others, wide,
                      tolerance + rig_factor_rounding(&r, a.o.dtype));
    gr_free(found);
    rig_close(&r);
    for (int i = 0; i < 6; i++)
        gr_free(array[i]);
}

TEST(attention_last_awkward_shapes_equal_twin)
{
    static const struct last_case cases[] = {
        {1, 1, 1, 8, 0, GR_F32},    {2, 2, 1, 16, 3, GR_F32},  {7, 3, 3, 18, 0, GR_F32},
        {64, 4, 2, 16, 5, GR_F32},  {255, 6, 2, 8, 1, GR_F32}, {256, 9, 3, 64, 0, GR_F32},
        {257, 4, 1, 18, 7, GR_F32}, {513, 2, 2, 8, 0, GR_F32}, {600, 8, 4, 16, 9, GR_F32},
        {40, 2, 1, 128, 0, GR_F32},
    };
    const char *isa;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        for (int64_t k = 0; k < GR_COUNT(cases); k++) {
            struct last_case c = cases[k];

            check_last(&c, isa);
            c.dtype = GR_BF16;
            check_last(&c, isa);
        }
    }
}

SAME_BITS(attention_last)
{
    struct last_case c = {.keys = 600, .heads = 9, .kv_heads = 3, .head_dim = 64, .gap = 2};
    struct last a = make_last(r, &c);

    gr_attention_last(r->dev, a.o, a.q, a.k, a.v, a.scale);
}
