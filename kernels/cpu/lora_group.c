/* A linear group with its adapters, forward and backward, composed from matrix products.
 *
 * Work is cut into tasks that do not depend on the number of threads: tiles of rows that start at
 * the first row of a segment (or of the rows between two) and never cross its end, times blocks of
 * columns of one linear.  A task is one sequential chain of products, so who runs it does not
 * matter.  Dropout masks are made anew per tile; nothing is allocated. */
#include "kernels/base/philox.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <omp.h>
#include <string.h>

enum {
    TILE_ROWS = 256,
    SLIM_ROWS = 64,      /* tiles of s, which has few columns: more tasks for the threads */
    BLOCK_COLUMNS = 144, /* a multiple of the 48 columns of oneDNN's AVX-512 kernel */
    SCRATCH_FLOATS = GR_PIECE_FLOATS,
    SLIM_COLUMNS = SCRATCH_FLOATS / SLIM_ROWS /* of s, computed together */
};
_Static_assert(TILE_ROWS *BLOCK_COLUMNS <= SCRATCH_FLOATS, "a tile fits into the scratch memory");

/* The scratch memory of a thread. */
enum scratch {
    RESULT, /* a tile of the result, before it is rounded */
    MASKED, /* a tile of masked x, or of dS A before its mask */
    PIECE_A,
    PIECE_B,
    SCRATCH_COUNT
};

int64_t GR_CPU(lora_group_workspace_bytes)(struct gr_device *dev, int64_t n, int64_t in,
                                           int64_t out, int64_t r)
{
    (void)n;
    (void)in;
    (void)out;
    (void)r;
    return (int64_t)dev->threads * SCRATCH_COUNT * SCRATCH_FLOATS * (int64_t)sizeof(float);
}

static float *scratch_of(struct gr_device *dev, enum scratch part)
{
    int64_t number = (int64_t)omp_get_thread_num() * SCRATCH_COUNT + (int64_t)part;

    return (float *)dev->workspace + number * SCRATCH_FLOATS;
}

static gr_tensor masked_tile(struct gr_device *dev, int64_t rows, int64_t columns)
{
    return gr_tensor_2d(scratch_of(dev, MASKED), GR_F32, rows, columns);
}

static struct gr_pieces pieces_of(struct gr_device *dev)
{
    return (struct gr_pieces){scratch_of(dev, PIECE_A), scratch_of(dev, PIECE_B)};
}

/* ---- how the work is cut ---- */

struct rows {
    int64_t begin, end;
    const struct gr_segment *segment; /* they lie in; NULL: none */
};

/* Stretch 2i + 1 is segment i, stretch 2i the rows before it (after the last, for i = segments). */
static int stretches(const struct gr_lora_group *g)
{
    return 2 * g->segments + 1;
}

static struct rows stretch(const struct gr_lora_group *g, int index)
{
    const struct gr_segment *s = g->segment;
    int i = index / 2;

    if (index % 2 == 1)
        return (struct rows){s[i].row_begin, s[i].row_end, &s[i]};
    return (struct rows){i == 0 ? 0 : s[i - 1].row_end,
                         i == g->segments ? g->x.dim[0] : s[i].row_begin, NULL};
}

static int64_t count_tiles(const struct gr_lora_group *g, int64_t height)
{
    int64_t tiles = 0;

    for (int i = 0; i < stretches(g); i++) {
        struct rows r = stretch(g, i);

        tiles += gr_pieces(r.end - r.begin, height);
    }
    return tiles;
}

static struct rows find_tile(const struct gr_lora_group *g, int64_t height, int64_t index)
{
    struct rows r = stretch(g, 0);

    for (int i = 1; index >= gr_pieces(r.end - r.begin, height); i++) {
        index -= gr_pieces(r.end - r.begin, height);
        r = stretch(g, i);
    }
    r.begin += index * height;
    r.end = gr_smaller(r.end, r.begin + height);
    return r;
}

/* A block of the columns of y: columns [begin, end) of one linear's output. */
struct block {
    int linear;
    int64_t begin, end;
};

static int64_t count_blocks(const struct gr_lora_group *g)
{
    int64_t blocks = 0;

    for (int i = 0; i < g->linears; i++)
        blocks += gr_pieces(g->linear[i].weight.dim[0], BLOCK_COLUMNS);
    return blocks;
}

static struct block find_block(const struct gr_lora_group *g, int64_t index)
{
    int i = 0;
    int64_t begin;

    for (; index >= gr_pieces(g->linear[i].weight.dim[0], BLOCK_COLUMNS); i++)
        index -= gr_pieces(g->linear[i].weight.dim[0], BLOCK_COLUMNS);
    begin = index * BLOCK_COLUMNS;
    return (struct block){i, begin, gr_smaller(g->linear[i].weight.dim[0], begin + BLOCK_COLUMNS)};
}

/* ---- parts of the tensors ---- */

static gr_tensor part(gr_tensor t, struct rows rows, int64_t begin, int64_t end)
{
    return gr_tensor_columns(gr_tensor_rows(t, rows.begin, rows.end), begin, end);
}

/* The first column of linear i in y and dy. */
static int64_t y_begin(const struct gr_lora_group *g, int linear)
{
    int64_t begin = 0;

    for (int i = 0; i < linear; i++)
        begin += g->linear[i].weight.dim[0];
    return begin;
}

/* These rows of linear i's columns of y or dy. */
static gr_tensor y_part(const struct gr_lora_group *g, gr_tensor y, struct rows rows, int linear)
{
    int64_t begin = y_begin(g, linear);

    return part(y, rows, begin, begin + g->linear[linear].weight.dim[0]);
}

/* These rows of the first r columns of linear i in s or ds. */
static gr_tensor s_part(const struct gr_lora_group *g, gr_tensor s, struct rows rows, int linear,
                        int64_t r)
{
    int64_t begin = 0;

    for (int i = 0; i < linear; i++)
        begin += gr_lora_group_r(g, i);
    return part(s, rows, begin, begin + r);
}

/* Linear i's adapter for these rows; NULL: none. */
static const struct gr_lora *lora_of(const struct gr_lora_group *g, struct rows rows, int linear)
{
    const struct gr_lora *lora;

    if (rows.segment == NULL || rows.segment->adapter < 0)
        return NULL;
    lora = &g->lora[(int64_t)rows.segment->adapter * g->linears + linear];
    return gr_tensor_is_none(lora->a) ? NULL : lora;
}

static bool drops(const struct gr_lora_group *g, const struct gr_lora *lora)
{
    return g->train && lora->dropout > 0.0f;
}

/* tile (f32) <- or += drop(x) for rows of a segment and columns from `column` on. */
static void drop_tile(const struct gr_lora_group *g, gr_tensor tile, enum gr_write write,
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

static void zero(gr_tensor t)
{
    for (int64_t i = 0; i < t.dim[0]; i++)
        memset(gr_element(t, i, 0), 0, (size_t)(t.dim[1] * gr_dtype_bytes(t.dtype)));
}

/* ---- forward ---- */

/* s <- s_i drop(x) A^T for some of A's rows; s in f32 */
static void make_s_columns(struct gr_device *dev, const struct gr_lora_group *g, gr_tensor s,
                           gr_tensor a, struct rows rows, int linear)
{
    const struct gr_lora *lora = lora_of(g, rows, linear);
    int64_t in = g->x.dim[1], width = SCRATCH_FLOATS / SLIM_ROWS;

    if (!drops(g, lora)) {
        GR_CPU(product_nt)(s, part(g->x, rows, 0, in), a, lora->scale, 0.0f, pieces_of(dev));
        return;
    }
    for (int64_t begin = 0; begin < in; begin += width) {
        int64_t end = gr_smaller(in, begin + width);
        gr_tensor tile = masked_tile(dev, rows.end - rows.begin, end - begin);

        drop_tile(g, tile, GR_OVERWRITE, part(g->x, rows, begin, end), rows, linear, begin);
        GR_CPU(product_nt)
        (s, tile, gr_tensor_columns(a, begin, end), lora->scale, begin == 0 ? 0.0f : 1.0f,
         pieces_of(dev));
    }
}

static void make_s(struct gr_device *dev, const struct gr_lora_group *g, struct rows rows,
                   int linear)
{
    int64_t most = gr_lora_group_r(g, linear), r;
    const struct gr_lora *lora = lora_of(g, rows, linear);
    gr_tensor s;

    if (most == 0)
        return;
    r = lora == NULL ? 0 : lora->a.dim[0];
    s = s_part(g, g->s, rows, linear, most);
    zero(gr_tensor_columns(s, r, most));
    for (int64_t begin = 0; begin < r; begin += SLIM_COLUMNS) {
        int64_t end = gr_smaller(r, begin + SLIM_COLUMNS);
        gr_tensor to = gr_tensor_columns(s, begin, end);
        gr_tensor tile = gr_place_tile(to, scratch_of(dev, RESULT));

        make_s_columns(dev, g, tile, gr_tensor_rows(lora->a, begin, end), rows, linear);
        gr_store_tile(to, tile);
    }
}

/* y (f32) <- [residual] [+ bias]; false: there is neither, and y is untouched. */
static bool start_y(const struct gr_lora_group *g, gr_tensor y, struct rows rows, struct block b)
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
    return has_residual || has_bias;
}

/* y <- [residual +] x W^T [+ bias] + S B^T for a tile of rows and a block of columns */
static void make_y(struct gr_device *dev, const struct gr_lora_group *g, struct rows rows,
                   struct block b)
{
    const struct gr_lora *lora = lora_of(g, rows, b.linear);
    gr_tensor w = gr_tensor_rows(g->linear[b.linear].weight, b.begin, b.end);
    gr_tensor y = gr_tensor_columns(y_part(g, g->y, rows, b.linear), b.begin, b.end);
    gr_tensor tile = gr_place_tile(y, scratch_of(dev, RESULT));
    bool started = start_y(g, tile, rows, b);

    GR_CPU(product_nt)
    (tile, part(g->x, rows, 0, g->x.dim[1]), w, 1.0f, started ? 1.0f : 0.0f, pieces_of(dev));
    if (lora != NULL)
        GR_CPU(product_nt)
    (tile, s_part(g, g->s, rows, b.linear, lora->a.dim[0]), gr_tensor_rows(lora->b, b.begin, b.end),
     1.0f, 1.0f, pieces_of(dev));
    gr_store_tile(y, tile);
}

void GR_CPU(lora_group_forward)(struct gr_device *dev, const struct gr_lora_group *g)
{
    int64_t s_tasks = count_tiles(g, SLIM_ROWS) * g->linears;
    int64_t blocks = count_blocks(g), y_tasks = count_tiles(g, TILE_ROWS) * blocks;

#pragma omp parallel num_threads(dev->threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < s_tasks; t++)
            make_s(dev, g, find_tile(g, SLIM_ROWS, t / g->linears), (int)(t % g->linears));
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < y_tasks; t++)
            make_y(dev, g, find_tile(g, TILE_ROWS, t / blocks), find_block(g, t % blocks));
    }
}

/* ---- backward ---- */

/* dS <- s dy B */
static void make_ds(struct gr_device *dev, const struct gr_lora_group *g, struct rows rows,
                    int linear)
{
    const struct gr_lora *lora = lora_of(g, rows, linear);
    int64_t r = lora == NULL ? 0 : lora->a.dim[0];

    for (int64_t begin = 0; begin < r; begin += SLIM_COLUMNS) {
        int64_t end = gr_smaller(r, begin + SLIM_COLUMNS);
        gr_tensor ds = gr_tensor_columns(s_part(g, g->ds, rows, linear, r), begin, end);
        gr_tensor tile = gr_place_tile(ds, scratch_of(dev, RESULT));

        GR_CPU(product_nn)
        (tile, y_part(g, g->dy, rows, linear), gr_tensor_columns(lora->b, begin, end), lora->scale,
         0.0f, pieces_of(dev));
        gr_store_tile(ds, tile);
    }
}

/* dB <- dy^T S over the whole segment, for a block of B's rows */
static void make_db(struct gr_device *dev, const struct gr_lora_group *g, struct rows rows,
                    struct block b)
{
    const struct gr_lora *lora = lora_of(g, rows, b.linear);

    if (lora != NULL)
        GR_CPU(product_tn)
    (gr_tensor_rows(lora->db, b.begin, b.end),
     gr_tensor_columns(y_part(g, g->dy, rows, b.linear), b.begin, b.end),
     s_part(g, g->s, rows, b.linear, lora->a.dim[0]), 1.0f, 0.0f, pieces_of(dev));
}

/* dA <- dS^T drop(x) over the whole segment, tile after tile, for columns [begin, end) of A */
static void make_da(struct gr_device *dev, const struct gr_lora_group *g, struct rows segment,
                    int linear, int64_t begin, int64_t end)
{
    const struct gr_lora *lora = lora_of(g, segment, linear);
    struct rows rows = segment;
    gr_tensor da;

    if (lora == NULL)
        return;
    da = gr_tensor_columns(lora->da, begin, end);
    do { /* once at least: an empty segment has gradient 0 */
        gr_tensor x, ds;

        rows.end = gr_smaller(segment.end, rows.begin + TILE_ROWS);
        x = part(g->x, rows, begin, end);
        ds = s_part(g, g->ds, rows, linear, lora->a.dim[0]);
        if (drops(g, lora)) {
            gr_tensor tile = masked_tile(dev, x.dim[0], x.dim[1]);

            drop_tile(g, tile, GR_OVERWRITE, x, rows, linear, begin);
            x = tile;
        }
        GR_CPU(product_tn)
        (da, ds, x, 1.0f, rows.begin == segment.begin ? 0.0f : 1.0f, pieces_of(dev));
        rows.begin = rows.end;
    } while (rows.begin < segment.end);
}

/* dx <- sum over the linears of dy W + drop * (dS A), for a tile of rows and a block of columns */
static void make_dx(struct gr_device *dev, const struct gr_lora_group *g, struct rows rows,
                    int64_t begin, int64_t end)
{
    gr_tensor to = part(g->dx, rows, begin, end);
    gr_tensor dx = gr_place_tile(to, scratch_of(dev, RESULT));

    for (int i = 0; i < g->linears; i++) {
        const struct gr_lora *lora = lora_of(g, rows, i);
        gr_tensor ds, a;

        GR_CPU(product_nn)
        (dx, y_part(g, g->dy, rows, i), gr_tensor_columns(g->linear[i].weight, begin, end), 1.0f,
         i == 0 ? 0.0f : 1.0f, pieces_of(dev));
        if (lora == NULL)
            continue;
        ds = s_part(g, g->ds, rows, i, lora->a.dim[0]);
        a = gr_tensor_columns(lora->a, begin, end);
        if (drops(g, lora)) {
            gr_tensor tile = masked_tile(dev, dx.dim[0], dx.dim[1]);

            GR_CPU(product_nn)(tile, ds, a, 1.0f, 0.0f, pieces_of(dev));
            drop_tile(g, dx, GR_ACCUMULATE, tile, rows, i, begin);
        } else {
            GR_CPU(product_nn)(dx, ds, a, 1.0f, 1.0f, pieces_of(dev));
        }
    }
    gr_store_tile(to, dx);
}

void GR_CPU(lora_group_backward)(struct gr_device *dev, const struct gr_lora_group *g)
{
    int64_t in = g->x.dim[1], in_blocks = gr_pieces(in, BLOCK_COLUMNS),
            out_blocks = count_blocks(g);
    int64_t ds_tasks = count_tiles(g, SLIM_ROWS) * g->linears;
    int64_t da_tasks = (int64_t)g->segments * g->linears * in_blocks;
    int64_t dx_tasks = gr_tensor_is_none(g->dx) ? 0 : count_tiles(g, TILE_ROWS) * in_blocks;

#pragma omp parallel num_threads(dev->threads)
    {
#pragma omp for schedule(dynamic) nowait
        for (int64_t t = 0; t < g->segments * out_blocks; t++)
            make_db(dev, g, stretch(g, 2 * (int)(t / out_blocks) + 1),
                    find_block(g, t % out_blocks));
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < ds_tasks; t++)
            make_ds(dev, g, find_tile(g, SLIM_ROWS, t / g->linears), (int)(t % g->linears));
            /* here dS is complete: dA and dx read it */
#pragma omp for schedule(dynamic) nowait
        for (int64_t t = 0; t < dx_tasks; t++) {
            int64_t begin = t % in_blocks * BLOCK_COLUMNS;

            make_dx(dev, g, find_tile(g, TILE_ROWS, t / in_blocks), begin,
                    gr_smaller(in, begin + BLOCK_COLUMNS));
        }
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < da_tasks; t++) {
            int64_t begin = t % in_blocks * BLOCK_COLUMNS, pair = t / in_blocks;

            make_da(dev, g, stretch(g, 2 * (int)(pair / g->linears) + 1), (int)(pair % g->linears),
                    begin, gr_smaller(in, begin + BLOCK_COLUMNS));
        }
    }
}
