/* The kernels of matrix products, for gemm.c: a few rows of c by a panel of columns, of two packed
 * panels.  One multiplies vectors; where the CPU multiplies tiles (AMX), pairs go through the
 * other. */
#ifndef GR_CPU_GEMM_KERNEL_H
#define GR_CPU_GEMM_KERNEL_H

#include "kernels/cpu/gemm.h"

#include <string.h>

enum {
    GR_VECTORS_MOST = GR_RIGHT_COLUMNS / GR_VECTOR,
    GR_TILE_ROWS_MOST = 2 * GR_TILE_SIDE,
    GR_ROWS_MOST = GR_HAS_TILES ? GR_TILE_ROWS_MOST : GR_KERNEL_ROWS
};

/* How many rows of c a kernel computes. */
static inline int64_t gr_kernel_rows(bool pairs)
{
    return GR_HAS_TILES && pairs ? GR_TILE_ROWS_MOST : GR_KERNEL_ROWS;
}

/* c <- or += alpha a b for c, (rows, columns), at most what a kernel computes. */
struct gr_kernel_call {
    float *c;
    int64_t stride, rows, columns;
    struct gr_kernel_term {
        const uint32_t *a, *b; /* panels; a may begin inside of one */
        int64_t next_a;        /* words from a panel of a to the next */
        int64_t depth;         /* 0: there is no such term */
        int64_t a_row, a_tile; /* of tiles: words from a row to the next, from a tile to the next */
    } term[2];                 /* whose sums are one chain */
    float alpha;
    enum gr_write write;
};

/* ---- vectors ---- */

/* c of whole vectors and all rows; `vectors` and `pairs` are constants where it is inlined */
static inline __attribute__((always_inline)) void
gr_multiply_vectors(const struct gr_kernel_call *t, const int vectors, const bool pairs)
{
    gr_vector sum[GR_KERNEL_ROWS][GR_VECTORS_MOST], alpha = gr_vector_all(t->alpha);

#pragma GCC unroll 8
    for (int i = 0; i < GR_KERNEL_ROWS; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++)
            sum[i][j] = gr_vector_all(0.0f);
    for (int term = 0; term < 2 && t->term[term].depth > 0; term++) {
        const uint32_t *a = t->term[term].a, *b = t->term[term].b;

        for (int64_t l = t->term[term].depth; l > 0;
             l--, a += GR_LEFT_ROWS, b += vectors * GR_VECTOR) {
            gr_vector right[GR_VECTORS_MOST];

#pragma GCC unroll 3
            for (int j = 0; j < vectors; j++)
                right[j] = gr_vector_load(b + j * GR_VECTOR);
#pragma GCC unroll 8
            for (int i = 0; i < GR_KERNEL_ROWS; i++)
#pragma GCC unroll 3
                for (int j = 0; j < vectors; j++)
                    sum[i][j] =
                        pairs ? gr_vector_multiply_add_pairs(a[i], right[j], sum[i][j])
                              : gr_vector_multiply_add(gr_vector_all(gr_float_from_bits(a[i])),
                                                       right[j], sum[i][j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < GR_KERNEL_ROWS; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++) {
            float *c = t->c + i * t->stride + j * GR_VECTOR;

            gr_vector_store(c, t->write == GR_ACCUMULATE ? gr_vector_load(c) + alpha * sum[i][j]
                                                         : alpha * sum[i][j]);
        }
}

/* ---- tiles ----
 * Registers 0 to 3 hold sums, two rows of tiles by two columns; 4 and 5 tiles of a, 6 and 7 of b.
 */

#if defined(__AMX_BF16__)

/* A thread configures its tile registers before a product and releases them after it. */
static inline void gr_tiles_configure(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};

    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = GR_TILE_SIDE * 4;
        config.rows[i] = GR_TILE_SIDE;
    }
    __asm__ volatile("" ::"r"(&config) : "memory"); /* all of it has been written */
    _tile_loadconfig(&config);
}

static inline void gr_tiles_release(void)
{
    _tile_release();
}

/* c (16, 16) <- or += alpha sum */
static inline void gr_tile_scaled(float *c, int64_t stride, enum gr_write write, float alpha,
                                  const float *sum)
{
    for (int i = 0; i < GR_TILE_SIDE; i++) {
        gr_vector scaled = gr_vector_all(alpha) * gr_vector_load(sum + i * GR_TILE_SIDE);
        float *to = c + i * stride;

        if (write == GR_ACCUMULATE)
            scaled += gr_vector_load(to);
        gr_vector_store(to, scaled);
    }
}

/* The number of a register must be a literal. */
#define GR_TILE_BEGIN(number, c)                                                                   \
    do {                                                                                           \
        if (continues)                                                                             \
            _tile_loadd(number, c, stride);                                                        \
        else                                                                                       \
            _tile_zero(number);                                                                    \
    } while (0)
#define GR_TILE_END(number, c)                                                                     \
    do {                                                                                           \
        if (t->alpha == 1.0f) {                                                                    \
            _tile_stored(number, c, stride);                                                       \
        } else {                                                                                   \
            _tile_stored(number, sum, GR_TILE_SIDE * sizeof *sum);                                 \
            gr_tile_scaled(c, t->stride, t->write, t->alpha, sum);                                 \
        }                                                                                          \
    } while (0)

/* Two tiles of rows, or one, by a panel of two tiles of columns, or one; `tall` and `wide` are
 * constants where it is inlined. */
static inline __attribute__((always_inline)) void
gr_multiply_tiles(const struct gr_kernel_call *t, const bool tall, const bool wide)
{
    const int64_t width = wide ? 2 * GR_TILE_SIDE : GR_TILE_SIDE;
    float *c = t->c, *c_below = c + GR_TILE_SIDE * t->stride;
    float sum[GR_TILE_SIDE * GR_TILE_SIDE];
    const bool continues = t->alpha == 1.0f && t->write == GR_ACCUMULATE;
    const int64_t stride = t->stride * (int64_t)sizeof *c,
                  b_stride = width * (int64_t)sizeof(uint32_t);

    __asm__ volatile("" ::: "memory"); /* what the tiles read has been written */
    GR_TILE_BEGIN(0, c);
    if (wide)
        GR_TILE_BEGIN(1, c + GR_TILE_SIDE);
    if (tall)
        GR_TILE_BEGIN(2, c_below);
    if (tall && wide)
        GR_TILE_BEGIN(3, c_below + GR_TILE_SIDE);
    for (int term = 0; term < 2 && t->term[term].depth > 0; term++) {
        const uint32_t *a = t->term[term].a, *below = a + t->term[term].next_a;
        const uint32_t *b = t->term[term].b;
        const int64_t a_row = t->term[term].a_row * (int64_t)sizeof *a;
        const int64_t a_tile = t->term[term].a_tile;

        for (int64_t l = 0; l < t->term[term].depth;
             l += GR_TILE_SIDE, a += a_tile, below += a_tile) {
            _tile_loadd(4, a, a_row);
            _tile_loadd(6, b + l * width, b_stride);
            _tile_dpbf16ps(0, 4, 6);
            if (wide) {
                _tile_loadd(7, b + l * width + GR_TILE_SIDE, b_stride);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (tall) {
                _tile_loadd(5, below, a_row);
                _tile_dpbf16ps(2, 5, 6);
            }
            if (tall && wide)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
    GR_TILE_END(0, c);
    if (wide)
        GR_TILE_END(1, c + GR_TILE_SIDE);
    if (tall)
        GR_TILE_END(2, c_below);
    if (tall && wide)
        GR_TILE_END(3, c_below + GR_TILE_SIDE);
}

/* c of whole tiles */
static inline void gr_run_tiles(const struct gr_kernel_call *t, int64_t rows, int64_t vectors)
{
    bool tall = rows > GR_TILE_SIDE, wide = vectors * GR_VECTOR > GR_TILE_SIDE;

    if (tall && wide)
        gr_multiply_tiles(t, true, true);
    else if (tall)
        gr_multiply_tiles(t, true, false);
    else if (wide)
        gr_multiply_tiles(t, false, true);
    else
        gr_multiply_tiles(t, false, false);
}
#undef GR_TILE_BEGIN
#undef GR_TILE_END

#else
static inline void gr_tiles_configure(void)
{
}
static inline void gr_tiles_release(void)
{
}
static inline void gr_run_tiles(const struct gr_kernel_call *t, int64_t rows, int64_t vectors)
{
    (void)t;
    (void)rows;
    (void)vectors;
}
#endif

/* ---- either ---- */

/* `pairs` is a constant where it is inlined. */
static inline __attribute__((always_inline)) void gr_run_vectors(const struct gr_kernel_call *t,
                                                                 int64_t vectors, const bool pairs)
{
    switch (vectors) {
    case 1:
        gr_multiply_vectors(t, 1, pairs);
        break;
    case 2:
        gr_multiply_vectors(t, 2, pairs);
        break;
    default:
        gr_multiply_vectors(t, 3, pairs);
        break;
    }
}

static inline void gr_run_whole(const struct gr_kernel_call *t, int64_t rows, int64_t vectors,
                                bool pairs)
{
    if (GR_HAS_TILES && pairs)
        gr_run_tiles(t, rows, vectors);
    else if (pairs)
        gr_run_vectors(t, vectors, true);
    else
        gr_run_vectors(t, vectors, false);
}

/* Where rows or columns are missing, c is made whole first; what is computed there goes nowhere. */
static inline void gr_kernel_run(const struct gr_kernel_call *t, int64_t vectors, bool pairs)
{
    const int64_t unit = GR_HAS_TILES && pairs ? GR_TILE_SIDE : GR_KERNEL_ROWS;
    int64_t rows = (t->rows + unit - 1) / unit * unit;
    float whole[GR_ROWS_MOST * GR_RIGHT_COLUMNS];
    struct gr_kernel_call edge = *t;

    if (t->rows == rows && t->columns == vectors * GR_VECTOR) {
        gr_run_whole(t, rows, vectors, pairs);
        return;
    }
    if (t->write == GR_ACCUMULATE)
        memset(whole, 0, (size_t)(rows * GR_RIGHT_COLUMNS) * sizeof(float));
    edge.c = whole;
    edge.stride = GR_RIGHT_COLUMNS;
    for (int64_t i = 0; i < t->rows && t->write == GR_ACCUMULATE; i++)
        memcpy(whole + i * edge.stride, t->c + i * t->stride, (size_t)t->columns * sizeof(float));
    gr_run_whole(&edge, rows, vectors, pairs);
    for (int64_t i = 0; i < t->rows; i++)
        memcpy(t->c + i * t->stride, whole + i * edge.stride, (size_t)t->columns * sizeof(float));
}

#endif
