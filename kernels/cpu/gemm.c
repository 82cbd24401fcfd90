/* The loops of every matrix product around its kernel.  See gemm.h; packing is in pack.c. */
#include "kernels/base/clock.h"
#include "kernels/base/status.h"
#include "kernels/cpu/gemm_kernel.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <string.h>

static int64_t inner_of(struct gr_operand b)
{
    return b.transposed ? b.t.dim[1] : b.t.dim[0];
}

static int64_t outer_of(struct gr_operand b)
{
    return b.transposed ? b.t.dim[0] : b.t.dim[1];
}

/* ---- fetching what is packed next ----
 * A matrix is far larger than the caches, and its rows lie too far apart for the CPU to guess what
 * comes: while one block is multiplied, the cache lines of the next are asked for. */

/* Part of a matrix in memory, line after line. */
struct fetch {
    const char *row;
    int64_t rows, stride; /* that are left; bytes between two of them */
    int64_t at, bytes;    /* of a row */
};

/* The block of b that begins there. */
static struct fetch fetch_block(struct gr_operand b, bool pairs, int64_t begin, int64_t column)
{
    int64_t each = pairs ? 2 : 1, bytes = gr_dtype_bytes(b.t.dtype), first = begin * each;
    int64_t depth = gr_smaller(GR_DEPTH * each, inner_of(b) - first);
    int64_t columns = gr_smaller(GR_RIGHT_BLOCK, outer_of(b) - column);

    return (struct fetch){.row = b.transposed ? gr_element(b.t, column, first)
                                              : gr_element(b.t, first, column),
                          .rows = b.transposed ? columns : depth,
                          .stride = b.t.stride * bytes,
                          .bytes = (b.transposed ? depth : columns) * bytes};
}

/* What is packed behind the block of b that begins there. */
static struct fetch fetch_next(struct gr_operand b, struct gr_operand next, bool pairs,
                               int64_t begin, int64_t column)
{
    if (gr_left_depth(inner_of(b), pairs) > begin + GR_DEPTH)
        return fetch_block(b, pairs, begin + GR_DEPTH, column);
    if (outer_of(b) > column + GR_RIGHT_BLOCK)
        return fetch_block(b, pairs, 0, column + GR_RIGHT_BLOCK);
    return gr_tensor_is_none(next.t) ? (struct fetch){0} : fetch_block(next, pairs, 0, 0);
}

static void fetch_lines(struct fetch *f, int64_t lines)
{
    for (; lines > 0 && f->rows > 0; lines--) {
        __builtin_prefetch(f->row + f->at, 0, 2); /* into the L2 */
        f->at += GR_CACHE_LINE;
        if (f->at >= f->bytes) {
            f->at = 0;
            f->row += f->stride;
            f->rows--;
        }
    }
}

/* ---- products ---- */

/* A block of a product: words [begin, begin + depth) of the inner dimension, of b some columns,
 * packed panel after panel.  a: NULL, there is none. */
struct slice {
    const struct gr_left *a;
    const uint32_t *b;
    int64_t begin, depth;
};

/* Its panels that begin there: a's row, b's column. */
static struct gr_kernel_term term_at(const struct slice *s, int64_t row, int64_t column)
{
    int64_t in_panel = row % GR_LEFT_ROWS, each;

    if (s->a == NULL)
        return (struct gr_kernel_term){0};
    each = s->a->lies ? 1 : GR_LEFT_ROWS; /* words of one of depth */
    return (struct gr_kernel_term){.a = s->a->words + (row - in_panel) * s->a->stride +
                                        s->begin * each + in_panel,
                                   .b = s->b + column * s->depth,
                                   .next_a = GR_LEFT_ROWS * s->a->stride,
                                   .depth = s->depth,
                                   .a_row = s->a->lies ? s->a->stride : GR_TILE_SIDE,
                                   .a_tile = GR_TILE_SIDE * each};
}

/* c <- or += alpha (a b + more) for the block: a panel of a is used for all of b's while it is in
 * the L1 */
static void multiply_block(gr_tensor c, enum gr_write write, float alpha, const struct slice *base,
                           const struct slice *more, struct fetch next)
{
    bool pairs = base->a->pairs;
    struct gr_kernel_call t = {.stride = c.stride, .alpha = alpha, .write = write};
    int64_t lines = next.rows * gr_pieces(next.bytes, GR_CACHE_LINE), m = base->a->m;
    int64_t rows = gr_kernel_rows(pairs), panel = gr_right_columns(pairs);
    int64_t share = gr_pieces(lines, gr_pieces(m, rows));

    for (int64_t row = 0; row < m; row += rows) {
        t.rows = gr_smaller(rows, m - row);
        fetch_lines(&next, share);
        for (int64_t column = 0; column < c.dim[1]; column += panel) {
            t.columns = gr_smaller(panel, c.dim[1] - column);
            t.c = gr_row_f32(c, row) + column;
            t.term[0] = term_at(base, row, column);
            t.term[1] = term_at(more, row, column);
            gr_kernel_run(&t, gr_pieces(t.columns, GR_VECTOR), pairs);
        }
    }
}

static void check(gr_tensor c, int64_t m, int64_t k, struct gr_operand b)
{
    GR_CHECK(c.ndim == 2 && b.t.ndim == 2 && c.dtype == GR_F32 && c.dim[0] == m &&
                 c.dim[1] == outer_of(b) && k == inner_of(b),
             "(%lld, %lld) x (%lld, %lld) into (%lld, %lld)", (long long)m, (long long)k,
             (long long)inner_of(b), (long long)outer_of(b), (long long)c.dim[0],
             (long long)c.dim[1]);
}

static void clear(gr_tensor c)
{
    for (int64_t i = 0; i < c.dim[0]; i++)
        memset(gr_row_f32(c, i), 0, (size_t)c.dim[1] * sizeof(float));
}

static void pack_block(uint32_t *words, struct gr_operand b, bool pairs, int64_t begin, int64_t end,
                       int64_t first, int64_t last)
{
    int64_t panel = gr_right_columns(pairs);

    for (int64_t column = first; column < last; column += panel) {
        int64_t count = gr_smaller(panel, last - column);

        GR_CPU(pack_right)
        (words + (column - first) * (end - begin), b, pairs, begin, end, column, count,
         gr_pieces(count, GR_VECTOR) * GR_VECTOR);
    }
}

/* c <- or += alpha (a b + more); more: NULL, or as in multiply_both.  Sizes have been checked. */
static void multiply(gr_tensor c, enum gr_write write, float alpha, const struct gr_term *base,
                     const struct gr_term *more, const struct gr_gemm_room *room)
{
    const struct gr_left *a = &base->a;
    uint32_t *more_words = room->right + GR_DEPTH * GR_RIGHT_BLOCK;
    int64_t n = outer_of(base->b);

    if (a->depth == 0 && write == GR_OVERWRITE)
        clear(c);
    for (int64_t column = 0; column < n; column += GR_RIGHT_BLOCK) {
        int64_t last = gr_smaller(n, column + GR_RIGHT_BLOCK);

        for (int64_t begin = 0; begin < a->depth; begin += GR_DEPTH) {
            int64_t end = gr_smaller(a->depth, begin + GR_DEPTH);
            struct slice slice = {a, room->right, begin, end - begin}, last_more = {0};

            pack_block(room->right, base->b, a->pairs, begin, end, column, last);
            if (more != NULL && end == a->depth) {
                last_more = (struct slice){&more->a, more_words, 0, more->a.depth};
                pack_block(more_words, more->b, a->pairs, 0, more->a.depth, column, last);
            }
            multiply_block(gr_tensor_columns(c, column, last), begin == 0 ? write : GR_ACCUMULATE,
                           alpha, &slice, &last_more,
                           fetch_next(base->b, room->next, a->pairs, begin, column));
        }
    }
}

static int64_t start(const struct gr_gemm_room *room, bool pairs)
{
    if (pairs)
        gr_tiles_configure();
    return room->busy_ns == NULL ? 0 : gr_clock_ns();
}

static void stop(const struct gr_gemm_room *room, bool pairs, int64_t begin_ns)
{
    if (room->busy_ns != NULL)
        *room->busy_ns += gr_clock_ns() - begin_ns;
    if (pairs)
        gr_tiles_release();
}

void GR_CPU(multiply)(gr_tensor c, enum gr_write write, float alpha, struct gr_left a,
                      struct gr_operand b, struct gr_gemm_room room)
{
    int64_t begin_ns = start(&room, a.pairs);

    check(c, a.m, a.k, b);
    multiply(c, write, alpha, &(struct gr_term){a, b}, NULL, &room);
    stop(&room, a.pairs, begin_ns);
}

void GR_CPU(multiply_both)(gr_tensor c, enum gr_write write, struct gr_term base,
                           struct gr_term more, struct gr_gemm_room room)
{
    int64_t begin_ns = start(&room, base.a.pairs);

    check(c, base.a.m, base.a.k, base.b);
    check(c, more.a.m, more.a.k, more.b);
    GR_CHECK(base.a.k > 0 && more.a.depth <= GR_MORE_DEPTH && more.a.pairs == base.a.pairs,
             "inner dimensions of %lld and %lld", (long long)base.a.k, (long long)more.a.k);
    multiply(c, write, 1.0f, &base, &more, &room);
    stop(&room, base.a.pairs, begin_ns);
}

/* ---- a single row ---- */

static double dot(const float *x, const float *y, int64_t n)
{
    gr_vector sum[4] = {gr_vector_all(0.0f), gr_vector_all(0.0f), gr_vector_all(0.0f),
                        gr_vector_all(0.0f)};
    float lane[4 * GR_VECTOR];
    double total = 0;
    int64_t l = 0;

    for (; l + 4 * GR_VECTOR <= n; l += 4 * GR_VECTOR)
        for (int i = 0; i < 4; i++)
            sum[i] = gr_vector_multiply_add(gr_vector_load(x + l + i * GR_VECTOR),
                                            gr_vector_load(y + l + i * GR_VECTOR), sum[i]);
    for (int i = 0; i < 4; i++)
        gr_vector_store(lane + i * GR_VECTOR, sum[i]);
    for (int i = 0; i < 4 * GR_VECTOR; i++)
        total += (double)lane[i];
    for (; l < n; l++)
        total += (double)x[l] * (double)y[l];
    return total;
}

/* c <- or += alpha a bT of at most GR_LEFT_WORDS columns; sizes have been checked */
static void multiply_row_part(gr_tensor c, enum gr_write write, float alpha, gr_tensor a,
                              gr_tensor b, float *scratch)
{
    const float *x = gr_load_run(a, 0, 0, a.dim[1], scratch);
    float *to = c.data, wide[GR_RUN];

    for (int64_t j = 0; j < b.dim[0]; j++) {
        double sum = 0;

        for (int64_t begin = 0; begin < b.dim[1]; begin += GR_RUN) {
            int64_t count = gr_smaller(GR_RUN, b.dim[1] - begin);

            sum += dot(x + begin, gr_load_run(b, j, begin, count, wide), count);
        }
        to[j] = alpha * (float)sum + (write == GR_ACCUMULATE ? to[j] : 0.0f);
    }
}

static void multiply_row(gr_tensor c, enum gr_write write, float alpha, gr_tensor a, gr_tensor b,
                         float *scratch)
{
    int64_t k = a.dim[1], begin = 0;

    do { /* once at least: without columns c is 0 */
        int64_t end = gr_smaller(k, begin + GR_LEFT_WORDS);

        multiply_row_part(c, begin == 0 ? write : GR_ACCUMULATE, alpha,
                          gr_tensor_columns(a, begin, end), gr_tensor_columns(b, begin, end),
                          scratch);
        begin = end;
    } while (begin < k);
}

void GR_CPU(product_row)(gr_tensor c, enum gr_write write, float alpha, gr_tensor a, gr_tensor b,
                         struct gr_gemm_room room)
{
    int64_t begin_ns = start(&room, false);

    check(c, 1, a.dim[1], (struct gr_operand){b, true});
    GR_CHECK(a.dim[0] == 1, "(%lld, %lld)", (long long)a.dim[0], (long long)a.dim[1]);
    multiply_row(c, write, alpha, a, b, (float *)room.left);
    stop(&room, false, begin_ns);
}

/* Its columns or rows [begin, end). */
static struct gr_operand part(struct gr_operand o, bool along_columns, int64_t begin, int64_t end)
{
    o.t = along_columns ? gr_tensor_columns(o.t, begin, end) : gr_tensor_rows(o.t, begin, end);
    return o;
}

/* Rows of c that a's packed rows fit into the room for. */
static void product_rows(gr_tensor c, enum gr_write write, float alpha, struct gr_operand a,
                         struct gr_operand b, bool pairs, struct gr_gemm_room room)
{
    int64_t k = inner_of(b), most = pairs ? 2 * GR_DEPTH : GR_DEPTH;

    for (int64_t begin = 0; begin < k; begin += most) {
        int64_t end = gr_smaller(k, begin + most);
        struct gr_left left =
            GR_CPU(pack_left)(room.left, part(a, !a.transposed, begin, end), pairs);
        struct gr_gemm_room here = room;

        if (end < k)
            here.next = part(b, b.transposed, end, gr_smaller(k, end + most));
        multiply(c, begin == 0 ? write : GR_ACCUMULATE, alpha,
                 &(struct gr_term){left, part(b, b.transposed, begin, end)}, NULL, &here);
    }
}

/* Sizes have been checked. */
static void product(gr_tensor c, enum gr_write write, float alpha, struct gr_operand a,
                    struct gr_operand b, bool pairs, struct gr_gemm_room room)
{
    int64_t m = c.dim[0], k = inner_of(b);

    if (k == 0 && write == GR_OVERWRITE)
        clear(c);
    for (int64_t begin = 0; begin < m; begin += GR_ROOM_ROWS) {
        int64_t end = gr_smaller(m, begin + GR_ROOM_ROWS);

        product_rows(gr_tensor_rows(c, begin, end), write, alpha, part(a, a.transposed, begin, end),
                     b, pairs, room);
    }
}

void GR_CPU(product)(gr_tensor c, enum gr_write write, float alpha, struct gr_operand a,
                     struct gr_operand b, bool pairs, struct gr_gemm_room room)
{
    int64_t begin_ns = start(&room, pairs);

    check(c, a.transposed ? a.t.dim[1] : a.t.dim[0], a.transposed ? a.t.dim[0] : a.t.dim[1], b);
    product(c, write, alpha, a, b, pairs, room);
    stop(&room, pairs, begin_ns);
}
