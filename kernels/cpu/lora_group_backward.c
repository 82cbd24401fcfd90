/* The backward of a linear group.  See lora_group.h; the forward is in lora_group.c. */
#include "kernels/cpu/lora_group.h"

/* dS <- s dy B */
static void make_ds(struct gr_device *dev, const struct gr_lora_group *g, const struct slab *slab,
                    struct rows rows, int linear)
{
    const struct gr_lora *lora = lora_of(g, rows, linear);
    int64_t r = lora == NULL ? 0 : lora->a.dim[0];

    for (int64_t begin = 0; begin < r; begin += SLIM_COLUMNS) {
        int64_t end = gr_smaller(r, begin + SLIM_COLUMNS);
        gr_tensor ds = gr_tensor_columns(s_part(g, g->ds, rows, linear, r), begin, end);
        gr_tensor tile = gr_place_tile(ds, scratch_of(dev, RESULT));

        GR_CPU(multiply)
        (tile, GR_OVERWRITE, lora->scale, slab_rows(slab, linear, rows),
         (struct gr_operand){gr_tensor_columns(lora->b, begin, end), false}, room_of(dev));
        gr_store_tile(ds, tile);
    }
}

/* Rows [begin, end) of dB^T <- S^T dy over the whole segment, for a block of B's rows; as the
 * transposed of dB the wide operand is the one that is read along its rows. */
static void make_db_rows(struct gr_device *dev, const struct gr_lora_group *g, struct rows rows,
                         struct block b, int64_t begin, int64_t end)
{
    const struct gr_lora *lora = lora_of(g, rows, b.linear);
    gr_tensor tile = gr_tensor_2d(scratch_of(dev, RESULT), GR_F32, end - begin, b.end - b.begin);
    gr_tensor s = s_part(g, g->s, rows, b.linear, lora->a.dim[0]);

    gr_product_tn(tile, GR_OVERWRITE, 1.0f, gr_tensor_columns(s, begin, end),
                  gr_tensor_columns(y_part(g, g->dy, rows, b.linear), b.begin, b.end),
                  packs_pairs(g), room_of(dev));
    for (int64_t j = b.begin; j < b.end; j++)
        for (int64_t i = begin; i < end; i++)
            gr_row_f32(lora->db, j)[i] = gr_row_f32(tile, i - begin)[j - b.begin];
}

static void make_db(struct gr_device *dev, const struct gr_lora_group *g, struct rows rows,
                    struct block b)
{
    const struct gr_lora *lora = lora_of(g, rows, b.linear);
    int64_t r = lora == NULL ? 0 : lora->a.dim[0];

    for (int64_t begin = 0; begin < r; begin += FEW_ROWS)
        make_db_rows(dev, g, rows, b, begin, gr_smaller(r, begin + FEW_ROWS));
}

/* dA <- dS^T drop(x) over the whole segment, tile after tile, for columns [begin, end) of A */
static void make_da(struct gr_device *dev, const struct gr_lora_group *g, struct rows segment,
                    int linear, int64_t begin, int64_t end)
{
    const struct gr_lora *lora = lora_of(g, segment, linear);
    enum gr_write write = GR_OVERWRITE;
    struct rows rows = segment;
    gr_tensor da;

    if (lora == NULL)
        return;
    da = gr_tensor_columns(lora->da, begin, end);
    do { /* once at least: an empty segment has gradient 0 */
        gr_tensor x, ds;

        rows.end = gr_smaller(segment.end, rows.begin + FEW_ROWS);
        x = part(g->x, rows, begin, end);
        ds = s_part(g, g->ds, rows, linear, lora->a.dim[0]);
        if (drops(g, lora)) {
            gr_tensor tile = masked_tile(dev, x.dim[0], x.dim[1]);

            drop_tile(g, tile, GR_OVERWRITE, x, rows, linear, begin);
            x = tile;
        }
        gr_product_tn(da, write, 1.0f, ds, x, packs_pairs(g), room_of(dev));
        write = GR_ACCUMULATE;
        rows.begin = rows.end;
    } while (rows.begin < segment.end);
}

/* dx += drop * (dS A) for rows of a part and columns [begin, end) of x */
static void add_adapter_dx(struct gr_device *dev, const struct gr_lora_group *g, gr_tensor dx,
                           struct rows rows, int linear, int64_t begin, int64_t end)
{
    const struct gr_lora *lora = lora_of(g, rows, linear);
    gr_tensor a = gr_tensor_columns(lora->a, begin, end), ds, tile;

    rows = own_rows(rows);
    dx = gr_tensor_rows(dx, 0, rows.end - rows.begin);
    ds = s_part(g, g->ds, rows, linear, lora->a.dim[0]);
    if (!drops(g, lora)) {
        gr_product_nn(dx, GR_ACCUMULATE, 1.0f, ds, a, packs_pairs(g), room_of(dev));
        return;
    }
    tile = masked_tile(dev, dx.dim[0], dx.dim[1]);
    gr_product_nn(tile, GR_OVERWRITE, 1.0f, ds, a, packs_pairs(g), room_of(dev));
    drop_tile(g, dx, GR_ACCUMULATE, tile, rows, linear, begin);
}

/* The weights of a block of dx, of one linear; of the next block behind the last linear, and none
 * behind the last block. */
static struct gr_operand weights_back(const struct gr_lora_group *g, int linear, int64_t begin,
                                      int64_t step)
{
    if (linear == g->linears) {
        linear = 0;
        begin += step;
    }
    if (begin >= g->x.dim[1])
        return (struct gr_operand){0};
    return (struct gr_operand){gr_tensor_columns(g->linear[linear].weight, begin,
                                                 gr_smaller(g->x.dim[1], begin + BLOCK_COLUMNS)),
                               false};
}

/* dx <- or += dy W + drop * (dS A) of one linear, for a part of a tile and columns [begin, end) */
static void multiply_part(struct gr_device *dev, const struct gr_lora_group *g,
                          const struct slab *slab, gr_tensor dx, struct rows rows, int linear,
                          int64_t begin, int64_t end)
{
    enum gr_write write = linear == 0 ? GR_OVERWRITE : GR_ACCUMULATE;
    const struct gr_lora *lora = lora_of(g, rows, linear);
    int64_t r = lora == NULL ? 0 : lora->a.dim[0];
    struct gr_gemm_room room = room_of(dev);
    struct gr_term base = {slab_rows(slab, linear, rows), weights_back(g, linear, begin, 0)};

    room.next = weights_back(g, linear + 1, begin, dev->threads * BLOCK_COLUMNS);
    if (lora != NULL && !drops(g, lora) && joins(g, r)) {
        GR_CPU(multiply_both)
        (dx, write, base,
         (struct gr_term){pack_s(room, g, g->ds, rows, linear, r),
                          {gr_tensor_columns(lora->a, begin, end), false}},
         room);
        return;
    }
    GR_CPU(multiply)(dx, write, 1.0f, base.a, base.b, room);
    if (lora != NULL)
        add_adapter_dx(dev, g, dx, rows, linear, begin, end);
}

/* dx <- sum over the linears of dy W + drop * (dS A), for a tile of rows and a block of columns */
static void make_dx(struct gr_device *dev, const struct gr_lora_group *g, const struct slab *slab,
                    struct rows rows, int64_t begin, int64_t end)
{
    gr_tensor to = part(g->dx, rows, begin, end);
    gr_tensor dx = result_tile(dev, to);
    struct rows now = {rows.begin, rows.begin, NULL};

    while (now.end < rows.end) {
        now = next_part(g, rows, now.end);
        for (int linear = 0; linear < g->linears; linear++)
            multiply_part(dev, g, slab,
                          gr_tensor_rows(dx, now.begin - rows.begin, now.end - rows.begin), now,
                          linear, begin, end);
    }
    gr_store_tile(to, dx);
}

/* dS and dx of a slab; inside a parallel region */
static void backward_slab(struct gr_device *dev, const struct gr_lora_group *g, int64_t begin)
{
    int64_t width[GR_LINEARS_MOST], in = g->x.dim[1], blocks = gr_pieces(in, BLOCK_COLUMNS);
    struct slab slab;
    int64_t slim, height, dx_tasks;

    for (int i = 0; i < g->linears; i++)
        width[i] = g->linear[i].weight.dim[0];
    slab = slab_at(dev, g, g->dy, begin, width, g->linears);
    slim = gr_pieces(slab.rows.end - begin, SLIM_ROWS) * g->linears;
    height = tile_height(dev, &slab, blocks);
    dx_tasks = gr_tensor_is_none(g->dx) ? 0 : gr_pieces(slab.rows.end - begin, height) * blocks;
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < slim; t++) {
        int linear = (int)(t % g->linears);

        pack_tile(&slab, g->dy, y_begin(g, linear), t / g->linears, linear);
    }
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < slim; t++)
        make_ds(dev, g, &slab, slim_tile(g, &slab, t / g->linears), (int)(t % g->linears));
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < dx_tasks; t++) {
        int64_t first = t % blocks * BLOCK_COLUMNS;

        make_dx(dev, g, &slab, tile_of(slab.rows, height, t / blocks), first,
                gr_smaller(in, first + BLOCK_COLUMNS));
    }
}

void GR_CPU(lora_group_backward)(struct gr_device *dev, const struct gr_lora_group *g)
{
    const struct rows all = {0, g->x.dim[0], NULL};
    int64_t in = g->x.dim[1], in_blocks = gr_pieces(in, WIDE_COLUMNS);
    int64_t out_blocks = count_blocks(g, WIDE_COLUMNS);
    int64_t da_tasks =
        g->part == GR_LORA_BUT_DA ? 0 : (int64_t)g->segments * g->linears * in_blocks;
    int64_t db_tasks = g->part == GR_LORA_DA ? 0 : g->segments * out_blocks;
    int64_t slabs_end = g->part == GR_LORA_DA ? 0 : all.end;

#pragma omp parallel num_threads(dev->threads)
    {
        for (int64_t begin = 0; begin < slabs_end; begin += SLAB_ROWS)
            backward_slab(dev, g, begin);
#pragma omp for schedule(dynamic) nowait
        for (int64_t t = 0; t < db_tasks; t++)
            make_db(dev, g, rows_of_segment(g, all, (int)(t / out_blocks)),
                    find_block(g, WIDE_COLUMNS, t % out_blocks));
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < da_tasks; t++) {
            int64_t begin = t % in_blocks * WIDE_COLUMNS, pair = t / in_blocks;

            make_da(dev, g, rows_of_segment(g, all, (int)(pair / g->linears)),
                    (int)(pair % g->linears), begin, gr_smaller(in, begin + WIDE_COLUMNS));
        }
    }
}
