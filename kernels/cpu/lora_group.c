/* A linear group with its adapters, composed from matrix products: the forward, and how both
 * directions work; the backward is in lora_group_backward.c.
 *
 * What all columns need, x in the forward and dy in the backward, is packed once, for a slab of
 * rows at a time; then come tasks of rows x columns.  A task is one sequential chain of products,
 * so who runs it does not matter, and the bits of a row do not depend on the rows beside it
 * (gemm.h). Dropout masks are made anew per tile; nothing is allocated. */
#include "kernels/cpu/lora_group.h"

#include <string.h>

int64_t GR_CPU(lora_group_workspace_bytes)(struct gr_device *dev, int64_t n, int64_t in,
                                           int64_t out, int64_t r)
{
    (void)r;
    return ((int64_t)dev->threads * thread_words() + slab_words(n, in, out)) *
           (int64_t)sizeof(float);
}

static void zero(gr_tensor t)
{
    for (int64_t i = 0; i < t.dim[0]; i++)
        memset(gr_element(t, i, 0), 0, (size_t)(t.dim[1] * gr_dtype_bytes(t.dtype)));
}

/* c <- or += alpha x wT for rows of x, which the slab has packed */
static void multiply_x(struct gr_gemm_room room, const struct gr_lora_group *g,
                       const struct slab *slab, gr_tensor c, enum gr_write write, float alpha,
                       struct rows rows, gr_tensor w)
{
    if (g->x.dim[0] == 1) /* a token being generated */
        GR_CPU(product_row)(c, write, alpha, g->x, w, room);
    else
        GR_CPU(multiply)
    (c, write, alpha, slab_rows(slab, 0, rows), (struct gr_operand){w, true}, room);
}

/* ---- forward ---- */

/* The weights of a block of y; none behind the last one. */
static struct gr_operand weights_of(const struct gr_lora_group *g, int64_t block)
{
    struct block b;

    if (block >= count_blocks(g, BLOCK_COLUMNS))
        return (struct gr_operand){0};
    b = find_block(g, BLOCK_COLUMNS, block);
    return (struct gr_operand){gr_tensor_rows(g->linear[b.linear].weight, b.begin, b.end), true};
}

/* s <- s_i drop(x) A^T for some of A's rows; s in f32 */
static void make_s_columns(struct gr_device *dev, const struct gr_lora_group *g,
                           const struct slab *slab, gr_tensor s, gr_tensor a, struct rows rows,
                           int linear)
{
    const struct gr_lora *lora = lora_of(g, rows, linear);
    gr_tensor x = gr_tensor_rows(g->x, rows.begin, rows.end);
    struct gr_gemm_room room = room_of(dev);

    room.next = weights_of(g, omp_get_thread_num());
    if (!drops(g, lora)) {
        multiply_x(room, g, slab, s, GR_OVERWRITE, lora->scale, rows, a);
        return;
    }
    for (int64_t begin = 0; begin < x.dim[1]; begin += SLIM_COLUMNS) {
        int64_t end = gr_smaller(x.dim[1], begin + SLIM_COLUMNS);
        gr_tensor tile = masked_tile(dev, rows.end - rows.begin, end - begin);

        drop_tile(g, tile, GR_OVERWRITE, gr_tensor_columns(x, begin, end), rows, linear, begin);
        gr_product_nt(s, begin == 0 ? GR_OVERWRITE : GR_ACCUMULATE, lora->scale, tile,
                      gr_tensor_columns(a, begin, end), packs_pairs(g), room);
    }
}

/* s <- 0 where a tile has no adapter, or one of a smaller rank */
static void clear_s(const struct gr_lora_group *g, struct rows tile, struct rows own, int linear)
{
    int64_t most = gr_lora_group_r(g, linear);
    const struct gr_lora *lora = lora_of(g, own, linear);
    int64_t r = lora == NULL ? 0 : lora->a.dim[0];

    if (most == 0)
        return;
    zero(gr_tensor_columns(s_part(g, g->s, tile, linear, most), r, most));
    tile.begin = own.end;
    zero(s_part(g, g->s, tile, linear, most));
}

static void make_s(struct gr_device *dev, const struct gr_lora_group *g, const struct slab *slab,
                   int64_t tile, int linear)
{
    struct rows rows = slim_tile(g, slab, tile);
    const struct gr_lora *lora = lora_of(g, rows, linear);
    int64_t r = lora == NULL ? 0 : lora->a.dim[0];

    clear_s(g, tile_of(slab->rows, SLIM_ROWS, tile), rows, linear);
    for (int64_t begin = 0; begin < r; begin += SLIM_COLUMNS) {
        int64_t end = gr_smaller(r, begin + SLIM_COLUMNS);
        gr_tensor to = gr_tensor_columns(s_part(g, g->s, rows, linear, r), begin, end);
        gr_tensor sum = gr_place_tile(to, scratch_of(dev, RESULT));

        make_s_columns(dev, g, slab, sum, gr_tensor_rows(lora->a, begin, end), rows, linear);
        gr_store_tile(to, sum);
    }
}

/* y (f32) <- [residual] [+ bias]; GR_OVERWRITE: there is neither, and y is untouched. */
static enum gr_write start_y(const struct gr_lora_group *g, gr_tensor y, struct rows rows,
                             struct block b)
{
    int64_t first = y_begin(g, b.linear) + b.begin, width = b.end - b.begin;
    gr_tensor bias = g->linear[b.linear].bias;
    bool has_residual = !gr_tensor_is_none(g->residual), has_bias = !gr_tensor_is_none(bias);
    float scratch[BLOCK_COLUMNS];
    const float *bias_run = has_bias ? gr_load_run(bias, 0, b.begin, width, scratch) : NULL;

    for (int64_t i = 0; i < y.dim[0] && (has_residual || has_bias); i++) {
        float *row = gr_row_f32(y, i);

        if (has_residual)
            gr_store_run(y, i, 0, width,
                         gr_load_run(g->residual, rows.begin + i, first, width, row));
        for (int64_t j = 0; j < width && has_bias; j++)
            row[j] = (has_residual ? row[j] : 0.0f) + bias_run[j];
    }
    return has_residual || has_bias ? GR_ACCUMULATE : GR_OVERWRITE;
}

/* y += x W^T + S B^T for a part of a tile */
static void multiply_part(struct gr_device *dev, const struct gr_lora_group *g,
                          const struct slab *slab, gr_tensor y, enum gr_write write,
                          struct rows rows, struct block b, struct gr_operand next)
{
    const struct gr_lora *lora = lora_of(g, rows, b.linear);
    struct gr_gemm_room room = room_of(dev);
    gr_tensor w = gr_tensor_rows(g->linear[b.linear].weight, b.begin, b.end);
    int64_t r = lora == NULL ? 0 : lora->a.dim[0];

    room.next = next;
    if (g->x.dim[0] > 1 && lora != NULL && joins(g, r)) {
        GR_CPU(multiply_both)
        (y, write, (struct gr_term){slab_rows(slab, 0, rows), {w, true}},
         (struct gr_term){pack_s(room, g, g->s, rows, b.linear, r),
                          {gr_tensor_rows(lora->b, b.begin, b.end), true}},
         room);
        return;
    }
    multiply_x(room, g, slab, y, write, 1.0f, rows, w);
    if (lora != NULL) {
        rows = own_rows(rows);
        gr_product_nt(gr_tensor_rows(y, 0, rows.end - rows.begin), GR_ACCUMULATE, 1.0f,
                      s_part(g, g->s, rows, b.linear, r), gr_tensor_rows(lora->b, b.begin, b.end),
                      packs_pairs(g), room_of(dev));
    }
}

/* y <- [residual +] x W^T [+ bias] + S B^T for a tile of rows and a block of columns */
static void make_y(struct gr_device *dev, const struct gr_lora_group *g, const struct slab *slab,
                   struct rows rows, int64_t block)
{
    struct block b = find_block(g, BLOCK_COLUMNS, block);
    gr_tensor y = gr_tensor_columns(y_part(g, g->y, rows, b.linear), b.begin, b.end);
    gr_tensor tile = result_tile(dev, y);
    enum gr_write write = start_y(g, tile, rows, b);
    struct rows now = {rows.begin, rows.begin, NULL};

    while (now.end < rows.end) {
        now = next_part(g, rows, now.end);
        multiply_part(dev, g, slab,
                      gr_tensor_rows(tile, now.begin - rows.begin, now.end - rows.begin), write,
                      now, b, weights_of(g, block + dev->threads));
    }
    gr_store_tile(y, tile);
}

void GR_CPU(lora_group_forward)(struct gr_device *dev, const struct gr_lora_group *g)
{
    int64_t n = g->x.dim[0], in = g->x.dim[1], blocks = count_blocks(g, BLOCK_COLUMNS);

#pragma omp parallel num_threads(dev->threads)
    for (int64_t begin = 0; begin < n; begin += SLAB_ROWS) {
        struct slab slab = slab_at(dev, g, g->x, begin, &in, 1);
        int64_t slim = gr_pieces(slab.rows.end - begin, SLIM_ROWS);
        int64_t height = tile_height(dev, &slab, blocks);

#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < slim; t++)
            pack_tile(&slab, g->x, 0, t, 0);
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < slim * g->linears; t++)
            make_s(dev, g, &slab, t / g->linears, (int)(t % g->linears));
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < gr_pieces(slab.rows.end - begin, height) * blocks; t++)
            make_y(dev, g, &slab, tile_of(slab.rows, height, t / blocks), t % blocks);
    }
}
