/* Causal attention inside documents, forward, and what both directions share.
 *
 * A task is a tile of 64 queries of one document and one head; it walks over the keys they see in
 * blocks of 256 with an online softmax and accumulates straight into o.  Tiles are counted from
 * the document's first row, so bits depend on the document alone.  The one query of
 * attention_last is walked with likewise.  The backward is in attention_backward.c. */
#include "kernels/cpu/attention.h"

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/softmax.h"

#include <math.h>
#include <string.h>

/* ---- the workspace and the tiles ---- */

static void layout(struct gr_attention_memory *memory, struct gr_arena *arena, int threads,
                   int64_t n, int64_t heads, int64_t head_dim)
{
    int64_t floats = (int64_t)sizeof(float);

    memory->tile = gr_arena_take(arena, n * (int64_t)sizeof(struct gr_attention_tile));
    memory->lse = gr_arena_take(arena, n * heads * floats);
    memory->delta = gr_arena_take(arena, n * heads * floats);
    memory->scores = gr_arena_take(arena, 2 * threads * GR_TILE_ROWS * GR_BLOCK_ROWS * floats);
    memory->widened = gr_arena_take(arena, threads * GR_WIDENED_ROWS * head_dim * floats);
}

int64_t GR_CPU(attention_workspace_bytes)(struct gr_device *dev, int64_t n, int64_t heads,
                                          int64_t head_dim)
{
    struct gr_arena measure = {.name = "workspace"};
    struct gr_attention_memory memory;

    layout(&memory, &measure, dev->threads, n, heads, head_dim);
    return measure.used;
}

static void add_tiles(struct gr_attention_memory *memory, int64_t begin, int64_t end, bool is_doc)
{
    for (int64_t row = begin; row < end; row += GR_TILE_ROWS)
        memory->tile[memory->tiles++] =
            (struct gr_attention_tile){.begin = (int32_t)row,
                                       .end = (int32_t)gr_smaller(end, row + GR_TILE_ROWS),
                                       .doc_begin = (int32_t)begin,
                                       .doc_end = (int32_t)(is_doc ? end : begin)};
}

bool GR_CPU(attention_cut)(struct gr_attention_memory *memory, struct gr_device *dev,
                           const char *op, const struct gr_attention *a)
{
    const int32_t *doc = a->docs.data;
    int64_t n = a->q.dim[0], end = 0;
    struct gr_arena arena = {
        .name = "workspace", .base = dev->workspace, .capacity = dev->workspace_bytes};

    layout(memory, &arena, dev->threads, n, a->q.dim[1], a->q.dim[2]);
    memory->tiles = 0;
    for (int64_t d = 0; d < a->docs.dim[0]; d++) {
        int64_t begin = doc[d * a->docs.stride], after = doc[d * a->docs.stride + 1];

        if (begin == after)
            continue;
        if (begin < end || after < begin || after > n) {
            gr_device_fail(dev, GR_ERR_BUG, op,
                           "document %lld does not fit (found rows %lld to %lld of %lld, previous "
                           "end %lld)",
                           (long long)d, (long long)begin, (long long)after, (long long)n,
                           (long long)end);
            return false;
        }
        add_tiles(memory, end, begin, false);
        add_tiles(memory, begin, after, true);
        end = after;
    }
    add_tiles(memory, end, n, false);
    return true;
}

/* ---- the forward ---- */

/* The online softmax of one query: weights so far are exp(score - shift). */
struct softmax {
    float shift;
    double sum;
};

/* Makes weights of the scores of the keys seen, columns [seen, seen_end) of `width`, and zeros of
 * the others; o, the weighted sum so far, is brought to the new shift. */
static void soften(struct softmax *state, float *score, int64_t width, int64_t seen,
                   int64_t seen_end, float *o, int64_t head_dim)
{
    float most;

    if (seen >= seen_end) {
        memset(score, 0, (size_t)width * sizeof(float));
        return;
    }
    gr_mask_scores(score, width, seen, seen_end);
    most = gr_largest_f32(score, width);
    if (most > state->shift) {
        float correction = gr_expf(state->shift - most);

        for (int64_t j = 0; j < head_dim && state->sum > 0.0; j++)
            o[j] *= correction;
        state->sum *= (double)correction;
        state->shift = most;
    }
    state->sum += gr_exponentials_f32(score, state->shift, width);
}

static void normalise(float *o, int64_t head_dim, const struct softmax *state)
{
    float scale = (float)(1.0 / state->sum);

    for (int64_t j = 0; j < head_dim; j++)
        o[j] *= scale;
}

/* o <- softmax(scale q k^T) v for one tile of queries and one head */
static void forward_tile(const struct gr_attention_memory *memory, const struct gr_attention *a,
                         struct gr_attention_tile t, int64_t head)
{
    int64_t rows = t.end - t.begin, head_dim = a->q.dim[2];
    int64_t kv_head = head / (a->q.dim[1] / a->k.dim[1]);
    int64_t first = gr_first_key(a, t.doc_begin, t.begin);
    gr_tensor q = gr_load_tile(gr_head_rows(a->q, head, t.begin, t.end),
                               gr_widened_tile(memory, 0, head_dim));
    gr_tensor stored = gr_head_rows(a->o, head, t.begin, t.end);
    gr_tensor o = gr_place_tile(stored, gr_widened_tile(memory, 1, head_dim));
    struct softmax state[GR_TILE_ROWS];

    for (int64_t i = 0; i < rows; i++)
        state[i] = (struct softmax){-INFINITY, 0.0};
    for (int64_t begin = first; begin < t.end; begin += GR_BLOCK_ROWS) {
        int64_t end = gr_smaller(t.end, begin + GR_BLOCK_ROWS);
        gr_tensor scores = gr_score_tile(memory, 0, rows, end - begin);
        gr_tensor k = gr_load_tile(gr_head_rows(a->k, kv_head, begin, end),
                                   gr_widened_block(memory, 0, head_dim));
        gr_tensor v = gr_load_tile(gr_head_rows(a->v, kv_head, begin, end),
                                   gr_widened_block(memory, 1, head_dim));

        gr_cpu_matmul_nt(scores, q, k, a->scale, 0.0f);
        for (int64_t i = 0; i < rows; i++) {
            int64_t row = t.begin + i, seen = gr_first_key(a, t.doc_begin, row);

            soften(&state[i], gr_row_f32(scores, i), end - begin, gr_larger(seen - begin, 0),
                   gr_smaller(row + 1, end) - begin, gr_row_f32(o, i), head_dim);
        }
        gr_cpu_matmul_nn(o, scores, v, 1.0f, begin == first ? 0.0f : 1.0f);
    }
    for (int64_t i = 0; i < rows; i++) {
        normalise(gr_row_f32(o, i), head_dim, &state[i]);
        gr_row_f32(a->lse, t.begin + i)[head] = (float)((double)state[i].shift + log(state[i].sum));
    }
    gr_store_tile(stored, o);
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
        /* late queries see most keys: they come first */
#pragma omp parallel for schedule(dynamic) num_threads(dev->threads)
    for (int64_t task = memory.tiles * heads - 1; task >= 0; task--) {
        struct gr_attention_tile t = memory.tile[task / heads];

        if (gr_in_document(t))
            forward_tile(&memory, a, t, task % heads);
        else
            zero_tile(a, t, task % heads);
    }
}

/* ---- one query ---- */

enum { LAST_FLOATS = 4096 }; /* of widened bf16 on the stack: at least one row */

/* o <- softmax(scale q k^T) v for one head, whose q and o are one row */
static void last_head(gr_tensor stored, gr_tensor q, gr_tensor k, gr_tensor v, float scale)
{
    float memory[GR_BLOCK_ROWS], wide_q[LAST_FLOATS], wide_o[LAST_FLOATS], wide_k[LAST_FLOATS],
        wide_v[LAST_FLOATS];
    int64_t head_dim = q.dim[1];
    int64_t most =
        k.dtype == GR_F32 ? GR_BLOCK_ROWS : gr_smaller(GR_BLOCK_ROWS, LAST_FLOATS / head_dim);
    struct softmax state = {-INFINITY, 0.0};
    gr_tensor o = gr_place_tile(stored, wide_o);

    GR_CHECK(k.dtype == GR_F32 || head_dim <= LAST_FLOATS, "%lld", (long long)head_dim);
    q = gr_load_tile(q, wide_q);
    for (int64_t begin = 0; begin < k.dim[0]; begin += most) {
        int64_t end = gr_smaller(k.dim[0], begin + most), width = end - begin;
        gr_tensor scores = gr_tensor_2d(memory, GR_F32, 1, width);

        gr_cpu_matmul_nt(scores, q, gr_load_tile(gr_tensor_rows(k, begin, end), wide_k), scale,
                         0.0f);
        soften(&state, memory, width, 0, width, o.data, head_dim);
        gr_cpu_matmul_nn(o, scores, gr_load_tile(gr_tensor_rows(v, begin, end), wide_v), 1.0f,
                         begin == 0 ? 0.0f : 1.0f);
    }
    normalise(o.data, head_dim, &state);
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
