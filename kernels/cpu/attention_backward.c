/* The backward of attention, without atomics.  A task is one document and one query head: it walks
 * over tiles of queries, makes their weights again from lse, and adds to dk and dv in that order;
 * those of the query heads that share a kv head are added afterwards.  With a row per key and a
 * column per query of p and ds:
 *
 *   p = exp(scale k qT - lse);  dp = v d_oT;  ds = p (dp - delta),  delta = rowsum(d_o * o)
 *
 *   dv = p d_o;  dk = scale ds q;  dqT = scale kT ds */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/expf.h"

#include <string.h>

static inline __attribute__((always_inline)) double dot_of(const void *x, const void *y, int64_t n,
                                                           const enum gr_dtype dtype)
{
    double lane[GR_LANES] = {0};

    for (int64_t begin = 0; begin < n; begin += GR_RUN) {
        int64_t count = gr_smaller(GR_RUN, n - begin), i = 0;
        float scratch[2][GR_RUN];
        const float *x_run = gr_get_run(x, begin, count, scratch[0], dtype);
        const float *y_run = gr_get_run(y, begin, count, scratch[1], dtype);

        for (; i + GR_LANES <= count; i += GR_LANES)
            for (int j = 0; j < GR_LANES; j++)
                lane[j] += (double)x_run[i + j] * (double)y_run[i + j];
        for (int j = 0; i + j < count; j++)
            lane[j] += (double)x_run[i + j] * (double)y_run[i + j];
    }
    return gr_lanes_sum(lane);
}

/* lse and delta by head, contiguous over rows; zero gradients outside documents. */
static void prepare(const struct gr_attention_memory *memory, const struct gr_attention *a,
                    struct gr_attention_tile t, int64_t head)
{
    int64_t n = a->q.dim[0], head_dim = a->q.dim[2];

    for (int64_t i = t.begin; i < t.end; i++) {
        const void *d_o = gr_element(a->d_o, i, head * head_dim);
        const void *o = gr_element(a->o, i, head * head_dim);

        memory->lse[head * n + i] = gr_row_f32(a->lse, i)[head];
        memory->delta[head * n + i] =
            (float)(a->o.dtype == GR_BF16 ? dot_of(d_o, o, head_dim, GR_BF16)
                                          : dot_of(d_o, o, head_dim, GR_F32));
        if (gr_in_document(t))
            continue;
        gr_zero_head(a->dq, i, head);
        if (head < a->k.dim[1]) {
            gr_zero_head(a->dk, i, head);
            gr_zero_head(a->dv, i, head);
        }
    }
}

/* score -> p and dp -> ds for the queries that see these keys, zeros for the others. */
static void weigh(gr_tensor scores, gr_tensor dp, const float *lse, const float *delta)
{
    for (int64_t i = 0; i < scores.dim[0]; i++) {
        float *p = gr_row_f32(scores, i), *ds = gr_row_f32(dp, i);

#pragma omp simd
        for (int64_t j = 0; j < scores.dim[1]; j++) {
            p[j] = gr_expf(p[j] - lse[j]);
            ds[j] = p[j] * (ds[j] - delta[j]);
        }
    }
}

/* A head's rows in one of the sums of the workspace, (NH, N, HD) f32. */
static gr_tensor sum_rows(const struct gr_attention *a, float *sums, int64_t head, int64_t begin,
                          int64_t end)
{
    int64_t n = a->q.dim[0], head_dim = a->q.dim[2];

    return gr_tensor_2d(sums + (head * n + begin) * head_dim, GR_F32, end - begin, head_dim);
}

/* dq of a tile of queries for one head, and what it gives to the dk and dv of the keys it sees. */
static void query_tile(const struct gr_attention_memory *memory, const struct gr_attention *a,
                       struct gr_attention_tile t, int64_t head)
{
    int64_t by_head = head * a->q.dim[0] + t.begin, first = gr_first_block(a, t);
    bool pairs = gr_packs_pairs(a->q.dtype);
    gr_tensor q = gr_head_rows(a->q, head, t.begin, t.end);
    gr_tensor d_o = gr_head_rows(a->d_o, head, t.begin, t.end);
    gr_tensor dq = gr_sum_tile(memory, a->q.dim[2], t.end - t.begin);
    struct gr_key_block block = {.kv_head = head / (a->q.dim[1] / a->k.dim[1])};
    struct gr_gemm_room room = gr_attention_room(memory);
    float scale[GR_TILE_ROWS];

    for (block.begin = first; block.begin < t.end; block.begin = block.end) {
        gr_tensor p, ds;

        block.end = gr_smaller(t.end, block.begin + GR_BLOCK_ROWS);
        p = GR_CPU(attention_scores)(memory, a, 0, a->scale, GR_PACKED_KEYS, block, q);
        ds = GR_CPU(attention_scores)(memory, a, 1, 1.0f, GR_PACKED_VALUES, block, d_o);
        gr_mask_scores(p, a, t, block);
        weigh(p, ds, memory->lse + by_head, memory->delta + by_head);
        gr_product_nn(sum_rows(a, memory->dv, head, block.begin, block.end), GR_ACCUMULATE, 1.0f, p,
                      d_o, pairs, room);
        gr_product_nn(sum_rows(a, memory->dk, head, block.begin, block.end), GR_ACCUMULATE,
                      a->scale, ds, q, pairs, room);
        GR_CPU(multiply)
        (dq, block.begin == first ? GR_OVERWRITE : GR_ACCUMULATE, a->scale,
         GR_CPU(attention_transposed)(memory, a, a->k, t, block), (struct gr_operand){ds, false},
         room);
    }
    for (int i = 0; i < GR_TILE_ROWS; i++)
        scale[i] = 1.0f;
    GR_CPU(attention_store)(a->dq, t, head, dq, scale);
}

/* One document for one query head: its tiles one after the other, because they add to the same dk
 * and dv. */
static void document(const struct gr_attention_memory *memory, const struct gr_attention *a,
                     int64_t begin, int64_t end, int64_t head)
{
    gr_tensor dk = sum_rows(a, memory->dk, head, begin, end);
    gr_tensor dv = sum_rows(a, memory->dv, head, begin, end);

    memset(dk.data, 0, (size_t)gr_tensor_count(dk) * sizeof(float));
    memset(dv.data, 0, (size_t)gr_tensor_count(dv) * sizeof(float));
    for (int64_t row = begin; row < end; row += GR_TILE_ROWS) {
        struct gr_attention_tile t = {.begin = (int32_t)row,
                                      .end = (int32_t)gr_smaller(end, row + GR_TILE_ROWS),
                                      .doc_begin = (int32_t)begin,
                                      .doc_end = (int32_t)end};

        query_tile(memory, a, t, head);
    }
}

/* Row i of one kv head of to <- the sum over the query heads that read it. */
static void add_heads(gr_tensor to, const struct gr_attention *a, float *sums, int64_t i,
                      int64_t kv_head)
{
    int64_t group = a->q.dim[1] / a->k.dim[1], head_dim = a->q.dim[2];
    float *sum = sum_rows(a, sums, kv_head * group, i, i + 1).data;

    for (int64_t h = 1; h < group; h++) {
        const float *other = sum_rows(a, sums, kv_head * group + h, i, i + 1).data;

        for (int64_t j = 0; j < head_dim; j++)
            sum[j] += other[j];
    }
    gr_store_run(to, i, kv_head * head_dim, head_dim, sum);
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
        GR_CPU(attention_pack)(&memory, a, GR_PACKED_KEYS, a->k);
        GR_CPU(attention_pack)(&memory, a, GR_PACKED_TRANSPOSED, a->k);
        GR_CPU(attention_pack)(&memory, a, GR_PACKED_VALUES, a->v);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < memory.documents * heads; task++) {
            struct gr_attention_tile rows = memory.document[task / heads];

            document(&memory, a, rows.begin, rows.end, task % heads);
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < memory.tiles * kv_heads; task++) {
            struct gr_attention_tile t = memory.tile[task / kv_heads];

            for (int64_t i = t.begin; i < t.end && gr_in_document(t); i++) {
                add_heads(a->dk, a, memory.dk, i, task % kv_heads);
                add_heads(a->dv, a, memory.dv, i, task % kv_heads);
            }
        }
    }
}
