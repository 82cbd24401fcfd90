/* Sums over spans and the element-wise ops of the flat buffers: the bits of the CPU backend, whose
 * order of sums (kernels/sum_order.h) holds here too. */
#include "kernels/cuda/vector.cuh"

#include "kernels/sum_order.h"

/* ---- sums ---- */

enum { WARP = 32 };

/* A block sums a span: each warp a chunk, which it brings into shared memory for its first lane to
 * add up one by one.  A span outside x gives NaN. */
enum { SPAN_WARPS = 4, SPAN_TILE = 512 };

static __device__ double chunk_of_span(double *tile, const double *x, int64_t begin, int64_t end)
{
    const int lane = (int)threadIdx.x % WARP;
    double sum = 0;

    for (int64_t at = begin; at < end; at += SPAN_TILE) {
        const int count = end - at < SPAN_TILE ? (int)(end - at) : (int)SPAN_TILE;

        __syncwarp(); /* the tile is free */
        for (int i = lane; i < count; i += WARP)
            tile[i] = x[at + i];
        __syncwarp();
        for (int i = 0; i < count && lane == 0; i++)
            sum += tile[i];
    }
    return sum;
}

static __global__ void span_sums(double *sum, const double *x, int64_t n, const int32_t *spans,
                                 int64_t stride)
{
    GR_SHARED(double, tile, [SPAN_WARPS][SPAN_TILE]);
    GR_SHARED(double, chunk, [SPAN_WARPS]);
    const int32_t *span = spans + blockIdx.x * stride;
    const int64_t begin = span[0], end = span[1];
    const int warp = (int)threadIdx.x / WARP;
    const bool fits = begin >= 0 && begin <= end && end <= n;
    double total = fits ? 0 : (double)NAN;

    for (int64_t first = begin; first < end && fits; first += SPAN_WARPS * GR_CHUNK) {
        const int64_t from = first + warp * GR_CHUNK;
        const int64_t to = from + GR_CHUNK < end ? from + GR_CHUNK : end;
        const double partial = chunk_of_span(tile[warp], x, from, to);

        if (threadIdx.x % WARP == 0)
            chunk[warp] = partial;
        __syncthreads();
        for (int w = 0; w < SPAN_WARPS && threadIdx.x == 0; w++)
            if (first + w * GR_CHUNK < end)
                total += chunk[w];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        sum[blockIdx.x] = total;
}

void gr_cuda_sum_spans(struct gr_device *dev, gr_tensor sum, gr_tensor x, gr_tensor spans)
{
    if (spans.dim[0] == 0)
        return;
    gr_cuda_ok(dev, "sum_spans",
               GR_LAUNCH(span_sums, dim3((unsigned)spans.dim[0]), dim3(SPAN_WARPS * WARP), 0,
                         gr_cuda_of(dev)->stream, (double *)sum.data, (const double *)x.data,
                         x.dim[0], (const int32_t *)spans.data, spans.stride));
}

/* Blocks of sum_squares: GR_LANES threads to a chunk, so many chunks abreast. */
enum { CHUNKS_ABREAST = 16 };

static __global__ void square_sums(double *partial, const float *x, float scale, int64_t n,
                                   int64_t block)
{
    GR_SHARED(double, chunk, [CHUNKS_ABREAST]);
    const int abreast = (int)blockDim.x / GR_LANES, lane = (int)threadIdx.x % GR_LANES;
    const int mine = (int)threadIdx.x / GR_LANES;
    const int64_t begin = blockIdx.x * block, end = begin + block < n ? begin + block : n;
    double total = 0;

    for (int64_t first = begin; first < end; first += abreast * GR_CHUNK) {
        const int64_t from = first + mine * GR_CHUNK;
        const int64_t to = from + GR_CHUNK < end ? from + GR_CHUNK : end;
        double sum = 0;

        for (int64_t i = from + lane; i < to; i += GR_LANES) {
            const float scaled = __fmul_rn(scale, x[i]);

            sum += (double)scaled * (double)scaled; /* exact products */
        }
        sum = gr_sum_lanes(sum, GR_LANES);
        if (lane == 0)
            chunk[mine] = sum;
        __syncthreads();
        for (int c = 0; c < abreast && threadIdx.x == 0; c++)
            if (first + c * GR_CHUNK < end)
                total += chunk[c];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        partial[blockIdx.x] = total;
}

/* One warp; one of its lanes adds. */
static __global__ void add_partials(double *sum, const double *partial, int count)
{
    GR_SHARED(double, all, [GR_PARTIALS_MOST]);
    double total = 0;

    for (int i = (int)threadIdx.x; i < count; i += WARP)
        all[i] = partial[i];
    __syncwarp();
    if (threadIdx.x != 0)
        return;
    for (int i = 0; i < count; i++)
        total += all[i];
    *sum = total;
}

void gr_cuda_sum_squares(struct gr_device *dev, gr_tensor out, gr_tensor x, float scale)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    const int64_t n = x.dim[0], block = gr_sum_block(n), blocks = gr_sum_blocks(n);
    const int chunks = gr_power_of_two((block / GR_CHUNK + 1) / 2, CHUNKS_ABREAST);
    const int threads = chunks * GR_LANES < WARP ? (int)WARP : chunks * GR_LANES;

    if (blocks > 0)
        gr_cuda_ok(dev, "sum_squares",
                   GR_LAUNCH(square_sums, dim3((unsigned)blocks), dim3((unsigned)threads), 0,
                             c->stream, c->partial, (const float *)x.data, scale, n, block));
    gr_cuda_ok(dev, "sum_squares",
               GR_LAUNCH(add_partials, dim3(1), dim3(WARP), 0, c->stream, (double *)out.data,
                         (const double *)c->partial, (int)blocks));
}

/* ---- element by element ---- */

/* Gapless tensors are one row. */
static struct gr_runs runs_of(gr_tensor t, bool gapless, int run)
{
    return gapless ? gr_runs_over(1, gr_tensor_count(t), run)
                   : gr_runs_over(t.dim[0], gr_tensor_row_size(t), run);
}

static __global__ void add_runs(gr_view<float> y, gr_view<const float> a, gr_view<const float> b,
                                struct gr_runs runs)
{
    constexpr int run = gr_run_of<float>;
    struct gr_run at;
    float a_v[run], b_v[run];

    if (!gr_find_run(&at, runs, run))
        return;
    const uint4 a_bits = gr_fetch<run>(a.at(at.row, at.begin), at.count);
    const uint4 b_bits = gr_fetch<run>(b.at(at.row, at.begin), at.count);

    gr_unpack(a_v, a_bits);
    gr_unpack(b_v, b_bits);
    for (int i = 0; i < run; i++)
        a_v[i] += b_v[i];
    gr_write(y.at(at.row, at.begin), a_v, at.count);
}

void gr_cuda_add(struct gr_device *dev, gr_tensor y, gr_tensor a, gr_tensor b)
{
    const bool gapless =
        gr_tensor_is_contiguous(y) && gr_tensor_is_contiguous(a) && gr_tensor_is_contiguous(b);
    const struct gr_runs runs = runs_of(y, gapless, gr_run_of<float>);

    if (gr_tensor_count(y) > 0)
        gr_cuda_ok(dev, "add",
                   GR_LAUNCH(add_runs, runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                             gr_view_of<float>(y), gr_view_of<const float>(a),
                             gr_view_of<const float>(b), runs));
}

enum { ZERO_RUN = 16 };

/* Rows of bytes, 16 to a thread. */
static __global__ void zero_runs(gr_view<unsigned char> x, struct gr_runs runs)
{
    struct gr_run at;

    if (!gr_find_run(&at, runs, ZERO_RUN))
        return;
    unsigned char *p = x.at(at.row, at.begin);

    if (gr_is_whole<ZERO_RUN>(p, at.count))
        *reinterpret_cast<uint4 *>(p) = make_uint4(0, 0, 0, 0);
    else
        for (int i = 0; i < ZERO_RUN && i < at.count; i++)
            p[i] = 0;
}

void gr_cuda_zero(struct gr_device *dev, gr_tensor x)
{
    const int64_t size = gr_dtype_bytes(x.dtype), row = gr_tensor_row_size(x) * size;
    const struct gr_runs runs = gr_runs_over(x.dim[0], row, ZERO_RUN);
    const gr_view<unsigned char> bytes = {(unsigned char *)x.data, x.stride * size};
    cudaStream_t stream = gr_cuda_of(dev)->stream;

    if (gr_tensor_count(x) == 0)
        return;
    if (gr_tensor_is_contiguous(x))
        gr_cuda_ok(dev, "zero", cudaMemsetAsync(x.data, 0, (size_t)(x.dim[0] * row), stream));
    else
        gr_cuda_ok(dev, "zero",
                   GR_LAUNCH(zero_runs, runs.grid, runs.block, 0, stream, bytes, runs));
}

/* Of the wider type, 16 bytes. */
template <typename TO, typename FROM>
constexpr int copied_run = sizeof(TO) < sizeof(FROM) ? gr_run_of<FROM> : gr_run_of<TO>;

template <typename TO, typename FROM>
static __global__ void copy_runs(gr_view<TO> y, gr_view<const FROM> x, struct gr_runs runs)
{
    constexpr int run = copied_run<TO, FROM>;
    struct gr_run at;
    float v[run];

    if (!gr_find_run(&at, runs, run))
        return;
    gr_read(v, x.at(at.row, at.begin), at.count);
    gr_write(y.at(at.row, at.begin), v, at.count);
}

template <typename TO, typename FROM>
static void copy(struct gr_device *dev, gr_tensor y, gr_tensor x, bool gapless)
{
    const struct gr_runs runs = runs_of(y, gapless, copied_run<TO, FROM>);

    gr_cuda_ok(dev, "copy",
               GR_LAUNCH((copy_runs<TO, FROM>), runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<TO>(y), gr_view_of<const FROM>(x), runs));
}

void gr_cuda_copy(struct gr_device *dev, gr_tensor y, gr_tensor x)
{
    const bool gapless = gr_tensor_is_contiguous(y) && gr_tensor_is_contiguous(x);

    if (gr_tensor_count(y) == 0)
        return;
    if (y.dtype == GR_BF16)
        (x.dtype == GR_BF16 ? copy<__nv_bfloat16, __nv_bfloat16>
                            : copy<__nv_bfloat16, float>)(dev, y, x, gapless);
    else
        (x.dtype == GR_BF16 ? copy<float, __nv_bfloat16> : copy<float, float>)(dev, y, x, gapless);
}

/* ---- many copies in one launch ---- */

enum { PAIRS = 64, PAIR_THREADS = 256 }; /* of a launch: of arguments there are 4 KB */

/* One of them, a thread for each run: blocks follow each other, those of a pair are its own. */
template <typename TO, typename FROM> struct copied_pair {
    gr_view<TO> y;
    gr_view<const FROM> x;
    int64_t width;
    unsigned in_row, runs, first_block;
};

template <typename TO, typename FROM> struct copied_pairs {
    int count;
    copied_pair<TO, FROM> pair[PAIRS];
};

template <typename TO, typename FROM>
static __global__ void copy_all(const copied_pairs<TO, FROM> all)
{
    constexpr int run = copied_run<TO, FROM>;
    const copied_pair<TO, FROM> &p = gr_find_entry(all.pair, all.count);
    const unsigned index = (blockIdx.x - p.first_block) * PAIR_THREADS + threadIdx.x;
    const int64_t row = index / p.in_row, begin = (int64_t)(index % p.in_row) * run;
    float v[run];

    if (index >= p.runs)
        return;
    gr_read(v, p.x.at(row, begin), p.width - begin);
    gr_write(p.y.at(row, begin), v, p.width - begin);
}

/* Adds a pair; the blocks of the launch so far. */
template <typename TO, typename FROM>
static unsigned add_pair(copied_pairs<TO, FROM> *all, unsigned blocks, gr_tensor y, gr_tensor x)
{
    constexpr int run = copied_run<TO, FROM>;
    copied_pair<TO, FROM> *p = &all->pair[all->count++];

    p->y = gr_view_of<TO>(y);
    p->x = gr_view_of<const FROM>(x);
    p->width = y.dim[1];
    p->in_row = (unsigned)((y.dim[1] + run - 1) / run);
    p->runs = (unsigned)y.dim[0] * p->in_row;
    p->first_block = blocks;
    return blocks + (p->runs + PAIR_THREADS - 1) / PAIR_THREADS;
}

template <typename TO, typename FROM>
static void copy_in_launches(struct gr_device *dev, const struct gr_copy_pair *pair, int64_t pairs)
{
    for (int64_t i = 0; i < pairs;) {
        copied_pairs<TO, FROM> all;
        unsigned blocks = 0;

        for (all.count = 0; i < pairs && all.count < PAIRS; i++)
            if (gr_tensor_count(pair[i].y) > 0)
                blocks = add_pair(&all, blocks, pair[i].y, pair[i].x);
        if (blocks > 0)
            gr_cuda_ok(dev, "copy_pairs",
                       GR_LAUNCH((copy_all<TO, FROM>), dim3(blocks), dim3(PAIR_THREADS), 0,
                                 gr_cuda_of(dev)->stream, all));
    }
}

void gr_cuda_copy_pairs(struct gr_device *dev, const struct gr_copy_pair *pair, int64_t pairs)
{
    bool to_bf16 = pairs > 0 && pair->y.dtype == GR_BF16;
    bool from_bf16 = pairs > 0 && pair->x.dtype == GR_BF16;

    if (to_bf16)
        (from_bf16 ? copy_in_launches<__nv_bfloat16, __nv_bfloat16>
                   : copy_in_launches<__nv_bfloat16, float>)(dev, pair, pairs);
    else
        (from_bf16 ? copy_in_launches<float, __nv_bfloat16>
                   : copy_in_launches<float, float>)(dev, pair, pairs);
}
