/* Attention over packed documents against its f64 twin: lengths around the tiles, gaps, windows,
 * grouped heads, head dimensions, views into one qkv buffer; documents that are refused.
 *
 * Tolerance: scores are sums of HD products and reach about 6; a weight takes over their absolute
 * error (1e-6 at most); o, dq, dk and dv are sums of weights of either sign, so relative to their
 * largest element a few 1e-7 are seen. */
#include "kernels/backend.h"
#include "kernels/base/alloc.h"
#include "tests/attention_case.h"
#include "tests/ref/ref_attention.h"

#include <stdlib.h>

static const double tolerance = 2e-6;

/* Whether the tests are of cuDNN's attention: then what is ours is not tested again. */
static bool tests_cudnn(void)
{
    const char *wanted = getenv("GRAFT_ATTENTION");

    return rig_is_cuda() && wanted != NULL && strcmp(wanted, "cudnn") == 0;
}

/* It computes what it can, and only that. */
static void assert_whose(struct rig *r, const struct gr_attention *a)
{
    const gr_tensor tensors[] = {a->q, a->k, a->v, a->o, a->dq, a->dk, a->dv, a->d_o};
    bool fits = a->q.dtype == GR_BF16 && (a->window == 0 || a->window >= a->q.dim[0]) &&
                a->q.dim[2] % 8 == 0 && a->q.dim[2] <= 128 && a->lse.stride == a->lse.dim[1] &&
                a->docs.dim[0] <= 64;
    char why[512] = "";
    bool is_cudnn;

    if (!tests_cudnn())
        return;
    for (int64_t i = 0; i < GR_COUNT(tensors); i++)
        fits = fits && tensors[i].stride % 8 == 0 && (uintptr_t)tensors[i].data % 16 == 0;
    is_cudnn = r->dev->ops->attention_is_cudnn(r->dev, a, why, sizeof why);
    ASSERT_MSG(is_cudnn == fits, "attention is %s, expected %s: %s", is_cudnn ? "cuDNN's" : "ours",
               fits ? "cuDNN's" : "ours", why);
}

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

    rig_assert_stored(what, t.dtype, found, expected, gr_tensor_count(t),
                      tolerance + rig_factor_rounding(r, t.dtype));
    gr_free(found);
}

static void check_isa(const struct attention_case *c, const char *isa)
{
    struct rig r;
    struct gr_attention a;
    struct ref_attention twin;
    double *array[ARRAYS];

    rig_open(&r, isa, 2);
    a = attention_make(&r, c);
    assert_whose(&r, &a);
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

/* In f32, unless it says bf16, and in bf16. */
static void check_case(const struct attention_case *c)
{
    struct attention_case stored = *c;
    const char *isa;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        if (c->dtype == GR_F32 && !tests_cudnn())
            check_isa(c, isa);
        stored.dtype = GR_BF16;
        check_isa(&stored, isa);
    }
}

TEST(attention_packed_documents_equal_twin)
{
    struct attention_case c = {ATTENTION_PACKED, .heads = 2, .kv_heads = 1, .head_dim = 16};

    check_case(&c);
    c.separate = true;
    check_case(&c);
}

TEST(attention_windows_equal_twin)
{
    static const int64_t windows[] = {2, 5, 64, 290, 1000};
    struct attention_case c = {ATTENTION_PACKED, .heads = 2, .kv_heads = 2, .head_dim = 16};

    if (tests_cudnn())
        SKIP("cuDNN computes no window; one of wide heads shows it");
    for (int64_t i = 0; i < GR_COUNT(windows); i++) {
        c.window = windows[i];
        check_case(&c);
    }
}

/* Window 1: each row sees itself alone.  dq and dk are 0 but for the rounding of dp - delta, so
 * they have no largest element to be measured by; dp is about 5. */
TEST(attention_window_of_one_equals_twin)
{
    struct attention_case c = {ATTENTION_PACKED, .heads = 2, .kv_heads = 1, .head_dim = 8,
                               .window = 1};
    struct rig r;
    struct gr_attention a;
    struct ref_attention twin;
    double *array[ARRAYS], *dq, *dk;

    if (tests_cudnn())
        SKIP("cuDNN computes no window");
    rig_open(&r, NULL, 2);
    a = attention_make(&r, &c);
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
        /* CUDA's f32 has one kernel for all of them, and emulation takes long */
        c.dtype = rig_is_cuda() && dims[i] > 64 ? GR_BF16 : GR_F32;
        check_case(&c);
    }
}

/* What CUDA has tensor cores for: bf16, head dimensions of 16, 32, 64 and 128, rows at multiples of
 * 16 bytes. */
TEST(attention_wide_heads_of_packed_documents_equal_twin)
{
    static const struct {
        int64_t head_dim, heads, kv_heads, window;
        int gap;
    } cases[] = {{16, 2, 1, 0, 16}, {32, 4, 2, 0, 0},  {32, 3, 3, 100, 0}, {64, 2, 1, 0, 16},
                 {64, 1, 1, 70, 0}, {128, 2, 1, 0, 0}, {128, 1, 1, 33, 16}};

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        struct attention_case c = {ATTENTION_PACKED,
                                   .heads = cases[i].heads,
                                   .kv_heads = cases[i].kv_heads,
                                   .head_dim = cases[i].head_dim,
                                   .window = cases[i].window,
                                   .separate = cases[i].gap != 0,
                                   .gap = cases[i].gap,
                                   .dtype = GR_BF16};

        if (!tests_cudnn() || c.window == 0 || c.head_dim == 32) /* one window: it is ours */
            check_case(&c);
    }
}

TEST(attention_many_short_documents_equal_twin)
{
    static const int counts[] = {40, DOCUMENTS_MAX};
    struct attention_case c = {.n = 320, .heads = 2, .kv_heads = 1, .head_dim = 16};

    for (int64_t i = 0; i < GR_COUNT(counts); i++) {
        c.documents = counts[i];
        for (int d = 0; d < c.documents; d++) {
            c.docs[d][0] = 4 * d;
            c.docs[d][1] = 4 * d + 1 + d % 4;
        }
        check_case(&c);
    }
}

/* Rows that do not fill the last tile of 128. */
TEST(attention_few_rows_equal_twin)
{
    static const int64_t rows[] = {64, 192};
    struct attention_case c = {.documents = 1, .heads = 4, .kv_heads = 2, .head_dim = 32};

    for (int64_t i = 0; i < GR_COUNT(rows); i++) {
        c.n = rows[i];
        c.docs[0][1] = (int32_t)rows[i];
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
    a = attention_make(&r, &c);
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
static void check_large_scores(const struct attention_case *c)
{
    struct rig r;
    struct gr_attention a;
    struct ref_attention twin;
    double *array[ARRAYS], *found;

    rig_open(&r, NULL, 2);
    a = attention_make(&r, c);
    a.scale = 40;
    twin = make_twin(&r, c, &a, array);
    gr_attention_forward(r.dev, &a);
    ref_attention_forward(&twin);
    found = rig_read(&r, a.o);
    /* a score of 1,000 has an f32 error of 6e-5 and more, which a weight takes over */
    rig_assert_stored("o", c->dtype, found, twin.o, c->n * c->head_dim,
                      1e-3 + rig_factor_rounding(&r, c->dtype));
    gr_free(found);
    rig_close(&r);
    for (int i = 0; i < ARRAYS; i++)
        gr_free(array[i]);
}

TEST(attention_large_scores_equal_twin)
{
    struct attention_case c = {
        .n = 576, .documents = 1, .docs = {{0, 570}}, .heads = 1, .kv_heads = 1, .head_dim = 8};

    check_large_scores(&c);
    c.dtype = GR_BF16;
    c.head_dim = 16;
    check_large_scores(&c);
}

TEST(attention_bad_documents_make_device_fail)
{
    static const int32_t bad[][2][2] = {{{0, 30}, {20, 40}}, {{0, 30}, {30, 129}}, {{30, 20}}};

    if (rig_is_cuda())
        SKIP("documents lie in the GPU's memory, where nobody checks them");
    for (int k = 0; k < 3; k++) {
        struct attention_case c = {
            .n = 128, .heads = 1, .kv_heads = 1, .head_dim = 8, .documents = 2};
        struct rig r;
        struct gr_attention a;

        memcpy(c.docs, bad[k], sizeof bad[k]);
        rig_open(&r, NULL, 1);
        a = attention_make(&r, &c);
        gr_attention_forward(r.dev, &a);
        ASSERT_INT(gr_device_status(r.dev), GR_ERR_BUG);
        ASSERT_MSG(strstr(gr_error_message(), "document") != NULL, "%s", gr_error_message());
        gr_device_arena_release(r.dev, &r.workspace);
        gr_device_arena_release(r.dev, &r.arena);
        gr_device_destroy(r.dev);
    }
}
