/* What the forward and the backward of a linear group share: scratch memory, the cutting into
 * tiles, slabs of packed rows. */
#ifndef GR_CPU_LORA_GROUP_H
#define GR_CPU_LORA_GROUP_H

#include "kernels/base/philox.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <omp.h>
#include <string.h>

enum {
    SLAB_ROWS = 1024,                      /* packed at a time */
    TILE_ROWS = GR_HAS_TILES ? 1024 : 512, /* of y and dx, at most: a tile packs a block of W */
    BLOCK_COLUMNS = GR_RIGHT_BLOCK,        /* of y and dx */
    SLIM_ROWS = 64,       /* tiles of s, which has few columns: more tasks for the threads */
    SLIM_COLUMNS = 1536,  /* of s, computed together; of x, masked together */
    WIDE_COLUMNS = 192,   /* blocks of dA and dB, which have few rows */
    FEW_ROWS = 512,       /* of dB, computed together; of x, masked together for dA */
    TASKS_PER_THREAD = 4, /* at least, where rows can be cut so small */
    SCRATCH_FLOATS = 96 * 1024
};
_Static_assert(TILE_ROWS *BLOCK_COLUMNS <= SCRATCH_FLOATS, "a tile fits into the scratch memory");
_Static_assert(SLIM_ROWS *SLIM_COLUMNS <= SCRATCH_FLOATS, "a tile of s likewise");
_Static_assert(FEW_ROWS *WIDE_COLUMNS <= SCRATCH_FLOATS, "a tile of dA likewise");

/* The scratch memory of a thread, besides the products' room. */
enum scratch {
    RESULT, /* a tile of the result, before it is rounded */
    MASKED, /* a tile of masked x, or of dS A before its mask */
    SCRATCH_COUNT
};

static inline int64_t slab_words(int64_t n, int64_t in, int64_t out)
{
    return gr_left_words_most(gr_smaller(n, SLAB_ROWS), gr_larger(in, out), GR_LINEARS_MOST);
}

static inline int64_t thread_words(void)
{
    return SCRATCH_COUNT * SCRATCH_FLOATS + gr_gemm_room_words();
}

/* This thread's part of the workspace; the slab is behind those of all threads. */
static inline float *scratch_of(struct gr_device *dev, enum scratch part)
{
    return (float *)dev->workspace + omp_get_thread_num() * thread_words() +
           (int64_t)part * SCRATCH_FLOATS;
}

static inline struct gr_gemm_room room_of(struct gr_device *dev)
{
    return gr_gemm_room_at(dev, scratch_of(dev, SCRATCH_COUNT));
}

static inline uint32_t *slab_of(struct gr_device *dev)
{
    return (uint32_t *)dev->workspace + dev->threads * thread_words();
}

static inline gr_tensor masked_tile(struct gr_device *dev, int64_t rows, int64_t columns)
{
    return gr_tensor_2d(scratch_of(dev, MASKED), GR_F32, rows, columns);
}

/* Room for a tile of y or dx: without gaps between its rows, whose distance in memory is often a
 * large power of two, which caches are bad at. */
static inline gr_tensor result_tile(struct gr_device *dev, gr_tensor t)
{
    return gr_tensor_2d(scratch_of(dev, RESULT), GR_F32, t.dim[0], t.dim[1]);
}

static inline bool packs_pairs(const struct gr_lora_group *g)
{
    return gr_packs_pairs(g->x.dtype);
}

/* ---- how the work is cut ---- */

struct rows {
    int64_t begin, end;
    const struct gr_segment *segment; /* they lie in; NULL: none, or more than one */
};

/* Tile number `index` of rows [begin, end). */
static inline struct rows tile_of(struct rows all, int64_t height, int64_t index)
{
    int64_t begin = all.begin + index * height;

    return (struct rows){begin, gr_smaller(all.end, begin + height), NULL};
}

/* The rows of segment i that are among these. */
static inline struct rows rows_of_segment(const struct gr_lora_group *g, struct rows rows, int i)
{
    const struct gr_segment *s = &g->segment[i];

    return (struct rows){gr_larger(rows.begin, s->row_begin), gr_smaller(rows.end, s->row_end), s};
}

/* A block of the columns of y: columns [begin, end) of one linear's output. */
struct block {
    int linear;
    int64_t begin, end;
};

static inline int64_t count_blocks(const struct gr_lora_group *g, int64_t columns)
{
    int64_t blocks = 0;

    for (int i = 0; i < g->linears; i++)
        blocks += gr_pieces(g->linear[i].weight.dim[0], columns);
    return blocks;
}

static inline struct block find_block(const struct gr_lora_group *g, int64_t columns, int64_t index)
{
    int i = 0;
    int64_t begin;

    for (; index >= gr_pieces(g->linear[i].weight.dim[0], columns); i++)
        index -= gr_pieces(g->linear[i].weight.dim[0], columns);
    begin = index * columns;
    return (struct block){i, begin, gr_smaller(g->linear[i].weight.dim[0], begin + columns)};
}

/* ---- parts of the tensors ---- */

static inline gr_tensor part(gr_tensor t, struct rows rows, int64_t begin, int64_t end)
{
    return gr_tensor_columns(gr_tensor_rows(t, rows.begin, rows.end), begin, end);
}

/* The first column of linear i in y and dy. */
static inline int64_t y_begin(const struct gr_lora_group *g, int linear)
{
    int64_t begin = 0;

    for (int i = 0; i < linear; i++)
        begin += g->linear[i].weight.dim[0];
    return begin;
}

/* These rows of linear i's columns of y or dy. */
static inline gr_tensor y_part(const struct gr_lora_group *g, gr_tensor y, struct rows rows,
                               int linear)
{
    int64_t begin = y_begin(g, linear);

    return part(y, rows, begin, begin + g->linear[linear].weight.dim[0]);
}

/* These rows of the first r columns of linear i in s or ds. */
static inline gr_tensor s_part(const struct gr_lora_group *g, gr_tensor s, struct rows rows,
                               int linear, int64_t r)
{
    int64_t begin = 0;

    for (int i = 0; i < linear; i++)
        begin += gr_lora_group_r(g, i);
    return part(s, rows, begin, begin + r);
}

/* Linear i's adapter for these rows; NULL: none. */
static inline const struct gr_lora *lora_of(const struct gr_lora_group *g, struct rows rows,
                                            int linear)
{
    const struct gr_lora *lora;

    if (rows.segment == NULL || rows.segment->adapter < 0)
        return NULL;
    lora = &g->lora[(int64_t)rows.segment->adapter * g->linears + linear];
    return gr_tensor_is_none(lora->a) ? NULL : lora;
}

/* Rows of a tile from `begin` on that have one adapter or none: up to where the next segment
 * begins, or to the multiple of SLIM_ROWS behind this one's end. */
static inline struct rows next_part(const struct gr_lora_group *g, struct rows tile, int64_t begin)
{
    struct rows rows = {begin, tile.end, NULL};

    for (int i = 0; i < g->segments; i++) {
        const struct gr_segment *s = &g->segment[i];
        int64_t end = gr_pieces(s->row_end, SLIM_ROWS) * SLIM_ROWS;

        if (s->row_begin <= begin && begin < end && s->row_begin < s->row_end) {
            rows.segment = s;
            rows.end = gr_smaller(rows.end, end);
        } else if (s->row_begin > begin) {
            rows.end = gr_smaller(rows.end, s->row_begin);
        }
    }
    return rows;
}

/* Those of a part that are in its segment: the first, and there is one. */
static inline struct rows own_rows(struct rows rows)
{
    rows.end = gr_smaller(rows.end, rows.segment->row_end);
    return rows;
}

/* Whether an adapter's product with so many columns of s is added in the pass of the weights'. */
static inline bool joins(const struct gr_lora_group *g, int64_t r)
{
    return gr_left_depth(r, packs_pairs(g)) <= GR_MORE_DEPTH &&
           gr_left_words(TILE_ROWS, r, packs_pairs(g)) <= GR_LEFT_WORDS;
}

/* s or ds of a part packed, zeros behind the rows of its segment; in the room's left half. */
static inline struct gr_left pack_s(struct gr_gemm_room room, const struct gr_lora_group *g,
                                    gr_tensor s, struct rows rows, int linear, int64_t r)
{
    struct gr_left left = gr_left_at(room.left, rows.end - rows.begin, r, packs_pairs(g));
    struct rows own = own_rows(rows);
    int64_t words = gr_left_words(left.m, r, left.pairs);
    int64_t packed = gr_left_words(own.end - own.begin, r, left.pairs);

    GR_CPU(pack_left)
    (room.left, (struct gr_operand){s_part(g, s, own, linear, r), false}, left.pairs);
    memset(room.left + packed, 0, (size_t)(words - packed) * sizeof *room.left);
    return left;
}

static inline bool drops(const struct gr_lora_group *g, const struct gr_lora *lora)
{
    return g->train && lora->dropout > 0.0f;
}

/* tile (f32) <- or += drop(x) for rows of a segment and columns from `column` on. */
static inline void drop_tile(const struct gr_lora_group *g, gr_tensor tile, enum gr_write write,
                             gr_tensor x, struct rows rows, int linear, int64_t column)
{
    const struct gr_rng *rng = &rows.segment->rng;
    struct gr_dropout dropout = {.key = rng->seed,
                                 .stream =
                                     gr_rng_stream(GR_RNG_DROPOUT, g->layer, g->module + linear),
                                 .micro_batch = rng->micro_batch,
                                 .step = rng->step,
                                 .p = lora_of(g, rows, linear)->dropout,
                                 .width = g->x.dim[1]};

    x = gr_load_tile(x, tile.data); /* bf16 is only overwritten: widened in its place */
    GR_CPU(dropout_tile)(tile, write, x, &dropout, rows.begin - rows.segment->row_begin, column);
}

/* ---- a slab of packed rows ---- */

struct slab {
    struct rows rows;
    struct gr_left left[GR_LINEARS_MOST];
};

/* How high the tiles are that give every thread enough of `blocks` blocks of columns: bits do not
 * depend on it. */
static inline int64_t tile_height(const struct gr_device *dev, const struct slab *slab,
                                  int64_t blocks)
{
    int64_t rows = slab->rows.end - slab->rows.begin, height = TILE_ROWS;

    while (height > 2 * SLIM_ROWS &&
           gr_pieces(rows, height) * blocks < (int64_t)dev->threads * TASKS_PER_THREAD)
        height /= 2;
    return height;
}

/* What rows [begin, ...) of t become: one left operand for each run of `width` columns, packed
 * later by pack_tile. */
static inline struct slab slab_at(struct gr_device *dev, const struct gr_lora_group *g, gr_tensor t,
                                  int64_t begin, const int64_t *width, int count)
{
    int64_t end = gr_smaller(g->x.dim[0], begin + SLAB_ROWS), column = 0;
    struct slab slab = {{begin, end, NULL}, {{0}}};
    uint32_t *words = slab_of(dev);

    for (int i = 0; i < count; i++) {
        gr_tensor own = part(t, slab.rows, column, column + width[i]);

        column += width[i];
        if (gr_left_can_lie(own)) {
            slab.left[i] = gr_left_lying(own);
            continue;
        }
        slab.left[i] = gr_left_at(words, end - begin, width[i], packs_pairs(g));
        words += gr_left_words(end - begin, width[i], packs_pairs(g));
    }
    return slab;
}

/* Packs SLIM_ROWS rows, number `tile` of the slab, of t's columns [column, ...) into left[i], if
 * that one does not lie. */
static inline void pack_tile(struct slab *slab, gr_tensor t, int64_t column, int64_t tile, int i)
{
    struct rows rows = tile_of(slab->rows, SLIM_ROWS, tile);
    const struct gr_left *left = &slab->left[i];

    if (left->lies)
        return;
    GR_CPU(pack_left)
    (left->words + (rows.begin - slab->rows.begin) * left->depth,
     (struct gr_operand){part(t, rows, column, column + left->k), false}, left->pairs);
}

static inline struct gr_left slab_rows(const struct slab *slab, int i, struct rows rows)
{
    return gr_left_part(slab->left[i], rows.begin - slab->rows.begin, rows.end - slab->rows.begin);
}

/* Tile number `tile` of SLIM_ROWS rows, of which those in a segment come first: there is at most
 * one, since segments begin at such a multiple. */
static inline struct rows slim_tile(const struct gr_lora_group *g, const struct slab *slab,
                                    int64_t tile)
{
    struct rows rows = tile_of(slab->rows, SLIM_ROWS, tile);

    for (int i = 0; i < g->segments; i++)
        if (g->segment[i].row_begin <= rows.begin && rows.begin < g->segment[i].row_end)
            return rows_of_segment(g, rows, i);
    return (struct rows){rows.begin, rows.begin, NULL};
}

#endif
