/* The language-model head with its cross-entropy, and bare logits.
 *
 * Supervised rows are gathered 256 at a time; their logits, later dlogits, are the largest thing in
 * the workspace.  Within such a chunk the work is cut into fixed tiles: blocks of the vocabulary
 * for the logits, single rows for the softmax, rows x columns for dh, whose sum over the vocabulary
 * is one sequential product per tile. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/softmax.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum {
    CHUNK_ROWS = 256,
    VOCAB_BLOCK = 480, /* logits of a task; a multiple of the 48 columns of oneDNN's kernel */
    DH_ROWS = 128,
    DH_COLUMNS = 96
};

/* The workspace: h's rows of a chunk, later their dh, the logits, and each thread's pieces. */
static gr_tensor gathered_of(struct gr_device *dev, int64_t rows, int64_t hidden)
{
    return gr_tensor_2d(dev->workspace, GR_F32, rows, hidden);
}

static gr_tensor logits_of(struct gr_device *dev, int64_t rows, int64_t hidden, int64_t vocab)
{
    return gr_tensor_2d((float *)dev->workspace + CHUNK_ROWS * hidden, GR_F32, rows, vocab);
}

static struct gr_pieces pieces_of(struct gr_device *dev, gr_tensor weight)
{
    float *all = (float *)dev->workspace + CHUNK_ROWS * (weight.dim[0] + weight.dim[1]);

    all += 2 * (int64_t)omp_get_thread_num() * GR_PIECE_FLOATS;
    return (struct gr_pieces){all, all + GR_PIECE_FLOATS};
}

int64_t GR_CPU(head_loss_workspace_bytes)(struct gr_device *dev, int64_t hidden, int64_t vocab)
{
    return (CHUNK_ROWS * (hidden + vocab) + 2 * (int64_t)dev->threads * GR_PIECE_FLOATS) *
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

/* gathered[i] <- h[row[i]], zeros for padding; inside a parallel region */
static void gather(gr_tensor gathered, gr_tensor h, const int32_t *row)
{
#pragma omp for schedule(static)
    for (int64_t i = 0; i < gathered.dim[0]; i++) {
        float *to = gr_row_f32(gathered, i);

        if (row[i] < 0)
            memset(to, 0, (size_t)h.dim[1] * sizeof *to);
        else
            gr_store_run(gathered, i, 0, h.dim[1], gr_load_run(h, row[i], 0, h.dim[1], to));
    }
}

/* logits <- gathered W^T; inside a parallel region */
static void make_logits(struct gr_device *dev, gr_tensor logits, gr_tensor gathered,
                        gr_tensor weight)
{
    int64_t vocab = weight.dim[0];

#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < gr_pieces(vocab, VOCAB_BLOCK); b++) {
        int64_t begin = b * VOCAB_BLOCK, end = gr_smaller(vocab, begin + VOCAB_BLOCK);

        GR_CPU(product_nt)
        (gr_tensor_columns(logits, begin, end), gathered, gr_tensor_rows(weight, begin, end), 1.0f,
         0.0f, pieces_of(dev, weight));
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

/* dh <- dlogits W for the listed rows; `sum` is scratch; inside a parallel region */
static void make_dh(struct gr_device *dev, gr_tensor dh, gr_tensor sum, gr_tensor dlogits,
                    gr_tensor weight, const int32_t *row)
{
    int64_t hidden = weight.dim[1], blocks = gr_pieces(hidden, DH_COLUMNS);

#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < gr_pieces(sum.dim[0], DH_ROWS) * blocks; t++) {
        int64_t top = t / blocks * DH_ROWS, bottom = gr_smaller(sum.dim[0], top + DH_ROWS);
        int64_t begin = t % blocks * DH_COLUMNS, end = gr_smaller(hidden, begin + DH_COLUMNS);
        gr_tensor tile = gr_tensor_columns(gr_tensor_rows(sum, top, bottom), begin, end);

        GR_CPU(product_nn)
        (tile, gr_tensor_rows(dlogits, top, bottom), gr_tensor_columns(weight, begin, end), 1.0f,
         0.0f, pieces_of(dev, weight));
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
    gr_tensor logits = logits_of(dev, rows, hidden, vocab);
    bool gradient = !gr_tensor_is_none(a->dh);

    gather(gathered, a->h, row);
    make_logits(dev, logits, gathered, a->weight);
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

        gather(gathered, h, (const int32_t *)rows.data + begin);
        make_logits(dev, gr_tensor_rows(logits, begin, end), gathered, weight);
    }
}
