/* What the forward and the backward of attention share: the cutting into tiles. */
#ifndef GR_CPU_ATTENTION_H
#define GR_CPU_ATTENTION_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <math.h>
#include <omp.h>

enum {
    GR_TILE_ROWS = 64,   /* queries of a tile */
    GR_BLOCK_ROWS = 256, /* keys they are looked at with */
    GR_SCORE_ROWS =
        GR_BLOCK_ROWS + 2 * GR_LEFT_ROWS /* of a tile of scores: packed rows are whole */
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

/* Keys or values as left operands, packed for all tiles that look at them. */
enum gr_packed {
    GR_PACKED_KEYS,       /* a row per key */
    GR_PACKED_TRANSPOSED, /* a column per key; forward: of v, backward: of k */
    GR_PACKED_VALUES,     /* as the keys; backward only */
    GR_PACKED_COUNT
};

/* The workspace, front to back. */
struct gr_attention_memory {
    struct gr_device *dev;
    struct gr_attention_tile *tile; /* [n]: there are at most as many tiles as rows */
    int64_t tiles;
    struct gr_attention_tile *document; /* [n]: those with rows, whole; the longest first */
    int64_t documents;
    float *lse, *delta; /* (NH, N): copies of lse, and rowsum(d_o * o), by head for the backward */
    float *scores;      /* [threads][2][GR_SCORE_ROWS][GR_TILE_ROWS] */
    float *sums;        /* [threads][HD][GR_TILE_ROWS]: o or dq of a tile, transposed */
    float *dk, *dv;     /* (NH, N, HD): of each query head, before they are added and rounded */
    uint32_t *packed[GR_PACKED_COUNT]; /* [NKV][gr_packed_words(n, HD)] */
    uint32_t *room;                    /* [threads][gr_gemm_room_words()] */
};

/* Enough for n rows or columns of one head, whole panels. */
static inline int64_t gr_packed_words(int64_t n, int64_t head_dim)
{
    return (n + GR_LEFT_ROWS) * (head_dim + GR_LEFT_ROWS);
}

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

/* This thread's scores number 0 or 1, a row per key and a column per query. */
static inline gr_tensor gr_score_tile(const struct gr_attention_memory *memory, int number,
                                      int64_t keys, int64_t queries)
{
    int64_t index = 2 * (int64_t)omp_get_thread_num() + number;
    gr_tensor t = gr_tensor_2d(memory->scores + index * GR_SCORE_ROWS * GR_TILE_ROWS, GR_F32, keys,
                               GR_TILE_ROWS);

    return gr_tensor_columns(t, 0, queries);
}

/* This thread's transposed sums. */
static inline gr_tensor gr_sum_tile(const struct gr_attention_memory *memory, int64_t head_dim,
                                    int64_t queries)
{
    float *sums = memory->sums + omp_get_thread_num() * head_dim * GR_TILE_ROWS;

    return gr_tensor_columns(gr_tensor_2d(sums, GR_F32, head_dim, GR_TILE_ROWS), 0, queries);
}

static inline struct gr_gemm_room gr_attention_room(const struct gr_attention_memory *memory)
{
    return gr_gemm_room_at(memory->dev, memory->room + omp_get_thread_num() * gr_gemm_room_words());
}

/* Packs keys or values of all kv heads; inside a parallel region, which waits for the end. */
void GR_CPU(attention_pack)(const struct gr_attention_memory *memory, const struct gr_attention *a,
                            enum gr_packed packed, gr_tensor from);

/* Keys [begin, end) of a document that a tile of queries looks at together. */
struct gr_key_block {
    int64_t begin, end;
    int64_t kv_head;
};

/* scores number 0 or 1 <- alpha rows qT for the rows of a block, packed as keys or values; a row
 * per key. */
gr_tensor GR_CPU(attention_scores)(const struct gr_attention_memory *memory,
                                   const struct gr_attention *a, int number, float alpha,
                                   enum gr_packed packed, struct gr_key_block block, gr_tensor q);
/* Rows of a tile of one head of `to` <- the transposed sums, those of a query by its scale. */
void GR_CPU(attention_store)(gr_tensor to, struct gr_attention_tile t, int64_t head, gr_tensor sums,
                             const float scale[GR_TILE_ROWS]);
/* A column per key of a block, of what has been packed transposed, which is `from`.  It lies in the
 * thread's room where the document is too short to be packed before. */
struct gr_left GR_CPU(attention_transposed)(const struct gr_attention_memory *memory,
                                            const struct gr_attention *a, gr_tensor from,
                                            struct gr_attention_tile t, struct gr_key_block block);

/* The keys query `row` sees are [first, row]. */
static inline int64_t gr_first_key(const struct gr_attention *a, int64_t doc_begin, int64_t row)
{
    return a->window > 0 ? gr_larger(doc_begin, row - a->window + 1) : doc_begin;
}

/* Where the first block begins that a tile looks at: blocks are counted from the document's first
 * row. */
static inline int64_t gr_first_block(const struct gr_attention *a, struct gr_attention_tile t)
{
    int64_t first = gr_first_key(a, t.doc_begin, t.begin) - t.doc_begin;

    return t.doc_begin + first / GR_BLOCK_ROWS * GR_BLOCK_ROWS;
}

/* The queries that see key `row` are [row, end). */
static inline int64_t gr_end_query(const struct gr_attention *a, int64_t doc_end, int64_t row)
{
    return a->window > 0 ? gr_smaller(doc_end, row + a->window) : doc_end;
}

/* Scores of queries that do not see the block's keys get the weight exp(-inf) = 0. */
static inline void gr_mask_scores(gr_tensor scores, const struct gr_attention *a,
                                  struct gr_attention_tile t, struct gr_key_block block)
{
    int64_t queries = t.end - t.begin;

    int64_t seen = a->window > 0 ? 0 : t.begin - block.begin; /* by all queries */

    for (int64_t i = gr_larger(seen, 0); i < scores.dim[0]; i++) {
        int64_t key = block.begin + i, end = gr_end_query(a, t.doc_end, key) - t.begin;
        float *score = gr_row_f32(scores, i);

        for (int64_t j = 0; j < gr_smaller(key - t.begin, queries); j++)
            score[j] = -INFINITY;
        for (int64_t j = gr_larger(end, 0); j < queries; j++)
            score[j] = -INFINITY;
    }
}

#endif
