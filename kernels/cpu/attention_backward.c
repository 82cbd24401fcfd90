/* The backward of attention, without atomics: weights are made again from lse, once for the tasks
 * that own a tile of keys (dk, dv) and once for those that own a tile of queries (dq).
 *   p = exp(scale q.k - lse);  dp = d_o.v;  ds = p (dp - delta),  delta = rowsum(d_o * o)
 *   dv = p^T d_o;  dk = scale ds^T q;  dq = scale ds k
 * Both kinds of task hold p and ds with a row per key and a column per query. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/expf.h"
#include "kernels/cpu/matmul.h"

#include <string.h>

static double dot(const float *x, const float *y, int64_t n)
{
    double lane[GR_LANES] = {0};
    int64_t i = 0;

    for (; i + GR_LANES <= n; i += GR_LANES)
        for (int j = 0; j < GR_LANES; j++)
            lane[j] += (double)x[i + j] * (double)y[i + j];
    for (int j = 0; i + j < n; j++)
        lane[j] += (double)x[i + j] * (double)y[i + j];
    return gr_lanes_sum(lane);
}

static void zero_head_row(gr_tensor t, int64_t row, int64_t head)
{
    memset(gr_row_f32(t, row) + head * t.dim[2], 0, (size_t)t.dim[2] * sizeof(float));
}

/* lse and delta by head, contiguous over rows; zero gradients outside documents. */
static void prepare(const struct gr_attention_memory *memory, const struct gr_attention *a,
                    struct gr_attention_tile t, int64_t head)
{
    int64_t n = a->q.dim[0], head_dim = a->q.dim[2];

    for (int64_t i = t.begin; i < t.end; i++) {
        memory->lse[head * n + i] = gr_row_f32(a->lse, i)[head];
        memory->delta[head * n + i] = (float)dot(gr_row_f32(a->d_o, i) + head * head_dim,
                                                 gr_row_f32(a->o, i) + head * head_dim, head_dim);
        if (gr_in_document(t))
            continue;
        zero_head_row(a->dq, i, head);
        if (head < a->k.dim[1]) {
            zero_head_row(a->dk, i, head);
            zero_head_row(a->dv, i, head);
        }
    }
}

/* One head's part of a document: keys from `key` on against queries from `query` on. */
struct pairs {
    const struct gr_attention *a;
    int64_t doc_end, head, kv_head;
    int64_t key, key_end, query, query_end;
};

/* One key: score -> p and dp -> ds for the queries that see it, zeros for the others. */
static void weigh(float *score, float *dp, int64_t width, const float *lse, const float *delta)
{
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        score[j] = gr_expf(score[j] - lse[j]);
        dp[j] = score[j] * (dp[j] - delta[j]);
    }
}

/* p and ds of these pairs, in the thread's two score tiles. */
static void make_weights(const struct gr_attention_memory *memory, const struct pairs *x,
                         gr_tensor *p, gr_tensor *ds)
{
    const struct gr_attention *a = x->a;
    int64_t keys = x->key_end - x->key, queries = x->query_end - x->query;
    int64_t by_head = x->head * a->q.dim[0] + x->query;

    *p = gr_score_tile(memory, 0, keys, queries);
    *ds = gr_score_tile(memory, 1, keys, queries);
    gr_cpu_matmul_nt(*p, gr_head_rows(a->k, x->kv_head, x->key, x->key_end),
                     gr_head_rows(a->q, x->head, x->query, x->query_end), a->scale, 0.0f);
    gr_cpu_matmul_nt(*ds, gr_head_rows(a->v, x->kv_head, x->key, x->key_end),
                     gr_head_rows(a->d_o, x->head, x->query, x->query_end), 1.0f, 0.0f);
    for (int64_t i = 0; i < keys; i++) {
        int64_t row = x->key + i, end = gr_end_query(a, x->doc_end, row);

        gr_mask_scores(gr_row_f32(*p, i), queries, gr_smaller(row - x->query, queries),
                       end - x->query);
        weigh(gr_row_f32(*p, i), gr_row_f32(*ds, i), queries, memory->lse + by_head,
              memory->delta + by_head);
    }
}

/* dk and dv of a tile of keys: over the heads that read it, over the queries that see it. */
static void key_tile(const struct gr_attention_memory *memory, const struct gr_attention *a,
                     struct gr_attention_tile t, int64_t kv_head)
{
    int64_t group = a->q.dim[1] / a->k.dim[1], last = gr_end_query(a, t.doc_end, t.end - 1);
    gr_tensor dk = gr_head_rows(a->dk, kv_head, t.begin, t.end);
    gr_tensor dv = gr_head_rows(a->dv, kv_head, t.begin, t.end);
    float beta = 0.0f;

    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (int64_t begin = t.begin; begin < last; begin += GR_BLOCK_ROWS) {
            struct pairs x = {.a = a,
                              .doc_end = t.doc_end,
                              .head = head,
                              .kv_head = kv_head,
                              .key = t.begin,
                              .key_end = t.end,
                              .query = begin,
                              .query_end = gr_smaller(last, begin + GR_BLOCK_ROWS)};
            gr_tensor p, ds;

            make_weights(memory, &x, &p, &ds);
            gr_cpu_matmul_nn(dv, p, gr_head_rows(a->d_o, head, x.query, x.query_end), 1.0f, beta);
            gr_cpu_matmul_nn(dk, ds, gr_head_rows(a->q, head, x.query, x.query_end), a->scale,
                             beta);
            beta = 1.0f;
        }
}

/* dq of a tile of queries: over the keys they see. */
static void query_tile(const struct gr_attention_memory *memory, const struct gr_attention *a,
                       struct gr_attention_tile t, int64_t head)
{
    int64_t first = gr_first_key(a, t.doc_begin, t.begin);
    gr_tensor dq = gr_head_rows(a->dq, head, t.begin, t.end);

    for (int64_t begin = first; begin < t.end; begin += GR_BLOCK_ROWS) {
        struct pairs x = {.a = a,
                          .doc_end = t.doc_end,
                          .head = head,
                          .kv_head = head / (a->q.dim[1] / a->k.dim[1]),
                          .key = begin,
                          .key_end = gr_smaller(t.end, begin + GR_BLOCK_ROWS),
                          .query = t.begin,
                          .query_end = t.end};
        gr_tensor p, ds;

        make_weights(memory, &x, &p, &ds);
        gr_cpu_matmul_tn(dq, ds, gr_head_rows(a->k, x.kv_head, x.key, x.key_end), a->scale,
                         begin == first ? 0.0f : 1.0f);
    }
}

void GR_CPU(attention_backward)(struct gr_device *dev, const struct gr_attention *a)
{
    int64_t heads = a->q.dim[1], kv_heads = a->k.dim[1];
    struct gr_attention_memory memory;

    if (!GR_CPU(attention_cut)(&memory, dev, "attention_backward", a))
        return;
#pragma omp parallel num_threads(dev->threads)
    {
#pragma omp for schedule(static)
        for (int64_t task = 0; task < memory.tiles * heads; task++)
            prepare(&memory, a, memory.tile[task / heads], task % heads);
            /* early keys are seen by most queries, late queries see most keys: they come first */
#pragma omp for schedule(dynamic) nowait
        for (int64_t task = 0; task < memory.tiles * kv_heads; task++)
            if (gr_in_document(memory.tile[task / kv_heads]))
                key_tile(&memory, a, memory.tile[task / kv_heads], task % kv_heads);
#pragma omp for schedule(dynamic)
        for (int64_t task = memory.tiles * heads - 1; task >= 0; task--)
            if (gr_in_document(memory.tile[task / heads]))
                query_tile(&memory, a, memory.tile[task / heads], task % heads);
    }
}
