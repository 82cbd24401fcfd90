/* Kernels with dropout masks.  A thread has four columns, which mostly are one block of Philox.
 * See dropout.cuh; called by lora_group.cu. */
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/vector.cuh"

enum {
    WORDS = 4,   /* of a block of Philox: elements of a thread */
    ADD_ROWS = 8 /* that a thread adds to: A is read once for them */
};

/* mask[i] <- 1/(1-p) or 0 for the elements from `element` on. */
static __device__ __forceinline__ void make_mask(float (&mask)[WORDS], const gr_dropout &d,
                                                 int64_t element)
{
    const float kept = 1.0f / (1.0f - d.p);
    const uint32_t first = (uint32_t)(element / WORDS), skip = (uint32_t)(element % WORDS);
    const gr_philox_block block = gr_philox(d.key, first, d.stream, d.micro_batch, d.step);

    if (skip == 0) {
        for (uint32_t i = 0; i < WORDS; i++)
            mask[i] = gr_uniform(block.word[i]) >= d.p ? kept : 0.0f;
        return;
    }
    const gr_philox_block next = gr_philox(d.key, first + 1, d.stream, d.micro_batch, d.step);

    for (uint32_t i = 0; i < WORDS; i++) { /* rows of a width that is no multiple of four */
        const uint32_t j = skip + i;
        const uint32_t word = j < WORDS ? block.word[j] : next.word[j - WORDS];

        mask[i] = gr_uniform(word) >= d.p ? kept : 0.0f;
    }
}

template <typename T>
static __global__ void mask_rows(gr_view<T> y, gr_view<const T> x, gr_dropout dropout,
                                 struct gr_runs runs)
{
    struct gr_run at;
    float v[WORDS], mask[WORDS];

    if (!gr_find_run(&at, runs, WORDS))
        return;
    gr_read(v, x.at(at.row, at.begin), at.count);
    make_mask(mask, dropout, (dropout.row + at.row) * runs.width + at.begin);
    for (int i = 0; i < WORDS; i++)
        v[i] *= mask[i];
    gr_write(y.at(at.row, at.begin), v, at.count);
}

template <typename T>
static void drop(struct gr_device *dev, const char *op, gr_tensor y, gr_tensor x,
                 const struct gr_dropout *dropout)
{
    const struct gr_runs runs = gr_runs_over(x.dim[0], x.dim[1], WORDS);

    gr_cuda_ok(dev, op,
               GR_LAUNCH(mask_rows<T>, runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<T>(y), gr_view_of<const T>(x), *dropout, runs));
}

void gr_cuda_drop(struct gr_device *dev, const char *op, gr_tensor y, gr_tensor x,
                  const struct gr_dropout *dropout)
{
    if (gr_tensor_count(x) > 0)
        (x.dtype == GR_BF16 ? drop<__nv_bfloat16> : drop<float>)(dev, op, y, x, dropout);
}

/* What is added, as a kernel takes it. */
template <typename T> struct sum_of {
    int count;
    struct {
        gr_view<const T> ds, a;
        int64_t r;
        gr_dropout dropout;
    } linear[GR_LINEARS_MOST];
};

/* product <- ds a for some rows and four columns; ds and a begin there */
template <typename T>
static __device__ __forceinline__ void multiply(float (&product)[ADD_ROWS][WORDS],
                                                gr_view<const T> ds, gr_view<const T> a, int64_t r,
                                                int rows, int64_t columns)
{
#pragma unroll
    for (int i = 0; i < ADD_ROWS; i++)
        for (int j = 0; j < WORDS; j++)
            product[i][j] = 0.0f;
    for (int64_t k = 0; k < r; k++) {
        float of_a[WORDS];

        gr_read(of_a, a.at(k, 0), columns);
#pragma unroll
        for (int i = 0; i < ADD_ROWS; i++) {
            const float of_ds = i < rows ? gr_widen(*ds.at(i, k)) : 0.0f;

            for (int j = 0; j < WORDS; j++)
                product[i][j] = fmaf(of_ds, of_a[j], product[i][j]);
        }
    }
}

/* A thread has ADD_ROWS rows: `runs` counts these. */
template <typename T>
static __global__ void add_rows(gr_view<T> dx, sum_of<T> added, int64_t rows, struct gr_runs runs)
{
    struct gr_run at;
    float sum[ADD_ROWS][WORDS], product[ADD_ROWS][WORDS], mask[WORDS];

    if (!gr_find_run(&at, runs, WORDS))
        return;
    const int64_t first = at.row * ADD_ROWS;
    const int own = rows - first < ADD_ROWS ? (int)(rows - first) : (int)ADD_ROWS;

#pragma unroll
    for (int i = 0; i < ADD_ROWS; i++)
        gr_read(sum[i], dx.at(first + i, at.begin), i < own ? at.count : 0);
    for (int l = 0; l < added.count; l++) {
        const auto &linear = added.linear[l];

        multiply(product, gr_view<const T>{linear.ds.at(first, 0), linear.ds.stride},
                 gr_view<const T>{linear.a.at(0, at.begin), linear.a.stride}, linear.r, own,
                 at.count);
#pragma unroll
        for (int i = 0; i < ADD_ROWS; i++) {
            make_mask(mask, linear.dropout,
                      (linear.dropout.row + first + i) * runs.width + at.begin);
            for (int j = 0; j < WORDS; j++)
                sum[i][j] += mask[j] * product[i][j];
        }
    }
#pragma unroll
    for (int i = 0; i < ADD_ROWS; i++)
        gr_write(dx.at(first + i, at.begin), sum[i], i < own ? at.count : 0);
}

template <typename T>
static void add(struct gr_device *dev, const char *op, gr_tensor dx,
                const struct gr_dropped *dropped, int count)
{
    const struct gr_runs runs =
        gr_runs_over((dx.dim[0] + ADD_ROWS - 1) / ADD_ROWS, dx.dim[1], WORDS);
    sum_of<T> added = {};

    added.count = count;
    for (int i = 0; i < count; i++) {
        added.linear[i].ds = gr_view_of<const T>(dropped[i].ds);
        added.linear[i].a = gr_view_of<const T>(dropped[i].a);
        added.linear[i].r = dropped[i].a.dim[0];
        added.linear[i].dropout = dropped[i].dropout;
    }
    gr_cuda_ok(dev, op,
               GR_LAUNCH(add_rows<T>, runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<T>(dx), added, dx.dim[0], runs));
}

void gr_cuda_add_dropped(struct gr_device *dev, const char *op, gr_tensor dx,
                         const struct gr_dropped *dropped, int count)
{
    if (gr_tensor_count(dx) > 0 && count > 0)
        (dx.dtype == GR_BF16 ? add<__nv_bfloat16> : add<float>)(dev, op, dx, dropped, count);
}
