/* Attention over packed documents against its f64 twin: lengths around the tiles, gaps, windows,
 * grouped heads, head dimensions, views into one qkv buffer; then thread counts, and a document
 * packed behind others.
 *
 * Tolerance: scores are sums of HD products and reach about 6; a weight takes over their absolute
 * error (1e-6 at most); o, dq, dk and dv are sums of weights of either sign, so relative to their
 * largest element a few 1e-7 are seen. */
#include "kernels/base/alloc.h"
#include "tests/ref/ref_attention.h"
#include "tests/rig.h"

static const double tolerance = 2e-6;

enum { DOCUMENTS_MAX = 9 };

struct attention_case {
    int64_t n, heads, kv_heads, head_dim;
    int documents;
    int32_t docs[DOCUMENTS_MAX][2];
    int64_t window;
    enum gr_dtype dtype;
    bool separate; /* q, k, v tensors of their own; else columns of one qkv buffer */
};

static gr_tensor activations(const struct attention_case *c, int64_t heads)
{
    return gr_tensor_3d(NULL, c->dtype, c->n, heads, c->head_dim);
}

/* q, k, v (or their gradients) as columns of one buffer. */
static void split(gr_tensor buffer, const struct attention_case *c, gr_tensor *q, gr_tensor *k,
                  gr_tensor *v)
{
    int64_t wide = c->heads * c->head_dim, narrow = c->kv_heads * c->head_dim;

    *q = gr_tensor_heads(gr_tensor_columns(buffer, 0, wide), c->heads);
    *k = gr_tensor_heads(gr_tensor_columns(buffer, wide, wide + narrow), c->kv_heads);
    *v = gr_tensor_heads(gr_tensor_columns(buffer, wide + narrow, wide + 2 * narrow), c->kv_heads);
}

static struct gr_attention make_attention(struct rig *r, const struct attention_case *c)
{
    struct gr_attention a = {.scale = 1 / sqrtf((float)c->head_dim), .window = c->window};
    int64_t wide = c->heads * c->head_dim, narrow = c->kv_heads * c->head_dim;
    double docs[2 * DOCUMENTS_MAX];

    for (int d = 0; d < 2 * c->documents; d++)
        docs[d] = c->docs[d / 2][d % 2];
    a.docs = rig_tensor(r, gr_tensor_2d(NULL, GR_I32, c->documents, 2), 0);
    rig_write(r, a.docs, docs);
    if (c->separate) {
        a.q = rig_random(r, activations(c, c->heads), 3, -2, 2);
        a.k = rig_random(r, activations(c, c->kv_heads), 0, -2, 2);
        a.v = rig_random(r, activations(c, c->kv_heads), 1, -2, 2);
        a.dq = rig_tensor(r, activations(c, c->heads), 0);
        a.dk = rig_tensor(r, activations(c, c->kv_heads), 5);
        a.dv = rig_tensor(r, activations(c, c->kv_heads), 0);
    } else {
        gr_tensor qkv = gr_tensor_2d(NULL, c->dtype, c->n, wide + 2 * narrow);

        split(rig_random(r, qkv, 0, -2, 2), c, &a.q, &a.k, &a.v);
        split(rig_tensor(r, qkv, 0), c, &a.dq, &a.dk, &a.dv);
    }
    a.o = rig_tensor(r, activations(c, c->heads), c->separate ? 2 : 0);
    a.d_o = rig_random(r, activations(c, c->heads), c->separate ? 7 : 0, -1, 1);
    a.lse = rig_tensor(r, gr_tensor_2d(NULL, GR_F32, c->n, c->heads), c->separate ? 1 : 0);
    rig_set_workspace(r, gr_attention_workspace_bytes(r->dev, c->n, c->heads, c->head_dim));
    return a;
}

/* ---- against the twin ---- */

enum { ARRAYS = 10 };

static struct ref_attention make_twin(struct rig *r, const struct attention_case *c,
                                      const struct gr_attention *a, double *array[ARRAYS])
{
    int64_t wide = c->n * c->heads * c->head_dim, narrow = c->n * c->kv_heads * c->head_dim;
    int64_t made[] = {wide, c->n * c->heads, wide, narrow, narrow};

    array[0] = rig_read(r, a->q);
    array[1] = rig_read(r, a->k);
    array[2] = rig_read(r, a->v);
    array[3] = rig_read(r, a->d_o);
    for (int i = 0; i < 5; i++)
        array[4 + i] = GR_NEW_ARRAY(double, made[i]);
    array[9] = NULL;
    return (struct ref_attention){.n = c->n,
                                  .heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .documents = c->documents,
                                  .window = c->window,
                                  .docs = c->docs[0],
                                  .scale = (double)a->scale,
                                  .q = array[0],
                                  .k = array[1],
                                  .v = array[2],
                                  .d_o = array[3],
                                  .o = array[4],
                                  .lse = array[5],
                                  .dq = array[6],
                                  .dk = array[7],
                                  .dv = array[8]};
}

static void assert_tensor(const char *what, struct rig *r, gr_tensor t, const double *expected)
{
    double *found = rig_read(r, t);

    rig_assert_stored(what, t.dtype, found, expected, gr_tensor_count(t), tolerance);
    gr_free(found);
}

static void check_isa(const struct attention_case *c, const char *isa)
{
    struct rig r;
    struct gr_attention a;
    struct ref_attention twin;
    double *array[ARRAYS];

    rig_open(&r, isa, 2);
    a = make_attention(&r, c);
    twin = make_twin(&r, c, &a, array);
    gr_attention_forward(r.dev, &a);
    ref_attention_forward(&twin);
    assert_tensor("o", &r, a.o, twin.o);
    assert_tensor("lse", &r, a.lse, twin.lse);
    gr_free(array[4]); /* the backward reads o as it is stored */
    twin.o = array[4] = rig_read(&r, a.o);
    gr_attention_backward(r.dev, &a);
    ref_attention_backward(&twin);
    assert_tensor("dq", &r, a.dq, twin.dq);
    assert_tensor("dk", &r, a.dk, twin.dk);
    assert_tensor("dv", &r, a.dv, twin.dv);
    rig_close(&r);
    for (int i = 0; i < ARRAYS; i++)
        gr_free(array[i]);
}

static void check_case(const struct attention_case *c)
{
    struct attention_case stored = *c;
    const char *isa;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        check_isa(c, isa);
        stored.dtype = GR_BF16;
        check_isa(&stored, isa);
    }
}

/* Lengths 1, 2, 63, 64, 65 and 300, empty documents, gaps before, between and behind. */
#define PACKED                                                                                     \
    .n = 576, .documents = 9, .docs = {{0, 0},     {3, 4},     {4, 6},     {10, 73},  {73, 137},   \
                                       {137, 137}, {137, 202}, {210, 510}, {510, 510}}

TEST(attention_packed_documents_equal_twin)
{
    struct attention_case c = {PACKED, .heads = 2, .kv_heads = 1, .head_dim = 16};

    check_case(&c);
    c.separate = true;
    check_case(&c);
}

TEST(attention_windows_equal_twin)
{
    static const int64_t windows[] = {2, 5, 64, 290, 1000};
    struct attention_case c = {PACKED, .heads = 2, .kv_heads = 2, .head_dim = 8};

    for (int64_t i = 0; i < GR_COUNT(windows); i++) {
        c.window = windows[i];
        check_case(&c);
    }
}

/* Window 1: each row sees itself alone.  dq and dk are 0 but for the rounding of dp - delta, so
 * they have no largest element to be measured by; dp is about 5. */
TEST(attention_window_of_one_equals_twin)
{
    struct attention_case c = {PACKED, .heads = 2, .kv_heads = 1, .head_dim = 8, .window = 1};
    struct rig r;
    struct gr_attention a;
    struct ref_attention twin;
    double *array[ARRAYS], *dq, *dk;

    rig_open(&r, NULL, 2);
    a = make_attention(&r, &c);
    twin = make_twin(&r, &c, &a, array);
    gr_attention_forward(r.dev, &a);
    ref_attention_forward(&twin);
    assert_tensor("o", &r, a.o, twin.o);
    assert_tensor("lse", &r, a.lse, twin.lse);
    gr_attention_backward(r.dev, &a);
    ref_attention_backward(&twin);
    assert_tensor("dv", &r, a.dv, twin.dv);
    dq = rig_read(&r, a.dq);
    dk = rig_read(&r, a.dk);
    for (int64_t i = 0; i < c.n * 8; i++) {
        ASSERT_NEAR(dq[i], 0, 5e-6);
        ASSERT_NEAR(dk[i], 0, 5e-6);
    }
    gr_free(dq);
    gr_free(dk);
    rig_close(&r);
    for (int i = 0; i < ARRAYS; i++)
        gr_free(array[i]);
}

TEST(attention_grouped_heads_equal_twin)
{
    static const int64_t heads[][2] = {{1, 1}, {3, 1}, {4, 1}, {3, 3}, {8, 2}};
    struct attention_case c = {
        .n = 192, .documents = 2, .docs = {{0, 100}, {100, 190}}, .head_dim = 18};

    for (int64_t i = 0; i < GR_COUNT(heads); i++) {
        c.heads = heads[i][0];
        c.kv_heads = heads[i][1];
        check_case(&c);
    }
}

TEST(attention_head_dims_equal_twin)
{
    static const int64_t dims[] = {8, 16, 18, 64, 128};
    struct attention_case c = {
        .n = 320, .documents = 1, .docs = {{0, 320}}, .heads = 3, .kv_heads = 1};

    for (int64_t i = 0; i < GR_COUNT(dims); i++) {
        c.head_dim = dims[i];
        check_case(&c);
    }
}

/* No document: everything is zero. */
TEST(attention_no_document_is_zero)
{
    struct attention_case c = {.n = 128, .heads = 2, .kv_heads = 1, .head_dim = 8};
    struct rig r;
    struct gr_attention a;
    double zero[128 * 16] = {0};

    rig_open(&r, NULL, 2);
    a = make_attention(&r, &c);
    gr_attention_forward(r.dev, &a);
    gr_attention_backward(r.dev, &a);
    assert_tensor("o", &r, a.o, zero);
    assert_tensor("lse", &r, a.lse, zero);
    assert_tensor("dq", &r, a.dq, zero);
    assert_tensor("dk", &r, a.dk, zero);
    assert_tensor("dv", &r, a.dv, zero);
    rig_close(&r);
}

/* Scores of 300 and more: weights must not overflow, nor the first block's be lost. */
TEST(attention_large_scores_equal_twin)
{
    struct attention_case c = {
        .n = 576, .documents = 1, .docs = {{0, 570}}, .heads = 1, .kv_heads = 1, .head_dim = 8};
    struct rig r;
    struct gr_attention a;
    struct ref_attention twin;
    double *array[ARRAYS], *found;

    rig_open(&r, NULL, 2);
    a = make_attention(&r, &c);
    a.scale = 40;
    twin = make_twin(&r, &c, &a, array);
    gr_attention_forward(r.dev, &a);
    ref_attention_forward(&twin);
    found = rig_read(&r, a.o);
    /* a score of 1,000 has an f32 error of 6e-5 and more, which a weight takes over */
    rig_assert_close("o", found, twin.o, c.n * 8, 1e-3);
    gr_free(found);
    rig_close(&r);
    for (int i = 0; i < ARRAYS; i++)
        gr_free(array[i]);
}

TEST(attention_bad_documents_make_device_fail)
{
    static const int32_t bad[][2][2] = {{{0, 30}, {20, 40}}, {{0, 30}, {30, 129}}, {{30, 20}}};

    for (int k = 0; k < 3; k++) {
        struct attention_case c = {
            .n = 128, .heads = 1, .kv_heads = 1, .head_dim = 8, .documents = 2};
        struct rig r;
        struct gr_attention a;

        memcpy(c.docs, bad[k], sizeof bad[k]);
        rig_open(&r, NULL, 1);
        a = make_attention(&r, &c);
        gr_attention_forward(r.dev, &a);
        ASSERT_INT(gr_device_status(r.dev), GR_ERR_BUG);
        ASSERT_MSG(strstr(gr_error_message(), "document") != NULL, "%s", gr_error_message());
        gr_device_arena_release(r.dev, &r.workspace);
        gr_device_arena_release(r.dev, &r.arena);
        gr_device_destroy(r.dev);
    }
}

/* ---- one query ---- */

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
    double *array[6], *query;
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
    assert_tensor("o", &r, a.o, twin.o + others);
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

/* ---- bits ---- */

SAME_BITS(attention_last)
{
    struct last_case c = {.keys = 600, .heads = 9, .kv_heads = 3, .head_dim = 64, .gap = 2};
    struct last a = make_last(r, &c);

    gr_attention_last(r->dev, a.o, a.q, a.k, a.v, a.scale);
}

static void run_both(struct rig *r, const struct attention_case *c)
{
    struct gr_attention a = make_attention(r, c);

    gr_attention_forward(r->dev, &a);
    gr_attention_backward(r->dev, &a);
}

SAME_BITS(attention)
{
    struct attention_case c = {PACKED, .heads = 6, .kv_heads = 2, .head_dim = 18};

    run_both(r, &c);
}

SAME_BITS(attention_bf16)
{
    struct attention_case c = {PACKED, .heads = 6, .kv_heads = 2, .head_dim = 18, .dtype = GR_BF16};

    run_both(r, &c);
}

SAME_BITS(attention_one_document)
{
    struct attention_case c = {.n = 640,
                               .documents = 1,
                               .docs = {{0, 610}},
                               .heads = 3,
                               .kv_heads = 1,
                               .head_dim = 64,
                               .window = 333};

    run_both(r, &c);
}

/* A document's rows are the same bits wherever it lies: o, lse and the gradients. */
TEST(attention_document_elsewhere_same_bits)
{
    enum { LENGTH = 150, AT = 64 };
    struct attention_case c = {.n = 256,
                               .documents = 1,
                               .docs = {{0, LENGTH}},
                               .heads = 4,
                               .kv_heads = 2,
                               .head_dim = 16,
                               .separate = true};
    struct rig r;
    struct gr_attention a;
    double docs[] = {AT, AT + LENGTH};
    gr_tensor *shifted[] = {&a.q, &a.k, &a.v, &a.d_o};
    gr_tensor *results[] = {&a.o, &a.lse, &a.dq, &a.dk, &a.dv};
    double *first[5];

    rig_open(&r, NULL, 2);
    a = make_attention(&r, &c);
    gr_attention_forward(r.dev, &a);
    gr_attention_backward(r.dev, &a);
    for (int i = 0; i < 5; i++)
        first[i] = rig_read(&r, gr_tensor_rows(*results[i], 0, LENGTH));
    for (int i = 0; i < 4; i++) { /* the document moves down */
        double *values = rig_read(&r, gr_tensor_rows(*shifted[i], 0, LENGTH));

        rig_write(&r, gr_tensor_rows(*shifted[i], AT, AT + LENGTH), values);
        gr_free(values);
    }
    rig_write(&r, a.docs, docs);
    gr_attention_forward(r.dev, &a);
    gr_attention_backward(r.dev, &a);
    for (int i = 0; i < 5; i++) {
        gr_tensor moved = gr_tensor_rows(*results[i], AT, AT + LENGTH);
        double *found = rig_read(&r, moved);

        rig_assert_close("result", found, first[i], gr_tensor_count(moved), 0);
        gr_free(found);
        gr_free(first[i]);
    }
    rig_close(&r);
}
