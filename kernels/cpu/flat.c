/* Sums over spans and the element-wise ops of the flat buffers. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <string.h>

static double sum_f64(const double *x, int64_t n)
{
    double sum = 0;

    for (int64_t begin = 0; begin < n; begin += GR_CHUNK) {
        double partial = 0;

        for (int64_t i = begin; i < gr_smaller(begin + GR_CHUNK, n); i++)
            partial += x[i];
        sum += partial;
    }
    return sum;
}

void GR_CPU(sum_spans)(struct gr_device *dev, gr_tensor sum, gr_tensor x, gr_tensor spans)
{
    for (int64_t i = 0; i < spans.dim[0]; i++) {
        const int32_t *span = (const int32_t *)spans.data + i * spans.stride;

        if (span[0] < 0 || span[0] > span[1] || span[1] > x.dim[0]) {
            gr_device_fail(dev, GR_ERR_BUG, "sum_spans",
                           "span %lld is outside x (found %d to %d, expected within 0 to %lld)",
                           (long long)i, span[0], span[1], (long long)x.dim[0]);
            return;
        }
    }
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = 0; i < spans.dim[0]; i++) {
        const int32_t *span = (const int32_t *)spans.data + i * spans.stride;

        ((double *)sum.data)[i] = sum_f64((const double *)x.data + span[0], span[1] - span[0]);
    }
}

/* Of scale * x, n <= GR_CHUNK. */
static double chunk_squares(const float *x, int64_t n, float scale)
{
    float scaled[GR_CHUNK];

#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        scaled[i] = scale * x[i];
    return gr_sum_squares_f32(scaled, n);
}

void GR_CPU(sum_squares)(struct gr_device *dev, gr_tensor out, gr_tensor x, float scale)
{
    double partial[GR_PARTIALS_MOST], sum = 0;
    int64_t n = x.dim[0], block = gr_sum_block(n), blocks = gr_sum_blocks(n);

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t end = gr_smaller((b + 1) * block, n);

        partial[b] = 0;
        for (int64_t i = b * block; i < end; i += GR_CHUNK)
            partial[b] +=
                chunk_squares((const float *)x.data + i, gr_smaller(GR_CHUNK, end - i), scale);
    }
    for (int64_t b = 0; b < blocks; b++)
        sum += partial[b];
    *(double *)out.data = sum;
}

/* A tensor cut into pieces of at most GR_CHUNK elements of a row; gapless ones are one row. */
struct pieces {
    int64_t columns, per_row, count;
};

static struct pieces cut(gr_tensor t, bool gapless)
{
    int64_t rows = gapless ? 1 : t.dim[0];
    int64_t columns = gapless ? gr_tensor_count(t) : gr_tensor_row_size(t);
    int64_t per_row = (columns + GR_CHUNK - 1) / GR_CHUNK;

    return (struct pieces){columns, per_row, rows * per_row};
}

struct piece {
    int64_t row, begin, size;
};

static struct piece piece_at(const struct pieces *p, int64_t index)
{
    int64_t begin = index % p->per_row * GR_CHUNK;

    return (struct piece){index / p->per_row, begin, gr_smaller(GR_CHUNK, p->columns - begin)};
}

void GR_CPU(add)(struct gr_device *dev, gr_tensor y, gr_tensor a, gr_tensor b)
{
    struct pieces pieces = cut(y, gr_tensor_is_contiguous(y) && gr_tensor_is_contiguous(a) &&
                                      gr_tensor_is_contiguous(b));

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t k = 0; k < pieces.count; k++) {
        struct piece piece = piece_at(&pieces, k);
        float *to = gr_row_f32(y, piece.row) + piece.begin;
        const float *from_a = gr_row_f32(a, piece.row) + piece.begin;
        const float *from_b = gr_row_f32(b, piece.row) + piece.begin;

#pragma omp simd
        for (int64_t i = 0; i < piece.size; i++)
            to[i] = from_a[i] + from_b[i];
    }
}

void GR_CPU(zero)(struct gr_device *dev, gr_tensor x)
{
    struct pieces pieces = cut(x, gr_tensor_is_contiguous(x));
    int64_t element = gr_dtype_bytes(x.dtype);

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t k = 0; k < pieces.count; k++) {
        struct piece piece = piece_at(&pieces, k);

        memset((char *)x.data + (piece.row * x.stride + piece.begin) * element, 0,
               (size_t)(piece.size * element));
    }
}

void GR_CPU(copy)(struct gr_device *dev, gr_tensor y, gr_tensor x)
{
    struct pieces pieces = cut(y, gr_tensor_is_contiguous(y) && gr_tensor_is_contiguous(x));

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t k = 0; k < pieces.count; k++) {
        struct piece piece = piece_at(&pieces, k);
        float wide[GR_CHUNK];

        gr_store_run(y, piece.row, piece.begin, piece.size,
                     gr_load_run(x, piece.row, piece.begin, piece.size, wide));
    }
}

void GR_CPU(copy_pairs)(struct gr_device *dev, const struct gr_copy_pair *pair, int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i++)
        GR_CPU(copy)(dev, pair[i].y, pair[i].x);
}
