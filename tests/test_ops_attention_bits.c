/* Attention over packed documents: the same bits over thread counts, and wherever a document lies
 * and whatever stands in others. */
#include "kernels/base/alloc.h"
#include "tests/attention_case.h"

static void run_both(struct rig *r, const struct attention_case *c)
{
    struct gr_attention a = attention_make(r, c);

    gr_attention_forward(r->dev, &a);
    gr_attention_backward(r->dev, &a);
}

SAME_BITS(attention)
{
    struct attention_case c = {ATTENTION_PACKED, .heads = 6, .kv_heads = 2, .head_dim = 18};

    run_both(r, &c);
}

SAME_BITS(attention_bf16)
{
    struct attention_case c = {ATTENTION_PACKED, .heads = 6, .kv_heads = 2,
                               .head_dim = rig_is_cuda() ? 16 : 18, .dtype = GR_BF16};

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
                               .window = 333,
                               .dtype = rig_is_cuda() ? GR_BF16 : GR_F32}; /* those have tiles */

    run_both(r, &c);
}

/* ---- what lies elsewhere ---- */

enum { RESULTS = 5 };

static void run_results(struct rig *r, const struct gr_attention *a, gr_tensor results[RESULTS])
{
    const gr_tensor all[RESULTS] = {a->o, a->lse, a->dq, a->dk, a->dv};

    gr_attention_forward(r->dev, a);
    gr_attention_backward(r->dev, a);
    memcpy(results, all, sizeof all);
}

static void keep_rows(struct rig *r, gr_tensor results[RESULTS], int64_t begin, int64_t end,
                      double *kept[RESULTS])
{
    for (int i = 0; i < RESULTS; i++)
        kept[i] = rig_read(r, gr_tensor_rows(results[i], begin, end));
}

/* They are the same bits; frees what was kept. */
static void assert_rows(struct rig *r, gr_tensor results[RESULTS], int64_t begin, int64_t end,
                        double *kept[RESULTS])
{
    for (int i = 0; i < RESULTS; i++) {
        gr_tensor rows = gr_tensor_rows(results[i], begin, end);
        double *found = rig_read(r, rows);

        rig_assert_close("result", found, kept[i], gr_tensor_count(rows), 0);
        gr_free(found);
        gr_free(kept[i]);
    }
}

/* A document's rows are the same bits wherever it lies: o, lse and the gradients. */
static void check_elsewhere(const struct attention_case *c, int64_t at)
{
    int64_t length = c->docs[0][1];
    double docs[] = {(double)at, (double)(at + length)}, *kept[RESULTS];
    struct rig r;
    struct gr_attention a;
    gr_tensor results[RESULTS], *moved[] = {&a.q, &a.k, &a.v, &a.d_o};

    rig_open(&r, NULL, 2);
    a = attention_make(&r, c);
    run_results(&r, &a, results);
    keep_rows(&r, results, 0, length, kept);
    for (int i = 0; i < 4; i++) {
        double *values = rig_read(&r, gr_tensor_rows(*moved[i], 0, length));

        rig_write(&r, gr_tensor_rows(*moved[i], at, at + length), values);
        gr_free(values);
    }
    rig_write(&r, a.docs, docs);
    run_results(&r, &a, results);
    assert_rows(&r, results, at, at + length, kept);
    rig_close(&r);
}

TEST(attention_document_elsewhere_same_bits)
{
    struct attention_case c = {.n = 256,
                               .documents = 1,
                               .docs = {{0, 150}},
                               .heads = 4,
                               .kv_heads = 2,
                               .head_dim = 16,
                               .separate = true,
                               .gap = 16};

    check_elsewhere(&c, 64);
    c.dtype = GR_BF16;
    check_elsewhere(&c, 64);
}

/* Documents of segments on either side of one whose rows are NaN. */
TEST(attention_nan_in_another_segment_same_bits)
{
    enum { BEGIN = 64, END = 128 };
    struct attention_case c = {.n = 192,
                               .documents = 3,
                               .docs = {{0, 50}, {64, 128}, {130, 180}},
                               .heads = 2,
                               .kv_heads = 1,
                               .head_dim = 32,
                               .dtype = GR_BF16};
    struct rig r;
    struct gr_attention a;
    gr_tensor results[RESULTS], *poisoned[] = {&a.q, &a.k, &a.v, &a.d_o};
    double *before[RESULTS], *behind[RESULTS], nan[(END - BEGIN) * 2 * 32];

    for (int64_t i = 0; i < GR_COUNT(nan); i++)
        nan[i] = (double)NAN;
    rig_open(&r, NULL, 2);
    a = attention_make(&r, &c);
    run_results(&r, &a, results);
    keep_rows(&r, results, 0, BEGIN, before);
    keep_rows(&r, results, END, c.n, behind);
    for (int i = 0; i < 4; i++)
        rig_write(&r, gr_tensor_rows(*poisoned[i], BEGIN, END), nan);
    run_results(&r, &a, results);
    assert_rows(&r, results, 0, BEGIN, before);
    assert_rows(&r, results, END, c.n, behind);
    rig_close(&r);
}
