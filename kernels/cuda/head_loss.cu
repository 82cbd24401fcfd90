/* The language-model head with its cross-entropy, and bare logits.
 *
 * Listed rows are gathered chunk_rows at a time.  Their logits, in f32, are the largest thing in
 * the workspace; the loss kernel makes them dlogits in their place, in the dtype of the weights,
 * and what dh gets from them takes the place of the gathered rows before it is scattered. */
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/vector.cuh"

static const int64_t chunk_rows = 1024; /* enough tiles of dh for every multiprocessor */

enum {
    LOSS_WARPS = 8,
    SMALL_VOCAB = 1024, /* up to here one warp does a row */
    LANES = 32,
    FOUR = 4 /* logits of a thread at a time */
};

/* Rows of the workspace begin at multiples of 16 bytes. */
static int64_t padded(int64_t elements)
{
    return (elements + 7) / 8 * 8;
}

int64_t gr_cuda_head_loss_workspace_bytes(struct gr_device *dev, int64_t hidden, int64_t vocab)
{
    (void)dev;
    return chunk_rows * (padded(hidden) + padded(vocab)) * (int64_t)sizeof(float);
}

static gr_tensor gathered_of(struct gr_device *dev, int64_t rows, gr_tensor h)
{
    gr_tensor t = gr_tensor_2d(dev->workspace, h.dtype, rows, padded(h.dim[1]));

    return gr_tensor_columns(t, 0, h.dim[1]);
}

static gr_tensor logits_of(struct gr_device *dev, int64_t rows, gr_tensor weight)
{
    float *behind = (float *)dev->workspace + chunk_rows * padded(weight.dim[1]);
    gr_tensor t = gr_tensor_2d(behind, GR_F32, rows, padded(weight.dim[0]));

    return gr_tensor_columns(t, 0, weight.dim[0]);
}

/* The same rows after the loss kernel: narrower elements, each row where it was. */
static gr_tensor dlogits_of(gr_tensor logits, enum gr_dtype dtype)
{
    logits.stride *= (int64_t)sizeof(float) / gr_dtype_bytes(dtype);
    logits.dtype = dtype;
    return logits;
}

/* ---- rows by number ---- */

/* packed[i] <- loose[row[i]], or the other way; -1 gives zeros, another number outside NaN, and
 * neither takes anything.  rows NULL: all are -1. */
template <typename T>
static __global__ void move(gr_view<T> packed, gr_view<T> loose, const int32_t *rows, int64_t n,
                            bool scatters, struct gr_runs runs)
{
    constexpr int run = gr_run_of<T>;
    struct gr_run at;
    float v[run];

    if (!gr_find_run(&at, runs, run))
        return;
    const int32_t row = rows == NULL ? -1 : rows[at.row];
    const bool is_there = row >= 0 && row < n;

    if (scatters) {
        gr_read(v, packed.at(at.row, at.begin), at.count);
        gr_write(loose.at(row, at.begin), v, is_there ? at.count : 0);
        return;
    }
    if (is_there) {
        gr_read(v, loose.at(row, at.begin), at.count);
    } else {
        for (int i = 0; i < run; i++)
            v[i] = row == -1 ? 0.0f : NAN;
    }
    gr_write(packed.at(at.row, at.begin), v, at.count);
}

template <typename T>
static void move_in(struct gr_device *dev, const char *op, gr_tensor packed, gr_tensor loose,
                    const int32_t *rows, bool scatters)
{
    const struct gr_runs runs = gr_runs_over(packed.dim[0], packed.dim[1], gr_run_of<T>);

    gr_cuda_ok(dev, op,
               GR_LAUNCH(move<T>, runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<T>(packed), gr_view_of<T>(loose), rows, loose.dim[0], scatters,
                         runs));
}

static void move_rows(struct gr_device *dev, const char *op, gr_tensor packed, gr_tensor loose,
                      const int32_t *rows, bool scatters)
{
    if (gr_tensor_count(packed) > 0)
        (packed.dtype == GR_BF16 ? move_in<__nv_bfloat16> : move_in<float>)(dev, op, packed, loose,
                                                                            rows, scatters);
}

/* ---- loss ---- */

/* The largest of a block's values, in all its threads. */
static __device__ __forceinline__ float block_largest(float value)
{
    GR_SHARED(float, of_warp, [LOSS_WARPS]);
    const int lane = (int)threadIdx.x % LANES, warps = (int)blockDim.x / LANES;

    for (int step = LANES / 2; step > 0; step /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    if (lane == 0)
        of_warp[threadIdx.x / LANES] = value;
    __syncthreads();
    for (int i = 0; i < warps; i++)
        value = fmaxf(value, of_warp[i]);
    return value;
}

/* Their sum, in an order that is always the same. */
static __device__ __forceinline__ double block_sum(double value)
{
    GR_SHARED(double, of_warp, [LOSS_WARPS]);
    const int lane = (int)threadIdx.x % LANES, warps = (int)blockDim.x / LANES;

    for (int step = LANES / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, step);
    if (lane == 0)
        of_warp[threadIdx.x / LANES] = value;
    __syncthreads();
    value = 0.0;
    for (int i = 0; i < warps; i++)
        value += of_warp[i];
    return value;
}

/* *shift <- the largest logit;  returns sum of exp(logit - shift).  One pass: a thread whose
 * largest grows scales down what it has. */
static __device__ double sum_exponentials(float *shift, const float *logits, int vocab)
{
    float most = -INFINITY;
    double sum = 0.0;

    for (int first = (int)threadIdx.x * FOUR; first < vocab; first += (int)blockDim.x * FOUR) {
        const int count = vocab - first;
        float x[FOUR], top = most;

        gr_read(x, logits + first, count);
        for (int i = 0; i < FOUR; i++)
            if (i < count)
                top = fmaxf(top, x[i]);
        if (top > most)
            sum *= (double)expf(most - top);
        most = top;
        for (int i = 0; i < FOUR; i++)
            if (i < count)
                sum += (double)expf(x[i] - most);
    }
    *shift = block_largest(most);
    if (most < *shift)
        sum *= (double)expf(most - *shift);
    return block_sum(sum);
}

/* logits <- p - onehot as elements of T, which at most are as wide: each is read before the threads
 * meet, and what is written then lies before all that is read afterwards. */
template <typename T>
static __device__ void make_dlogits(float *logits, int vocab, int target, float shift, double sum)
{
    const float scale = (float)(1.0 / sum);

    for (int begin = 0; begin < vocab; begin += (int)blockDim.x * FOUR) {
        const int first = begin + (int)threadIdx.x * FOUR;
        float x[FOUR];

        gr_read(x, logits + first, vocab - first);
        for (int i = 0; i < FOUR; i++) {
            float e = expf(x[i] - shift);

            x[i] = e * scale;
            if (first + i == target)
                x[i] = (float)(((double)e - sum) / sum); /* p - 1, without cancelling */
        }
        __syncthreads();
        gr_write((T *)logits + first, x, vocab - first);
    }
}

/* A block for each row.  A number that no row or no token has makes the loss NaN. */
template <typename T>
static __global__ void loss_kernel(gr_view<float> logits, double *loss, const int32_t *rows,
                                   const int32_t *targets, int n, int vocab, bool gradient)
{
    const int i = (int)blockIdx.x, row = rows[i];
    float *x = logits.at(i, 0), shift, wanted;
    double sum;
    int target;

    if (row == -1) { /* padding: its logits are 0, in either type */
        if (threadIdx.x == 0)
            loss[i] = 0.0;
        return;
    }
    target = targets[i];
    if (row < 0 || row >= n || target < 0 || target >= vocab) {
        if (threadIdx.x == 0)
            loss[i] = (double)NAN;
        return;
    }
    wanted = x[target];
    sum = sum_exponentials(&shift, x, vocab);
    if (threadIdx.x == 0)
        loss[i] = log(sum) + ((double)shift - (double)wanted);
    if (gradient)
        make_dlogits<T>(x, vocab, target, shift, sum);
}

/* ---- a chunk ---- */

static struct gr_cuda_product product_of_logits(gr_tensor logits, gr_tensor gathered,
                                                gr_tensor weight)
{
    return {logits, gathered, weight, gr_tensor{}, false, true, 1.0f, 0.0f};
}

static void make_logits(struct gr_device *dev, const char *op, gr_tensor logits, gr_tensor gathered,
                        gr_tensor weight)
{
    const struct gr_cuda_product p = product_of_logits(logits, gathered, weight);

    gr_cuda_gemm(dev, op, &p);
}

/* dh <- dlogits W, in the place of the gathered rows */
static struct gr_cuda_product product_of_dh(gr_tensor gathered, gr_tensor logits, gr_tensor weight)
{
    return {gathered, dlogits_of(logits, (enum gr_dtype)gathered.dtype),
            weight,   gr_tensor{},
            false,    false,
            1.0f,     0.0f};
}

/* What is timed reads numbers: rows of h, and logits of 0. */
static void fill_chunk(struct gr_device *dev, const char *op, const struct gr_head_loss *a,
                       int64_t rows)
{
    const size_t size = (size_t)gr_dtype_bytes(a->h.dtype);
    const gr_tensor gathered = gathered_of(dev, rows, a->h);
    cudaStream_t stream = gr_cuda_of(dev)->stream;

    gr_cuda_ok(dev, op,
               cudaMemcpy2DAsync(gathered.data, (size_t)gathered.stride * size, a->h.data,
                                 (size_t)a->h.stride * size, (size_t)gathered.dim[1] * size,
                                 (size_t)rows, cudaMemcpyDeviceToDevice, stream));
    gr_cuda_ok(dev, op,
               cudaMemsetAsync(logits_of(dev, rows, a->weight).data, 0,
                               (size_t)(rows * padded(a->weight.dim[0])) * sizeof(float), stream));
}

/* How many rows are listed differs from one micro-batch to the next, by what lists are padded to
 * (64): what computes the last chunk is chosen for all its sizes at once, before the first step, so
 * that no step has to. */
static void prepare_chunks(struct gr_device *dev, const char *op, const struct gr_head_loss *a)
{
    const int64_t multiple = 64, rows = a->h.dim[0] < chunk_rows ? a->h.dim[0] : chunk_rows;
    bool is_filled = dev->cache_folder == NULL; /* nothing is timed */

    for (int64_t m = rows / multiple * multiple; m > 0 && !dev->is_settled; m -= multiple) {
        const gr_tensor gathered = gathered_of(dev, m, a->h);
        const gr_tensor logits = logits_of(dev, m, a->weight);
        const struct gr_cuda_product products[] = {product_of_logits(logits, gathered, a->weight),
                                                   product_of_dh(gathered, logits, a->weight)};

        for (int i = 0; i < (gr_tensor_is_none(a->dh) ? 1 : 2); i++) {
            if (!is_filled && !gr_cuda_gemm_is_known(dev, &products[i])) {
                fill_chunk(dev, op, a, rows);
                is_filled = true;
            }
            gr_cuda_gemm_prepare(dev, op, &products[i]);
        }
    }
}

/* Rows [begin, end) of the lists. */
static void chunk_loss(struct gr_device *dev, const struct gr_head_loss *a, int64_t begin,
                       int64_t end)
{
    static const char op[] = "head_loss";
    const int32_t *row = (const int32_t *)a->rows.data + begin;
    const int32_t *target = (const int32_t *)a->targets.data + begin;
    double *loss = (double *)a->row_loss.data + begin;
    gr_tensor gathered = gathered_of(dev, end - begin, a->h);
    gr_tensor logits = logits_of(dev, end - begin, a->weight);
    const struct gr_cuda_product dh = product_of_dh(gathered, logits, a->weight);
    const int threads = LANES * (logits.dim[1] <= SMALL_VOCAB ? 1 : (int)LOSS_WARPS);
    const bool gradient = !gr_tensor_is_none(a->dh);

    move_rows(dev, op, gathered, a->h, row, false);
    make_logits(dev, op, logits, gathered, a->weight);
    gr_cuda_ok(dev, op,
               GR_LAUNCH(a->h.dtype == GR_BF16 ? loss_kernel<__nv_bfloat16> : loss_kernel<float>,
                         (unsigned)(end - begin), threads, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<float>(logits), loss, row, target, (int)a->h.dim[0],
                         (int)logits.dim[1], gradient));
    if (gradient) {
        gr_cuda_gemm(dev, op, &dh);
        move_rows(dev, op, gathered, a->dh, row, true);
    }
}

void gr_cuda_head_loss(struct gr_device *dev, const struct gr_head_loss *a)
{
    int64_t s = a->rows.dim[0];

    prepare_chunks(dev, "head_loss", a);
    if (!gr_tensor_is_none(a->dh)) /* zero where no row is listed */
        move_rows(dev, "head_loss", a->dh, a->dh, NULL, false);
    for (int64_t begin = 0; begin < s; begin += chunk_rows)
        chunk_loss(dev, a, begin, s - begin < chunk_rows ? s : begin + chunk_rows);
}

void gr_cuda_head_logits(struct gr_device *dev, gr_tensor logits, gr_tensor h, gr_tensor weight,
                         gr_tensor rows)
{
    int64_t s = rows.dim[0];

    for (int64_t begin = 0; begin < s; begin += chunk_rows) {
        int64_t end = s - begin < chunk_rows ? s : begin + chunk_rows;
        gr_tensor gathered = gathered_of(dev, end - begin, h);

        move_rows(dev, "head_logits", gathered, h, (const int32_t *)rows.data + begin, false);
        make_logits(dev, "head_logits", gr_tensor_rows(logits, begin, end), gathered, weight);
    }
}
