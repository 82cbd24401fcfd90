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

/* lse and delta by head, contiguous over rows; zero gradients outside documents. */
static void prepare(const struct gr_attention_memory *memory, const struct gr_attention *a,
                    struct gr_attention_tile t, int64_t head)
{
    int64_t n = a->q.dim[0], head_dim = a->q.dim[2];
    float *d_o = gr_widened_tile(memory, 0, head_dim), *o = gr_widened_tile(memory, 1, head_dim);

    for (int64_t i = t.begin; i < t.end; i++) {
        memory->lse[head * n + i] = gr_row_f32(a->lse, i)[head];
        memory->delta[head * n + i] =
            (float)dot(gr_load_run(a->d_o, i, head * head_dim, head_dim, d_o),
                       gr_load_run(a->o, i, head * head_dim, head_dim, o), head_dim);
        if (gr_in_document(t))
            continue;
        gr_zero_head(a->dq, i, head);
        if (head < a->k.dim[1]) {
            gr_zero_head(a->dk, i, head);
            gr_zero_head(a->dv, i, head);
        }
    }
}

/* One head's part of a document: keys from `key` on against queries from `query` on. */
struct pairs {
    const struct gr_attention *a;
    int64_t doc_end, head;
    int64_t key, key_end, query, query_end;
    gr_tensor q, k, v, d_o; /* those rows of this head, f32 */
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
    gr_cpu_matmul_nt(*p, x->k, x->q, a->scale, 0.0f);
    gr_cpu_matmul_nt(*ds, x->v, x->d_o, 1.0f, 0.0f);
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
    int64_t head_dim = a->q.dim[2];
    gr_tensor stored_dk = gr_head_rows(a->dk, kv_head, t.begin, t.end);
    gr_tensor stored_dv = gr_head_rows(a->dv, kv_head, t.begin, t.end);
    gr_tensor dk = gr_place_tile(stored_dk, gr_widened_tile(memory, 0, head_dim));
    gr_tensor dv = gr_place_tile(stored_dv, gr_widened_tile(memory, 1, head_dim));
    struct pairs x = {.a = a, .doc_end = t.doc_end, .key = t.begin, .key_end = t.end};
    float beta = 0.0f;

    x.k = gr_load_tile(gr_head_rows(a->k, kv_head, t.begin, t.end),
                       gr_widened_tile(memory, 2, head_dim));
    x.v = gr_load_tile(gr_head_rows(a->v, kv_head, t.begin, t.end),
                       gr_widened_tile(memory, 3, head_dim));

    for (x.head = kv_head * group; x.head < (kv_head + 1) * group; x.head++)
        for (x.query = t.begin; x.query < last; x.query += GR_BLOCK_ROWS) {
            gr_tensor p, ds;

            x.query_end = gr_smaller(last, x.query + GR_BLOCK_ROWS);
            x.q = gr_load_tile(gr_head_rows(a->q, x.head, x.query, x.query_end),
                               gr_widened_block(memory, 0, head_dim));
            x.d_o = gr_load_tile(gr_head_rows(a->d_o, x.head, x.query, x.query_end),
                                 gr_widened_block(memory, 1, head_dim));
            make_weights(memory, &x, &p, &ds);
            gr_cpu_matmul_nn(dv, p, x.d_o, 1.0f, beta);
            gr_cpu_matmul_nn(dk, ds, x.q, a->scale, beta);
            beta = 1.0f;
        }
    gr_store_tile(stored_dk, dk);
    gr_store_tile(stored_dv, dv);
}

/* dq of a tile of queries: over the keys they see. */
static void query_tile(const struct gr_attention_memory *memory, const struct gr_attention *a,
                       struct gr_attention_tile t, int64_t head)
{
    int64_t first = gr_first_key(a, t.doc_begin, t.begin), head_dim = a->q.dim[2];
    int64_t kv_head = head / (a->q.dim[1] / a->k.dim[1]);
    gr_tensor stored = gr_head_rows(a->dq, head, t.begin, t.end);
    gr_tensor dq = gr_place_tile(stored, gr_widened_tile(memory, 0, head_dim));
    struct pairs x = {
        .a = a, .doc_end = t.doc_end, .head = head, .query = t.begin, .query_end = t.end};

    x.q = gr_load_tile(gr_head_rows(a->q, head, t.begin, t.end),
                       gr_widened_tile(memory, 1, head_dim));
    x.d_o = gr_load_tile(gr_head_rows(a->d_o, head, t.begin, t.end),
                         gr_widened_tile(memory, 2, head_dim));
    for (x.key = first; x.key < t.end; x.key += GR_BLOCK_ROWS) {
        gr_tensor p, ds;

        x.key_end = gr_smaller(t.end, x.key + GR_BLOCK_ROWS);
        x.k = gr_load_tile(gr_head_rows(a->k, kv_head, x.key, x.key_end),
                           gr_widened_block(memory, 0, head_dim));
        x.v = gr_load_tile(gr_head_rows(a->v, kv_head, x.key, x.key_end),
                           gr_widened_block(memory, 1, head_dim));
        make_weights(memory, &x, &p, &ds);
        gr_cpu_matmul_tn(dq, ds, x.k, a->scale, x.key == first ? 0.0f : 1.0f);
    }
    gr_store_tile(stored, dq);
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
