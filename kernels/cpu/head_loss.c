/* The language-model head with its cross-entropy, and bare logits.
 *
 * Supervised rows are gathered and packed 256 at a time; their logits, later dlogits, are the
 * largest thing in the workspace.  Within such a chunk the work is cut into tasks: blocks of the
 * vocabulary for the logits, single rows for the softmax, rows x columns for dh, whose sum over the
 * vocabulary is one sequential product. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/softmax.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum {
    CHUNK_ROWS = 256,
    GATHER_ROWS = 32,
    VOCAB_BLOCK = 480, /* logits of a task: whole panels of every instruction set */
    DH_ROWS = 256,     /* of a task of dh, at most: it packs a block of the weights */
    DH_COLUMNS = 192,
    TASKS_PER_THREAD = 2 /* at least */
};
_Static_assert(VOCAB_BLOCK % GR_RIGHT_COLUMNS == 0, "blocks are whole panels");

/* The workspace: h's rows of a chunk (later their dh), the same packed, the logits, and each
 * thread's room. */
static gr_tensor gathered_of(struct gr_device *dev, int64_t rows, int64_t hidden)
{
    return gr_tensor_2d(dev->workspace, GR_F32, rows, hidden);
}

static int64_t packed_words(int64_t hidden)
{
    return gr_left_words_most(CHUNK_ROWS, hidden, 1);
}

static struct gr_left packed_of(struct gr_device *dev, int64_t rows, gr_tensor h)
{
    int64_t hidden = h.dim[1];

    return gr_left_at((uint32_t *)dev->workspace + CHUNK_ROWS * hidden, rows, hidden,
                      gr_packs_pairs(h.dtype));
}

static gr_tensor logits_of(struct gr_device *dev, int64_t rows, int64_t hidden, int64_t vocab)
{
    return gr_tensor_2d((float *)dev->workspace + CHUNK_ROWS * hidden + packed_words(hidden),
                        GR_F32, rows, vocab);
}

static struct gr_gemm_room room_of(struct gr_device *dev, gr_tensor weight)
{
    int64_t vocab = weight.dim[0], hidden = weight.dim[1];
    float *all = (float *)dev->workspace + CHUNK_ROWS * (vocab + hidden) + packed_words(hidden);

    return gr_gemm_room_at(dev, all + omp_get_thread_num() * gr_gemm_room_words());
}

int64_t GR_CPU(head_loss_workspace_bytes)(struct gr_device *dev, int64_t hidden, int64_t vocab)
{
    return (CHUNK_ROWS * (hidden + vocab) + packed_words(hidden) +
            (int64_t)dev->threads * gr_gemm_room_words()) *
           (int64_t)sizeof(float);
}

/* A bad index is a bug elsewhere; here it must not become a wild access.  targets: NULL or a list
 * beside rows, not looked at where the row is padding. */
static bool indices_fit(struct gr_device *dev, const char *op, gr_tensor rows, int64_t n,
                        const int32_t *targets, int64_t vocab)
{
    const int32_t *row = rows.data;

    for (int64_t i = 0; i < rows.dim[0]; i++) {
        if (row[i] < -1 || row[i] >= n)
            gr_device_fail(dev, GR_ERR_BUG, op,
                           "a row is out of range (found %d at %lld, expected -1 to %lld)", row[i],
                           (long long)i, (long long)n - 1);
        else if (row[i] >= 0 && targets != NULL && (targets[i] < 0 || targets[i] >= vocab))
            gr_device_fail(dev, GR_ERR_BUG, op,
                           "a target is out of range (found %d at %lld, expected 0 to %lld)",
                           targets[i], (long long)i, (long long)vocab - 1);
    }
    return dev->failure.status == GR_OK;
}

/* gathered[i] <- h[row[i]], zeros for padding; packed likewise; inside a parallel region */
static void gather(struct gr_left packed, gr_tensor gathered, gr_tensor h, const int32_t *row)
{
#pragma omp for schedule(static)
    for (int64_t begin = 0; begin < gathered.dim[0]; begin += GATHER_ROWS) {
        int64_t end = gr_smaller(gathered.dim[0], begin + GATHER_ROWS);

        for (int64_t i = begin; i < end; i++) {
            float *to = gr_row_f32(gathered, i);

            if (row[i] < 0)
                memset(to, 0, (size_t)h.dim[1] * sizeof *to);
            else
                gr_store_run(gathered, i, 0, h.dim[1], gr_load_run(h, row[i], 0, h.dim[1], to));
        }
        GR_CPU(pack_left)
        (packed.words + begin * packed.depth,
         (struct gr_operand){gr_tensor_rows(gathered, begin, end), false}, packed.pairs);
    }
}

/* Weights of a block of logits; none behind the last. */
static struct gr_operand block_weights(gr_tensor weight, int64_t block)
{
    int64_t begin = block * VOCAB_BLOCK, vocab = weight.dim[0];

    if (begin >= vocab)
        return (struct gr_operand){0};
    return (struct gr_operand){
        gr_tensor_rows(weight, begin, gr_smaller(vocab, begin + VOCAB_BLOCK)), true};
}

/* logits <- gathered W^T; is_alone: its row is the only one listed, as of a token being generated;
 * inside a parallel region */
static void make_logits(struct gr_device *dev, gr_tensor logits, struct gr_left packed,
                        gr_tensor gathered, gr_tensor weight, bool is_alone)
{
    int64_t vocab = weight.dim[0];

#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < gr_pieces(vocab, VOCAB_BLOCK); b++) {
        struct gr_operand w = block_weights(weight, b);
        int64_t begin = b * VOCAB_BLOCK;
        gr_tensor block = gr_tensor_columns(logits, begin, begin + w.t.dim[0]);
        struct gr_gemm_room room = room_of(dev, weight);

        if (is_alone) {
            GR_CPU(product_row)
            (block, GR_OVERWRITE, 1.0f, gathered, w.t, room);
        } else {
            room.next = block_weights(weight, b + dev->threads);
            GR_CPU(multiply)(block, GR_OVERWRITE, 1.0f, packed, w, room);
        }
    }
}

/* Returns logsumexp(x) - x[target] and makes x its gradient, p - onehot. */
static double cross_entropy(float *x, int64_t n, int32_t target, bool gradient)
{
    float shift = gr_largest_f32(x, n), wanted = x[target];
    double sum = gr_exponentials_f32(x, shift, n);

    if (gradient) {
        float scale = (float)(1.0 / sum);
        float at_target = (float)(((double)x[target] - sum) / sum); /* p - 1, without cancelling */

        for (int64_t i = 0; i < n; i++)
            x[i] *= scale;
        x[target] = at_target;
    }
    return log(sum) + ((double)shift - (double)wanted);
}

/* How high the tiles of dh are that give every thread enough: bits do not depend on it. */
static int64_t dh_height(const struct gr_device *dev, int64_t rows, int64_t blocks)
{
    int64_t height = DH_ROWS;

    while (height > GR_ROW_MULTIPLE &&
           gr_pieces(rows, height) * blocks < (int64_t)dev->threads * TASKS_PER_THREAD)
        height /= 2;
    return height;
}

/* dh <- dlogits W for the listed rows; `sum` is scratch; inside a parallel region */
static void make_dh(struct gr_device *dev, gr_tensor dh, gr_tensor sum, gr_tensor dlogits,
                    gr_tensor weight, const int32_t *row)
{
    int64_t hidden = weight.dim[1], blocks = gr_pieces(hidden, DH_COLUMNS);
    int64_t height = dh_height(dev, sum.dim[0], blocks);

#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < gr_pieces(sum.dim[0], height) * blocks; t++) {
        int64_t top = t / blocks * height, bottom = gr_smaller(sum.dim[0], top + height);
        int64_t begin = t % blocks * DH_COLUMNS, end = gr_smaller(hidden, begin + DH_COLUMNS);
        gr_tensor tile = gr_tensor_columns(gr_tensor_rows(sum, top, bottom), begin, end);

        gr_product_nn(tile, GR_OVERWRITE, 1.0f, gr_tensor_rows(dlogits, top, bottom),
                      gr_tensor_columns(weight, begin, end), gr_packs_pairs(dh.dtype),
                      room_of(dev, weight));
        for (int64_t i = top; i < bottom; i++)
            if (row[i] >= 0)
                gr_store_run(dh, row[i], begin, end - begin, gr_row_f32(sum, i) + begin);
    }
}

/* Rows [begin, end) of the lists; inside a parallel region. */
static void chunk_loss(struct gr_device *dev, const struct gr_head_loss *a, int64_t begin,
                       int64_t end)
{
    const int32_t *row = (const int32_t *)a->rows.data + begin;
    const int32_t *target = (const int32_t *)a->targets.data + begin;
    double *loss = (double *)a->row_loss.data + begin;
    int64_t rows = end - begin, hidden = a->h.dim[1], vocab = a->weight.dim[0];
    gr_tensor gathered = gathered_of(dev, rows, hidden);
    struct gr_left packed = packed_of(dev, rows, a->h);
    gr_tensor logits = logits_of(dev, rows, hidden, vocab);
    bool gradient = !gr_tensor_is_none(a->dh);

    gather(packed, gathered, a->h, row);
    make_logits(dev, logits, packed, gathered, a->weight, a->rows.dim[0] == 1);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < rows; i++) {
        loss[i] = 0.0;
        if (row[i] >= 0)
            loss[i] = cross_entropy(gr_row_f32(logits, i), vocab, target[i], gradient);
    }
    if (gradient)
        make_dh(dev, a->dh, gathered, logits, a->weight, row);
}

void GR_CPU(head_loss)(struct gr_device *dev, const struct gr_head_loss *a)
{
    int64_t s = a->rows.dim[0];

    if (!indices_fit(dev, "head_loss", a->rows, a->h.dim[0], a->targets.data, a->weight.dim[0]))
        return;
#pragma omp parallel num_threads(dev->threads)
    {
        if (!gr_tensor_is_none(a->dh)) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < a->dh.dim[0]; i++)
                memset(gr_element(a->dh, i, 0), 0,
                       (size_t)(a->dh.dim[1] * gr_dtype_bytes(a->dh.dtype)));
        }
        for (int64_t begin = 0; begin < s; begin += CHUNK_ROWS)
            chunk_loss(dev, a, begin, gr_smaller(s, begin + CHUNK_ROWS));
    }
}

void GR_CPU(head_logits)(struct gr_device *dev, gr_tensor logits, gr_tensor h, gr_tensor weight,
                         gr_tensor rows)
{
    int64_t s = rows.dim[0];

    if (!indices_fit(dev, "head_logits", rows, h.dim[0], NULL, 0))
        return;
#pragma omp parallel num_threads(dev->threads)
    for (int64_t begin = 0; begin < s; begin += CHUNK_ROWS) {
        int64_t end = gr_smaller(s, begin + CHUNK_ROWS);
        gr_tensor gathered = gathered_of(dev, end - begin, h.dim[1]);
        struct gr_left packed = packed_of(dev, end - begin, h);

        gather(packed, gathered, h, (const int32_t *)rows.data + begin);
        make_logits(dev, gr_tensor_rows(logits, begin, end), packed, gathered, weight, s == 1);
    }
}
