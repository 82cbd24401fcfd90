/* Causal attention inside documents, forward.
 *
 * A task is a tile of 64 queries of one document and one head; it walks over the keys they see in
 * blocks of 256 with an online softmax.  Scores have a row per key and a column per query, so that
 * all queries are weighed together, and the keys and values of a head are packed once:
 *
 *   p = exp(scale k qT - shift);  oT = vT p
 *
 * The one query of attention_last is walked with likewise.  attention_tiles.c has what the backward
 * shares, which is in attention_backward.c. */
#include "kernels/cpu/attention.h"

#include "kernels/cpu/softmax.h"

#include <string.h>

/* ---- many queries ---- */

/* The online softmax of a tile: weights so far are exp(score - shift). */
struct softmaxes {
    float shift[GR_TILE_ROWS];
    double sum[GR_TILE_ROWS];
};

/* Makes weights of the scores of GR_LANES queries; o, the weighted sums so far, a row per element,
 * is brought to the new shift. */
static void soften_lanes(float *shift, double *sum, float *score, int64_t keys, float *o,
                         int64_t head_dim)
{
    float most[GR_LANES], base[GR_LANES], correction[GR_LANES];
    double lane[GR_LANES];

    for (int j = 0; j < GR_LANES; j++)
        most[j] = shift[j];
    for (int64_t i = 0; i < keys; i++)
#pragma omp simd
        for (int j = 0; j < GR_LANES; j++) {
            float x = score[i * GR_TILE_ROWS + j];

            most[j] = x > most[j] ? x : most[j];
        }
    for (int j = 0; j < GR_LANES; j++) {
        base[j] = most[j] == -INFINITY ? 0.0f : most[j]; /* nothing seen: all weights 0 */
        correction[j] = gr_expf(shift[j] - base[j]);
        shift[j] = most[j];
        lane[j] = sum[j] * (double)correction[j];
    }
    for (int64_t i = 0; i < keys; i++)
#pragma omp simd
        for (int j = 0; j < GR_LANES; j++) {
            float weight = gr_expf(score[i * GR_TILE_ROWS + j] - base[j]);

            score[i * GR_TILE_ROWS + j] = weight;
            lane[j] += (double)weight;
        }
    for (int j = 0; j < GR_LANES; j++)
        sum[j] = lane[j];
    for (int64_t i = 0; i < head_dim && o != NULL; i++)
#pragma omp simd
        for (int j = 0; j < GR_LANES; j++)
            o[i * GR_TILE_ROWS + j] *= correction[j];
}

/* All queries of the tile; columns behind the last one hold anything, and are not looked at. */
static void soften_tile(struct softmaxes *state, gr_tensor scores, gr_tensor o, bool is_first)
{
    for (int64_t j = 0; j < scores.dim[1]; j += GR_LANES)
        soften_lanes(state->shift + j, state->sum + j, (float *)scores.data + j, scores.dim[0],
                     is_first ? NULL : (float *)o.data + j, o.dim[0]);
}

/* o <- the sums over those of the weights; and lse */
static void finish_tile(const struct gr_attention *a, struct gr_attention_tile t, int64_t head,
                        const struct softmaxes *state, gr_tensor sums)
{
    float scale[GR_TILE_ROWS];

    for (int64_t i = 0; i < t.end - t.begin; i++) {
        scale[i] = (float)(1.0 / state->sum[i]);
        gr_row_f32(a->lse, t.begin + i)[head] =
            (float)((double)state->shift[i] + log(state->sum[i]));
    }
    GR_CPU(attention_store)(a->o, t, head, sums, scale);
}

/* o <- softmax(scale q k^T) v for one tile of queries and one head */
static void forward_tile(const struct gr_attention_memory *memory, const struct gr_attention *a,
                         struct gr_attention_tile t, int64_t head)
{
    gr_tensor q = gr_head_rows(a->q, head, t.begin, t.end);
    gr_tensor o = gr_sum_tile(memory, a->q.dim[2], t.end - t.begin);
    struct gr_key_block block = {.kv_head = head / (a->q.dim[1] / a->k.dim[1])};
    int64_t first = gr_first_block(a, t);
    struct softmaxes state;

    for (int i = 0; i < GR_TILE_ROWS; i++) {
        state.shift[i] = -INFINITY;
        state.sum[i] = 0.0;
    }
    for (block.begin = first; block.begin < t.end; block.begin = block.end) {
        bool is_first = block.begin == first;
        gr_tensor scores;

        block.end = gr_smaller(t.end, block.begin + GR_BLOCK_ROWS);
        scores = GR_CPU(attention_scores)(memory, a, 0, a->scale, GR_PACKED_KEYS, block, q);
        gr_mask_scores(scores, a, t, block);
        soften_tile(&state, scores, o, is_first);
        GR_CPU(multiply)
        (o, is_first ? GR_OVERWRITE : GR_ACCUMULATE, 1.0f,
         GR_CPU(attention_transposed)(memory, a, a->v, t, block),
         (struct gr_operand){scores, false}, gr_attention_room(memory));
    }
    finish_tile(a, t, head, &state, o);
}

/* Rows outside every document. */
static void zero_tile(const struct gr_attention *a, struct gr_attention_tile t, int64_t head)
{
    for (int64_t i = t.begin; i < t.end; i++) {
        gr_zero_head(a->o, i, head);
        gr_row_f32(a->lse, i)[head] = 0.0f;
    }
}

void GR_CPU(attention_forward)(struct gr_device *dev, const struct gr_attention *a)
{
    int64_t heads = a->q.dim[1];
    struct gr_attention_memory memory;

    if (!GR_CPU(attention_cut)(&memory, dev, "attention_forward", a))
        return;
#pragma omp parallel num_threads(dev->threads)
    {
        GR_CPU(attention_pack)(&memory, a, GR_PACKED_KEYS, a->k);
        GR_CPU(attention_pack)(&memory, a, GR_PACKED_TRANSPOSED, a->v);
        /* late queries see most keys: they come first */
#pragma omp for schedule(dynamic)
        for (int64_t task = memory.tiles * heads - 1; task >= 0; task--) {
            struct gr_attention_tile t = memory.tile[task / heads];

            if (gr_in_document(t))
                forward_tile(&memory, a, t, task % heads);
            else
                zero_tile(a, t, task % heads);
        }
    }
}

/* ---- one query ---- */

enum { LAST_FLOATS = 4096 /* of the one row of q and of o, widened */ };

struct softmax {
    float shift;
    double sum;
};

/* Makes weights of the scores; o, the weighted sum so far, is brought to the new shift. */
static void soften(struct softmax *state, float *score, int64_t width, float *o, int64_t head_dim)
{
    float most = gr_largest_f32(score, width);

    if (most > state->shift) {
        float correction = gr_expf(state->shift - most);

        for (int64_t j = 0; j < head_dim && state->sum > 0.0; j++)
            o[j] *= correction;
        state->sum *= (double)correction;
        state->shift = most;
    }
    state->sum += gr_exponentials_f32(score, state->shift, width);
}

/* o += weight * v */
static void add_value(float *o, float weight, gr_tensor v, int64_t row)
{
    float wide[GR_RUN];

    for (int64_t begin = 0; begin < v.dim[1]; begin += GR_RUN) {
        int64_t count = gr_smaller(GR_RUN, v.dim[1] - begin);
        const float *x = gr_load_run(v, row, begin, count, wide);

        for (int64_t j = 0; j < count; j++)
            o[begin + j] += weight * x[j];
    }
}

/* o <- softmax(scale q k^T) v for one head, whose q and o are one row */
static void last_head(gr_tensor stored, gr_tensor q, gr_tensor k, gr_tensor v, float scale)
{
    float memory[GR_BLOCK_ROWS], wide_q[LAST_FLOATS], wide_o[LAST_FLOATS];
    int64_t head_dim = q.dim[1];
    struct softmax state = {-INFINITY, 0.0};
    gr_tensor o = gr_place_tile(stored, wide_o);
    const struct gr_gemm_room none = {0}; /* a single row of f32 needs none */

    GR_CHECK(head_dim <= LAST_FLOATS, "%lld", (long long)head_dim);
    q = gr_load_tile(q, wide_q);
    memset(o.data, 0, (size_t)head_dim * sizeof(float));
    for (int64_t begin = 0; begin < k.dim[0]; begin += GR_BLOCK_ROWS) {
        int64_t end = gr_smaller(k.dim[0], begin + GR_BLOCK_ROWS), width = end - begin;
        gr_tensor scores = gr_tensor_2d(memory, GR_F32, 1, width);

        GR_CPU(product_row)(scores, GR_OVERWRITE, scale, q, gr_tensor_rows(k, begin, end), none);
        soften(&state, memory, width, o.data, head_dim);
        for (int64_t i = 0; i < width; i++)
            add_value(o.data, memory[i], v, begin + i);
    }
    for (int64_t j = 0; j < head_dim; j++)
        ((float *)o.data)[j] *= (float)(1.0 / state.sum);
    gr_store_tile(stored, o);
}

void GR_CPU(attention_last)(struct gr_device *dev, gr_tensor o, gr_tensor q, gr_tensor k,
                            gr_tensor v, float scale)
{
    int64_t heads = q.dim[1], keys = k.dim[0], group = heads / k.dim[1];

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t head = 0; head < heads; head++)
        last_head(gr_head_rows(o, head, 0, 1), gr_head_rows(q, head, 0, 1),
                  gr_head_rows(k, head / group, 0, keys), gr_head_rows(v, head / group, 0, keys),
                  scale);
}
