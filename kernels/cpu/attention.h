/* What the forward and the backward of attention share: the cutting into tiles. */
#ifndef GR_CPU_ATTENTION_H
#define GR_CPU_ATTENTION_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <math.h>
#include <omp.h>

enum {
    GR_TILE_ROWS = 64,  /* rows of the side a task owns: queries, or keys for dk and dv */
    GR_BLOCK_ROWS = 256 /* rows of the other side it looks at together */
};

/* Rows [begin, end) of document [doc_begin, doc_end), at most GR_TILE_ROWS of them, counted from
 * the document's first.  doc_begin == doc_end: rows outside every document. */
struct gr_attention_tile {
    int32_t begin, end, doc_begin, doc_end;
};

static inline bool gr_in_document(struct gr_attention_tile t)
{
    return t.doc_begin < t.doc_end;
}

/* The workspace, front to back. */
struct gr_attention_memory {
    struct gr_attention_tile *tile; /* [n]: there are at most as many tiles as rows */
    int64_t tiles;
    float *lse, *delta; /* (NH, N): copies of lse, and rowsum(d_o * o), by head for the backward */
    float *scores;      /* [threads][2][GR_TILE_ROWS * GR_BLOCK_ROWS] */
    float *widened;     /* [threads][GR_WIDENED_ROWS][HD] */
};

/* Rows of HD elements for what is stored as bf16: four tiles, then two blocks. */
enum { GR_TILES = 4, GR_BLOCKS = 2 };
enum { GR_WIDENED_ROWS = GR_TILES * GR_TILE_ROWS + GR_BLOCKS * GR_BLOCK_ROWS };

/* Lays out the workspace and cuts the rows into tiles; false: docs are wrong and the device failed.
 */
bool GR_CPU(attention_cut)(struct gr_attention_memory *memory, struct gr_device *dev,
                           const char *op, const struct gr_attention *a);

/* Rows [begin, end) of one head of (N, heads, HD), as a matrix. */
static inline gr_tensor gr_head_rows(gr_tensor t, int64_t head, int64_t begin, int64_t end)
{
    gr_tensor m =
        gr_tensor_2d(gr_element(t, begin, head * t.dim[2]), t.dtype, end - begin, t.dim[2]);

    m.stride = t.stride;
    return m;
}

static inline void gr_zero_head(gr_tensor t, int64_t row, int64_t head)
{
    memset(gr_element(t, row, head * t.dim[2]), 0, (size_t)(t.dim[2] * gr_dtype_bytes(t.dtype)));
}

/* This thread's score matrix number 0 or 1. */
static inline gr_tensor gr_score_tile(const struct gr_attention_memory *memory, int number,
                                      int64_t rows, int64_t columns)
{
    int64_t index = 2 * (int64_t)omp_get_thread_num() + number;

    return gr_tensor_2d(memory->scores + index * GR_TILE_ROWS * GR_BLOCK_ROWS, GR_F32, rows,
                        columns);
}

/* This thread's room for tile 0 to 3, and for block 0 or 1. */
static inline float *gr_widened_tile(const struct gr_attention_memory *memory, int number,
                                     int64_t head_dim)
{
    int64_t row = (int64_t)omp_get_thread_num() * GR_WIDENED_ROWS + number * GR_TILE_ROWS;

    return memory->widened + row * head_dim;
}

static inline float *gr_widened_block(const struct gr_attention_memory *memory, int number,
                                      int64_t head_dim)
{
    return gr_widened_tile(memory, GR_TILES, head_dim) + number * GR_BLOCK_ROWS * head_dim;
}

/* The keys query `row` sees are [first, row]. */
static inline int64_t gr_first_key(const struct gr_attention *a, int64_t doc_begin, int64_t row)
{
    return a->window > 0 ? gr_larger(doc_begin, row - a->window + 1) : doc_begin;
}

/* The queries that see key `row` are [row, end). */
static inline int64_t gr_end_query(const struct gr_attention *a, int64_t doc_end, int64_t row)
{
    return a->window > 0 ? gr_smaller(doc_end, row + a->window) : doc_end;
}

/* Scores outside columns [seen, seen_end) get the weight exp(-inf) = 0. */
static inline void gr_mask_scores(float *score, int64_t width, int64_t seen, int64_t seen_end)
{
    for (int64_t j = 0; j < seen; j++)
        score[j] = -INFINITY;
    for (int64_t j = gr_larger(seen_end, 0); j < width; j++)
        score[j] = -INFINITY;
}

#endif
