/* Packing the operands of a matrix product.  See gemm.h. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <string.h>

/* Rows are turned into columns in squares of 8 x 8 words. */
enum { SIDE = 8 };
typedef uint32_t line __attribute__((vector_size(4 * SIDE)));

static line load_line(const void *from)
{
    line x;

    memcpy(&x, from, sizeof x);
    return x;
}

/* Words [begin, begin + count) of the inner dimension, of one row that runs along it. */
static void row_words(uint32_t *to, gr_tensor t, int64_t row, bool pairs, int64_t begin,
                      int64_t count)
{
    int64_t each = pairs ? 2 : 1;

    for (int64_t l = 0; l < count; l++) {
        uint32_t half[2] = {0, 0};

        for (int64_t e = 0; e < each; e++) {
            int64_t column = (begin + l) * each + e;
            float scratch;

            if (column >= t.dim[1])
                continue;
            half[e] = gr_float_to_bits(*gr_load_run(t, row, column, 1, &scratch));
            if (pairs)
                half[e] = gr_float_to_bf16(gr_float_from_bits(half[e]));
        }
        to[l] = pairs ? half[0] | half[1] << 16 : half[0];
    }
}

/* A whole line of them. */
static inline __attribute__((always_inline)) line row_line(const gr_tensor *t, int64_t row,
                                                           int64_t begin, const enum gr_dtype dtype,
                                                           const bool pairs)
{
    uint32_t words[SIDE];
    int64_t each = pairs ? 2 : 1;
    const uint16_t *halves = (const uint16_t *)t->data + row * t->stride + begin * each;
    const float *floats = (const float *)t->data + row * t->stride + begin * each;

    if (pairs == (dtype == GR_BF16))
        return load_line(dtype == GR_BF16 ? (const void *)halves : (const void *)floats);
    if (pairs)
        gr_round_16((uint16_t *)words, floats);
    else
        for (int l = 0; l < SIDE; l++)
            words[l] = (uint32_t)halves[l] << 16;
    return load_line(words);
}

static inline __attribute__((always_inline)) void transpose(line x[SIDE])
{
    line y[SIDE];

    for (int i = 0; i < SIDE; i += 2) { /* 2 x 2 */
        y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int i = 0; i < SIDE; i += 4) /* 4 x 4 */
        for (int j = i; j < i + 2; j++) {
            x[j] = __builtin_shufflevector(y[j], y[j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            x[j + 2] = __builtin_shufflevector(y[j], y[j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int j = 0; j < 4; j++) {
        y[j] = __builtin_shufflevector(x[j], x[j + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        y[j + 4] = __builtin_shufflevector(x[j], x[j + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    memcpy(x, y, sizeof y);
}

/* One square whose rows and words all exist: panel[l][i] <- word begin + l of row first + i. `kept`
 * rows of them are wanted; constants where it is inlined: kept, dtype and pairs. */
static inline __attribute__((always_inline)) void
pack_whole_square(uint32_t *panel, int64_t width, const gr_tensor *t, int64_t first, int64_t begin,
                  const int kept, const enum gr_dtype dtype, const bool pairs)
{
    line x[SIDE];

#pragma GCC unroll 8
    for (int i = 0; i < SIDE; i++)
        x[i] = i < kept ? row_line(t, first + i, begin, dtype, pairs) : (line){0};
    transpose(x);
#pragma GCC unroll 8
    for (int l = 0; l < SIDE; l++)
        memcpy(panel + l * width, &x[l], (size_t)kept * sizeof *panel);
}

/* The same for squares with an edge: `rows` rows, `lines` words of each; zeros for the other rows.
 */
static void pack_edge_square(uint32_t *panel, int64_t width, const gr_tensor *t, int64_t first,
                             int64_t begin, int64_t rows, int64_t lines, int64_t kept, bool pairs)
{
    for (int64_t i = 0; i < kept; i++) {
        uint32_t words[SIDE] = {0};

        if (i < rows)
            row_words(words, *t, first + i, pairs, begin, lines);
        for (int64_t l = 0; l < lines; l++)
            panel[l * width + i] = words[l];
    }
}

/* The whole squares of `kept` rows, words [begin, end). */
static void pack_whole_squares(uint32_t *panel, int64_t width, const gr_tensor *t, int64_t first,
                               int64_t begin, int64_t end, int64_t kept, bool pairs)
{
#define SQUARES(kept, dtype, pairs)                                                                \
    for (int64_t l = begin; l < end; l += SIDE)                                                    \
    pack_whole_square(panel + (l - begin) * width, width, t, first, l, kept, dtype, pairs)

    if (kept == SIDE) {
        if (pairs && t->dtype == GR_BF16)
            SQUARES(SIDE, GR_BF16, true);
        else if (pairs)
            SQUARES(SIDE, GR_F32, true);
        else if (t->dtype == GR_BF16)
            SQUARES(SIDE, GR_BF16, false);
        else
            SQUARES(SIDE, GR_F32, false);
    } else {
        if (t->dtype == GR_BF16)
            SQUARES(SIDE / 2, GR_BF16, false);
        else
            SQUARES(SIDE / 2, GR_F32, false);
    }
#undef SQUARES
}

/* panel[l][i] <- word l of row first + i, for i < count; zeros up to width */
static void pack_rows(uint32_t *panel, gr_tensor t, bool pairs, int64_t begin, int64_t end,
                      int64_t first, int64_t count, int64_t width)
{
    int64_t lying = pairs ? t.dim[1] / 2 : t.dim[1]; /* words that lie in a row whole */
    int64_t whole = gr_larger(0, gr_smaller(end, lying) - begin) / SIDE * SIDE;

    for (int64_t side = 0; side < width; side += SIDE) {
        int64_t kept = gr_smaller(SIDE, width - side), rows = gr_smaller(kept, count - side);
        bool fits = rows == kept && (kept == SIDE || (kept == SIDE / 2 && !pairs));
        int64_t edge = fits ? begin + whole : begin;

        if (fits)
            pack_whole_squares(panel + side, width, &t, first + side, begin, edge, kept, pairs);
        for (int64_t l = edge; l < end; l += SIDE)
            pack_edge_square(panel + (l - begin) * width + side, width, &t, first + side, l, rows,
                             gr_smaller(SIDE, end - l), kept, pairs);
    }
}

/* Rows lie too far apart for the CPU to see what comes next. */
enum { AHEAD = 12 };
static inline void prefetch(const gr_tensor *t, int64_t row, int64_t first, int64_t count)
{
    const char *from = gr_element(*t, row, first);

    for (int64_t at = 0; at < count * gr_dtype_bytes(t->dtype); at += GR_CACHE_LINE)
        __builtin_prefetch(from + at);
}

static void pair_up(uint32_t *restrict to, const uint16_t *restrict even,
                    const uint16_t *restrict odd, int64_t count)
{
    for (int64_t j = 0; j < count; j++)
        to[j] = even[j] | (uint32_t)odd[j] << 16;
}

static void round_run(uint16_t *to, const float *from, int64_t count)
{
    int64_t j = 0;

    for (; j + 16 <= count; j += 16)
        gr_round_16(to + j, from + j);
    for (; j < count; j++)
        to[j] = gr_float_to_bf16(from[j]);
}

/* Behind the last row come zeros. */
static void pack_row_pair(uint32_t *to, const gr_tensor *t, int64_t row, int64_t first,
                          int64_t count)
{
    static const uint16_t zeros[GR_RIGHT_COLUMNS];
    uint16_t even[GR_RIGHT_COLUMNS], odd[GR_RIGHT_COLUMNS];
    bool has_second = row + 1 < t->dim[0];

    if (row >= t->dim[0]) {
        memset(to, 0, (size_t)count * sizeof *to);
        return;
    }
    if (t->dtype == GR_BF16) {
        pair_up(to, gr_element(*t, row, first), has_second ? gr_element(*t, row + 1, first) : zeros,
                count);
        return;
    }
    round_run(even, gr_element(*t, row, first), count);
    if (has_second)
        round_run(odd, gr_element(*t, row + 1, first), count);
    pair_up(to, even, has_second ? odd : zeros, count);
}

static void pack_row(uint32_t *to, const gr_tensor *t, int64_t row, int64_t first, int64_t count)
{
    const uint16_t *x = gr_element(*t, row, first);

    if (t->dtype == GR_BF16)
        for (int64_t j = 0; j < count; j++)
            to[j] = (uint32_t)x[j] << 16;
    else
        memcpy(to, x, (size_t)count * 4);
}

/* Pairs of rows [begin, end) that both exist, of bf16; `count` may be a constant where it is
 * inlined.
 */
static inline __attribute__((always_inline)) void
pack_bf16_pairs(uint32_t *panel, const gr_tensor *t, int64_t begin, int64_t end, int64_t first,
                const int64_t count, int64_t width)
{
    const uint16_t *even = gr_element(*t, 2 * begin, first);

    for (int64_t l = begin; l < end; l++, even += 2 * t->stride, panel += width) {
        const uint16_t *ahead = even + 2 * AHEAD * t->stride;

        __builtin_prefetch(ahead);
        __builtin_prefetch(ahead + t->stride);
        pair_up(panel, even, even + t->stride, count);
        for (int64_t j = count; j < width; j++)
            panel[j] = 0;
    }
}

/* panel[l][j] <- word l of column first + j, for j < count; zeros up to width */
static void pack_columns(uint32_t *panel, gr_tensor t, bool pairs, int64_t begin, int64_t end,
                         int64_t first, int64_t count, int64_t width)
{
    int64_t each = pairs ? 2 : 1, l = begin;

    if (pairs && t.dtype == GR_BF16) {
        l = gr_larger(begin, gr_smaller(end, t.dim[0] / 2));
        if (count == 2 * GR_TILE_SIDE)
            pack_bf16_pairs(panel, &t, begin, l, first, 2 * GR_TILE_SIDE, width);
        else
            pack_bf16_pairs(panel, &t, begin, l, first, count, width);
    }
    for (; l < end; l++) {
        uint32_t *to = panel + (l - begin) * width;

        for (int64_t row = 0; row < each; row++)
            prefetch(&t, (l + AHEAD) * each + row, first, count);
        if (pairs)
            pack_row_pair(to, &t, 2 * l, first, count);
        else
            pack_row(to, &t, l, first, count);
        for (int64_t j = count; j < width; j++)
            to[j] = 0;
    }
}

/* ---- a left operand in tiles ---- */

/* The rows of all tiles that lie in a row whole; returns where the others begin. */
static int64_t pack_whole_tile_rows(uint32_t *to, const gr_tensor *t, int64_t row, int64_t depth)
{
    int64_t whole = gr_smaller(depth, t->dim[1] / 2) / GR_TILE_SIDE * GR_TILE_SIDE;
    const uint16_t *halves = gr_element(*t, row, 0);
    const float *floats = gr_element(*t, row, 0);

    if (t->dtype == GR_BF16)
        for (int64_t l = 0; l < whole; l += GR_TILE_SIDE)
            memcpy(to + l * GR_TILE_SIDE, halves + 2 * l, GR_TILE_SIDE * sizeof *to);
    else
        for (int64_t l = 0; l < whole; l += GR_TILE_SIDE)
            for (int half = 0; half < 2; half++)
                gr_round_16((uint16_t *)(to + l * GR_TILE_SIDE) + half * GR_TILE_SIDE,
                            floats + 2 * l + half * GR_TILE_SIDE);
    return whole;
}

/* panel <- rows [first, first + count) of t, zeros for the others */
static void pack_tiles(uint32_t *panel, const gr_tensor *t, int64_t first, int64_t count,
                       int64_t depth)
{
    for (int64_t i = 0; i < GR_TILE_SIDE; i++) {
        uint32_t *to = panel + i * GR_TILE_SIDE;
        int64_t l = i < count ? pack_whole_tile_rows(to, t, first + i, depth) : 0;

        for (; l < depth; l += GR_TILE_SIDE) {
            memset(to + l * GR_TILE_SIDE, 0, GR_TILE_SIDE * sizeof *to);
            if (i < count)
                row_words(to + l * GR_TILE_SIDE, *t, first + i, true, l, GR_TILE_SIDE);
        }
    }
}

/* to[j][i] <- from[i][j] of a tile */
static void transpose_tile(uint32_t *to, const uint32_t *from)
{
    for (int i = 0; i < GR_TILE_SIDE; i += SIDE)
        for (int j = 0; j < GR_TILE_SIDE; j += SIDE) {
            line x[SIDE];

            for (int l = 0; l < SIDE; l++)
                x[l] = load_line(from + (i + l) * GR_TILE_SIDE + j);
            transpose(x);
            for (int l = 0; l < SIDE; l++)
                memcpy(to + (j + l) * GR_TILE_SIDE + i, &x[l], sizeof x[l]);
        }
}

/* The same of columns [first, first + count). */
static void pack_transposed_tiles(uint32_t *panel, const gr_tensor *t, int64_t first, int64_t count,
                                  int64_t depth)
{
    for (int64_t l = 0; l < depth; l += GR_TILE_SIDE) {
        uint32_t columns[GR_TILE_SIDE * GR_TILE_SIDE];

        pack_columns(columns, *t, true, l, l + GR_TILE_SIDE, first, count, GR_TILE_SIDE);
        transpose_tile(panel + l * GR_TILE_SIDE, columns);
    }
}

static void pack_panel(uint32_t *panel, struct gr_operand a, bool pairs, int64_t row, int64_t count,
                       int64_t depth)
{
    if (GR_HAS_TILES && pairs)
        (a.transposed ? pack_transposed_tiles : pack_tiles)(panel, &a.t, row, count, depth);
    else
        (a.transposed ? pack_columns : pack_rows)(panel, a.t, pairs, 0, depth, row, count,
                                                  GR_LEFT_ROWS);
}

struct gr_left GR_CPU(pack_left)(uint32_t *words, struct gr_operand a, bool pairs)
{
    int64_t m = a.transposed ? a.t.dim[1] : a.t.dim[0];
    int64_t k = a.transposed ? a.t.dim[0] : a.t.dim[1];
    struct gr_left left = gr_left_at(words, m, k, pairs);

    for (int64_t row = 0; row < left.m; row += GR_LEFT_ROWS) {
        int64_t count = gr_smaller(GR_LEFT_ROWS, left.m - row);

        pack_panel(words + row * left.depth, a, pairs, row, count, left.depth);
    }
    return left;
}

void GR_CPU(pack_right)(uint32_t *panel, struct gr_operand b, bool pairs, int64_t begin,
                        int64_t end, int64_t column, int64_t count, int64_t width)
{
    (b.transposed ? pack_rows : pack_columns)(panel, b.t, pairs, begin, end, column, count, width);
}
