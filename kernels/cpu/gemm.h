/* Matrix products on the calling thread: f32 sums of products of f32 or bf16 elements.
 *
 * An operand is packed before it is multiplied, into panels that a kernel reads from front to back:
 * GR_LEFT_ROWS rows of the left one, up to three vectors of columns of the right one, whose words
 * lie depth after depth.  A word is an f32 (bf16 is widened, exactly) or, on a CPU that multiplies
 * them, a pair of bf16 along the inner dimension (f32 is rounded, to the nearest, ties to even).
 * Where the CPU multiplies tiles of pairs, 16 words of a left panel's first row come first, then
 * those of its second, and so on: tile after tile, the last filled up with zeros.
 *
 * An element of c is one chain of multiply-adds in the order of the inner dimension, cut every
 * GR_DEPTH words (by tiles: a chain of sums of 16 words, cut there unless alpha is 1); a second
 * product that is added in the same pass continues the last piece.  So it is whatever stands in
 * other rows and columns: its bits depend neither on the tile it is computed in nor on
 * threads. */
#ifndef GR_CPU_GEMM_H
#define GR_CPU_GEMM_H

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/vector.h"

#include <omp.h>

enum {
    GR_LEFT_ROWS = GR_HAS_TILES ? GR_TILE_SIDE : GR_KERNEL_ROWS, /* of a panel */
    GR_RIGHT_COLUMNS = 3 * GR_VECTOR,                            /* of a panel, at most */
    GR_DEPTH = 512,      /* words of the inner dimension multiplied at a time */
    GR_RIGHT_BLOCK = 96, /* columns packed together: they stay in the L2 cache */
    GR_MORE_DEPTH = 64,  /* of a product that is added in the same pass, at most */
    GR_RIGHT_WORDS = (GR_DEPTH + GR_MORE_DEPTH) * GR_RIGHT_BLOCK,
    GR_ROOM_ROWS = 256, /* of a left operand that a product packs itself at a time */
    GR_LEFT_WORDS = GR_ROOM_ROWS * GR_DEPTH
};
enum { GR_CACHE_LINE = 64 };
_Static_assert(GR_RIGHT_BLOCK % GR_RIGHT_COLUMNS == 0, "blocks are whole panels");
_Static_assert(GR_RIGHT_BLOCK % (2 * GR_TILE_SIDE) == 0, "of tiles too");
_Static_assert(GR_LEFT_ROWS % GR_KERNEL_ROWS == 0, "panels are whole kernels");

/* How many columns a panel of a right operand has, at most. */
static inline int64_t gr_right_columns(bool pairs)
{
    return GR_HAS_TILES && pairs ? 2 * GR_TILE_SIDE : GR_RIGHT_COLUMNS;
}

/* A left operand, (m, k), packed; or, where tiles are multiplied, in rows as it lies in memory. */
struct gr_left {
    uint32_t *words; /* [ceil(m / GR_LEFT_ROWS)][stride][GR_LEFT_ROWS]; tiles: see above */
    int64_t m, k;
    int64_t depth;  /* words along k, whole tiles */
    int64_t stride; /* depth, or that of the operand this one is a part of; lies: words of a row */
    bool pairs, lies;
};

/* A matrix as it lies in memory, f32 or bf16; transposed: its rows run along the inner dimension of
 * the right operand, its columns along that of the left one. */
struct gr_operand {
    gr_tensor t;
    bool transposed;
};

/* A thread's room for what products pack themselves. */
struct gr_gemm_room {
    uint32_t *left, *right; /* [GR_LEFT_WORDS], [GR_RIGHT_WORDS] */
    int64_t *busy_ns;       /* NULL, or the profile's: the time of every product is added */
    /* What this thread will pack next as a right operand, or none: it is fetched from memory while
     * the product is computed, and changes no bit. */
    struct gr_operand next;
};
static inline int64_t gr_gemm_room_words(void)
{
    return GR_LEFT_WORDS + GR_RIGHT_WORDS;
}
/* The calling thread's, at `memory`. */
static inline struct gr_gemm_room gr_gemm_room_at(struct gr_device *dev, void *memory)
{
    return (struct gr_gemm_room){
        .left = memory,
        .right = (uint32_t *)memory + GR_LEFT_WORDS,
        .busy_ns =
            dev->profile == NULL ? NULL : &dev->profile->thread[omp_get_thread_num()].product_ns};
}

/* Whether products of an op that stores this dtype pack pairs. */
static inline bool gr_packs_pairs(enum gr_dtype dtype)
{
    return GR_HAS_PAIRS && dtype == GR_BF16;
}

/* Words that m x k elements take when packed. */
static inline int64_t gr_left_depth(int64_t k, bool pairs)
{
    const int64_t step = GR_HAS_TILES ? GR_TILE_SIDE : 1;

    return pairs ? ((k + 1) / 2 + step - 1) / step * step : k;
}
static inline int64_t gr_left_words(int64_t m, int64_t k, bool pairs)
{
    return (m + GR_LEFT_ROWS - 1) / GR_LEFT_ROWS * GR_LEFT_ROWS * gr_left_depth(k, pairs);
}

/* Enough words for `count` operands of m rows, k elements together, pairs or not. */
static inline int64_t gr_left_words_most(int64_t m, int64_t k, int64_t count)
{
    return gr_left_words(m, k + (GR_HAS_TILES ? count * GR_TILE_SIDE : 0), false);
}

/* The operand that will lie packed in `words`. */
static inline struct gr_left gr_left_at(uint32_t *words, int64_t m, int64_t k, bool pairs)
{
    int64_t depth = gr_left_depth(k, pairs);

    return (struct gr_left){words, m, k, depth, depth, pairs, false};
}

/* Whether a matrix, (m, k), can be multiplied as it lies: of bf16 pairs in whole tiles. */
static inline bool gr_left_can_lie(gr_tensor t)
{
    return GR_HAS_TILES && t.dtype == GR_BF16 && t.dim[0] % GR_TILE_SIDE == 0 &&
           t.dim[1] % (2 * GR_TILE_SIDE) == 0 && t.stride % 2 == 0;
}
static inline struct gr_left gr_left_lying(gr_tensor t)
{
    return (struct gr_left){t.data, t.dim[0], t.dim[1], t.dim[1] / 2, t.stride / 2, true, true};
}

/* Rows [begin, end) of a packed operand; begin: a multiple of GR_LEFT_ROWS. */
static inline struct gr_left gr_left_part(struct gr_left a, int64_t begin, int64_t end)
{
    a.words += begin * a.stride;
    a.m = end - begin;
    return a;
}

/* Its columns [begin, end), whole words and tiles, the last ones excepted. */
static inline struct gr_left gr_left_columns(struct gr_left a, int64_t begin, int64_t end)
{
    a.words += gr_left_depth(begin, a.pairs) * (a.lies ? 1 : GR_LEFT_ROWS);
    a.k = end - begin;
    a.depth = gr_left_depth(a.k, a.pairs);
    return a;
}

/* Packs a, (m, k) or (k, m) when transposed, into words. */
struct gr_left GR_CPU(pack_left)(uint32_t *words, struct gr_operand a, bool pairs);
/* Packs words [begin, end) of the inner dimension (zeros behind its last) and columns [column,
 * column + count) of b, (k, n) or (n, k) when transposed, into a panel of `width` >= count columns,
 * the rest of them zeros. */
void GR_CPU(pack_right)(uint32_t *panel, struct gr_operand b, bool pairs, int64_t begin,
                        int64_t end, int64_t column, int64_t count, int64_t width);

/* c (f32) <- or += alpha a b.  b: (k, n), or (n, k) when transposed.
 * Sizes that do not fit are a bug.  An inner dimension of 0 makes the product 0. */
void GR_CPU(multiply)(gr_tensor c, enum gr_write write, float alpha, struct gr_left a,
                      struct gr_operand b, struct gr_gemm_room room);

/* c <- or += a b + more.a more.b, in one pass over c: a.k > 0, more.a has a's rows and at most
 * GR_MORE_DEPTH words of depth. */
struct gr_term {
    struct gr_left a;
    struct gr_operand b;
};
void GR_CPU(multiply_both)(gr_tensor c, enum gr_write write, struct gr_term base,
                           struct gr_term more, struct gr_gemm_room room);

/* The same as multiply with both operands as they lie in memory. */
void GR_CPU(product)(gr_tensor c, enum gr_write write, float alpha, struct gr_operand a,
                     struct gr_operand b, bool pairs, struct gr_gemm_room room);

/* c <- or += alpha a bT for one row, (1, k): b, (n, k), is read once, so packing it would cost more
 * than the sums, which have another order than those above.  The room is not used where a is f32.
 */
void GR_CPU(product_row)(gr_tensor c, enum gr_write write, float alpha, gr_tensor a, gr_tensor b,
                         struct gr_gemm_room room);

/* c <- or += alpha a b, a bT and aT b */
static inline void gr_product_nn(gr_tensor c, enum gr_write write, float alpha, gr_tensor a,
                                 gr_tensor b, bool pairs, struct gr_gemm_room room)
{
    GR_CPU(product)
    (c, write, alpha, (struct gr_operand){a, false}, (struct gr_operand){b, false}, pairs, room);
}
static inline void gr_product_nt(gr_tensor c, enum gr_write write, float alpha, gr_tensor a,
                                 gr_tensor b, bool pairs, struct gr_gemm_room room)
{
    GR_CPU(product)
    (c, write, alpha, (struct gr_operand){a, false}, (struct gr_operand){b, true}, pairs, room);
}
static inline void gr_product_tn(gr_tensor c, enum gr_write write, float alpha, gr_tensor a,
                                 gr_tensor b, bool pairs, struct gr_gemm_room room)
{
    GR_CPU(product)
    (c, write, alpha, (struct gr_operand){a, true}, (struct gr_operand){b, false}, pairs, room);
}

#endif
