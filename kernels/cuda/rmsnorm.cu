/* RMSNorm over the last dimension: whole rows (N, C) or each head (N, H, HD).
 *
 * A row has up to 32 lanes of a warp, which take its runs in turn and add up in f64.  Rows of
 * aligned runs, not too wide, stay in registers between the sum and the result; others are read
 * twice, the second time mostly from a cache.  Products and sums of f32 are not contracted: with
 * the same sums the bits are those of the CPU backend. */
#include "kernels/cuda/vector.cuh"

enum {
    THREADS = 128,
    WARP = 32,
    KEPT_FEW = 4, /* runs of a row that a lane keeps */
    KEPT_MOST = 16,
    /* Of the backward at a time, at least: what registers allow where lanes keep most, and else. */
    BLOCKS_FEW = 3,
    BLOCKS = 6
};

/* Both forms as rows of `width`, `heads` of them behind each other; `lanes` work on each. */
struct rmsnorm_shape {
    int64_t rows;
    int heads, width, lanes;
};

/* The row of a thread, and its lane. */
struct rmsnorm_place {
    int64_t n;       /* row of the tensors */
    int head, begin; /* begin: column where the head begins */
    int lane;
    bool exists;
};

static __device__ __forceinline__ struct rmsnorm_place find_place(const struct rmsnorm_shape &s)
{
    const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    struct rmsnorm_place p;

    p.exists = row < s.rows;
    p.n = s.heads == 1 ? row : row / s.heads;
    p.head = (int)(row - p.n * s.heads);
    p.begin = p.head * s.width;
    p.lane = (int)threadIdx.x;
    return p;
}

/* What a lane has of a row: runs `lane`, lane + lanes, ...; kept in registers, or read again. */
template <typename T, int kept> struct lane_runs {
    uint4 bits[kept];

    __device__ __forceinline__ void fetch(const T *row, int lane, const struct rmsnorm_shape &s)
    {
#pragma unroll
        for (int k = 0; k < kept; k++) {
            const int begin = (lane + k * s.lanes) * gr_run_of<T>;

            if (begin < s.width)
                bits[k] = gr_fetch_whole<gr_run_of<T>>(row + begin);
        }
    }

    __device__ __forceinline__ uint4 get(int k, const T *, int) const
    {
        return bits[k];
    }
};

template <typename T> struct lane_runs<T, 0> {
    __device__ __forceinline__ void fetch(const T *, int, const struct rmsnorm_shape &)
    {
    }

    __device__ __forceinline__ uint4 get(int, const T *from, int count) const
    {
        return gr_fetch<gr_run_of<T>>(from, count);
    }
};

/* Where runs are kept, all of them are whole. */
template <int kept, int n, typename T>
static __device__ __forceinline__ uint4 fetch(const T *p, int count)
{
    return kept > 0 ? gr_fetch_whole<n>(p) : gr_fetch<n>(p, count);
}

template <int kept, int n, typename T>
static __device__ __forceinline__ void write(T *p, const float (&v)[n], int count)
{
    if (kept > 0)
        gr_write_whole(p, v);
    else
        gr_write(p, v, count);
}

/* y <- x * rstd * w */
template <int kept, int n, typename T>
static __device__ __forceinline__ void write_scaled(T *y, const float (&x)[n], float rstd,
                                                    const float (&w)[n], int count)
{
    float v[n];

    for (int i = 0; i < n; i++)
        v[i] = x[i] * rstd * w[i];
    write<kept>(y, v, count);
}

/* rstd <- 1 / sqrt(mean(x^2) + eps);  y <- x * rstd * w */
template <typename T, int kept>
static __global__ void __launch_bounds__(THREADS)
    forward_rows(gr_view<T> y, gr_view<float> rstd, gr_view<const T> x, const T *w,
                 struct rmsnorm_shape s, double eps)
{
    constexpr int run = gr_run_of<T>;
    const struct rmsnorm_place at = find_place(s);
    const int width = at.exists ? s.width : 0;
    const T *from = x.at(at.n, at.begin);
    lane_runs<T, kept> x_runs;
    float v[run], w_v[run];
    double sum = 0;

    if (at.exists)
        x_runs.fetch(from, at.lane, s);
#pragma unroll
    for (int k = 0; kept == 0 || k < kept; k++) {
        const int begin = (at.lane + k * s.lanes) * run;

        if (begin >= width)
            break;
        gr_unpack(v, x_runs.get(k, from + begin, width - begin));
        for (int i = 0; i < run; i++)
            sum += (double)v[i] * (double)v[i];
    }
    sum = gr_sum_lanes(sum, s.lanes);
    const float r = (float)rsqrt(sum / s.width + eps);

    if (at.exists && at.lane == 0)
        *rstd.at(at.n, at.head) = r;
#pragma unroll
    for (int k = 0; kept == 0 || k < kept; k++) {
        const int begin = (at.lane + k * s.lanes) * run, count = width - begin;

        if (count <= 0)
            break;
        const uint4 x_bits = x_runs.get(k, from + begin, count);
        const uint4 w_bits = fetch<kept, run>(w + begin, count);

        gr_unpack(v, x_bits);
        gr_unpack(w_v, w_bits);
        write_scaled<kept>(y.at(at.n, at.begin + begin), v, r, w_v, count);
    }
}

/* The product of two elements, in f64 exact: that of two bf16 is so in f32 already. */
template <typename T> static __device__ __forceinline__ double exact_product(float a, float b)
{
    return sizeof(T) == 2 ? (double)(a * b) : (double)a * (double)b;
}

/* dx <- or += rstd * (w*dy - xhat * mean),  mean = mean(w*dy*xhat);  y: the forward's, or none */
template <typename T, int kept>
static __global__ void __launch_bounds__(THREADS, kept == KEPT_MOST ? BLOCKS_FEW : BLOCKS)
    backward_rows(gr_view<T> dx, gr_view<T> y, gr_view<const T> dy, gr_view<const T> x, const T *w,
                  gr_view<const float> rstd, struct rmsnorm_shape s, bool accumulate)
{
    constexpr int run = gr_run_of<T>;
    const struct rmsnorm_place at = find_place(s);
    const int width = at.exists ? s.width : 0;
    const T *dy_row = dy.at(at.n, at.begin), *x_row = x.at(at.n, at.begin);
    lane_runs<T, kept> dy_runs, x_runs;
    float dy_v[run], x_v[run], w_v[run];
    double sum = 0;

    if (at.exists) {
        dy_runs.fetch(dy_row, at.lane, s);
        x_runs.fetch(x_row, at.lane, s);
    }
#pragma unroll
    for (int k = 0; kept == 0 || k < kept; k++) {
        const int begin = (at.lane + k * s.lanes) * run, count = width - begin;

        if (count <= 0)
            break;
        const uint4 dy_bits = dy_runs.get(k, dy_row + begin, count);
        const uint4 x_bits = x_runs.get(k, x_row + begin, count);
        const uint4 w_bits = fetch<kept, run>(w + begin, count);

        gr_unpack(dy_v, dy_bits);
        gr_unpack(x_v, x_bits);
        gr_unpack(w_v, w_bits);
        for (int i = 0; i < run; i++)
            sum += exact_product<T>(w_v[i], dy_v[i]) * (double)x_v[i];
    }
    sum = gr_sum_lanes(sum, s.lanes);
    if (!at.exists)
        return;
    const float r = *rstd.at(at.n, at.head);
    const float mean = (float)(sum * (double)r / s.width);

#pragma unroll
    for (int k = 0; kept == 0 || k < kept; k++) {
        const int begin = (at.lane + k * s.lanes) * run, count = width - begin;
        T *to = dx.at(at.n, at.begin + begin);

        if (count <= 0)
            break;
        const uint4 dy_bits = dy_runs.get(k, dy_row + begin, count);
        const uint4 x_bits = x_runs.get(k, x_row + begin, count);
        const uint4 w_bits = fetch<kept, run>(w + begin, count);
        const uint4 dx_bits = accumulate ? fetch<kept, run>(to, count) : make_uint4(0, 0, 0, 0);

        gr_unpack(dy_v, dy_bits);
        gr_unpack(x_v, x_bits);
        gr_unpack(w_v, w_bits);
        for (int i = 0; i < run; i++)
            dy_v[i] = __fmul_rn(r, __fsub_rn(__fmul_rn(w_v[i], dy_v[i]), x_v[i] * r * mean));
        gr_unpack(x_v, dx_bits);
        for (int i = 0; i < run && accumulate; i++)
            dy_v[i] = __fadd_rn(x_v[i], dy_v[i]);
        write<kept>(to, dy_v, count);
        if (y.data != NULL) {
            gr_unpack(x_v, x_bits);
            write_scaled<kept>(y.at(at.n, at.begin + begin), x_v, r, w_v, count);
        }
    }
}

static struct rmsnorm_shape shape_of(gr_tensor x)
{
    struct rmsnorm_shape s;

    s.heads = x.ndim == 3 ? (int)x.dim[1] : 1;
    s.width = (int)x.dim[x.ndim - 1];
    s.rows = x.dim[0] * s.heads;
    s.lanes = gr_power_of_two((s.width * gr_dtype_bytes(x.dtype) + 15) / 16, WARP);
    return s;
}

/* Every run of every row is 16 bytes at a multiple of 16. */
static bool has_whole_runs(gr_tensor t)
{
    const int64_t size = gr_dtype_bytes(t.dtype), width = t.dim[t.ndim - 1];

    return (uintptr_t)t.data % 16 == 0 && (t.ndim == 1 || t.stride * size % 16 == 0) &&
           width * size % 16 == 0;
}

/* How many runs a lane keeps: 0 where it cannot, or where they would be too many. */
static int runs_kept(const struct rmsnorm_shape &s, bool whole_runs, enum gr_dtype dtype)
{
    const int64_t runs = s.width * gr_dtype_bytes(dtype) / 16;
    const int64_t of_a_lane = (runs + s.lanes - 1) / s.lanes;

    if (!whole_runs || of_a_lane > KEPT_MOST)
        return 0;
    return of_a_lane > KEPT_FEW ? KEPT_MOST : KEPT_FEW;
}

static dim3 block_of(const struct rmsnorm_shape &s)
{
    return dim3((unsigned)s.lanes, (unsigned)(THREADS / s.lanes));
}

static dim3 grid_of(const struct rmsnorm_shape &s)
{
    const int64_t rows_a_block = THREADS / s.lanes;

    return dim3((unsigned)((s.rows + rows_a_block - 1) / rows_a_block));
}

template <typename T, int kept>
static void forward(struct gr_device *dev, gr_tensor y, gr_tensor rstd, gr_tensor x, gr_tensor w,
                    double eps, const struct rmsnorm_shape &s)
{
    gr_cuda_ok(dev, "rmsnorm_forward",
               GR_LAUNCH((forward_rows<T, kept>), grid_of(s), block_of(s), 0,
                         gr_cuda_of(dev)->stream, gr_view_of<T>(y), gr_view_of<float>(rstd),
                         gr_view_of<const T>(x), (const T *)w.data, s, eps));
}

template <typename T, int kept>
static void backward(struct gr_device *dev, gr_tensor dx, bool accumulate, gr_tensor y,
                     gr_tensor dy, gr_tensor x, gr_tensor w, gr_tensor rstd,
                     const struct rmsnorm_shape &s)
{
    gr_cuda_ok(dev, "rmsnorm_backward",
               GR_LAUNCH((backward_rows<T, kept>), grid_of(s), block_of(s), 0,
                         gr_cuda_of(dev)->stream, gr_view_of<T>(dx), gr_view_of<T>(y),
                         gr_view_of<const T>(dy), gr_view_of<const T>(x), (const T *)w.data,
                         gr_view_of<const float>(rstd), s, accumulate));
}

/* The instance for what the lanes keep. */
#define GR_KEPT(name, kept)                                                                        \
    ((kept) == 0 ? name<T, 0> : (kept) == KEPT_FEW ? name<T, KEPT_FEW> : name<T, KEPT_MOST>)

template <typename T>
static void forward_any(struct gr_device *dev, gr_tensor y, gr_tensor rstd, gr_tensor x,
                        gr_tensor w, double eps)
{
    const struct rmsnorm_shape s = shape_of(x);

    const bool whole_runs = has_whole_runs(y) && has_whole_runs(x) && has_whole_runs(w);

    GR_KEPT(forward, runs_kept(s, whole_runs, x.dtype))(dev, y, rstd, x, w, eps, s);
}

template <typename T>
static void backward_any(struct gr_device *dev, gr_tensor dx, bool accumulate, gr_tensor y,
                         gr_tensor dy, gr_tensor x, gr_tensor w, gr_tensor rstd)
{
    const struct rmsnorm_shape s = shape_of(x);
    const bool whole_runs = has_whole_runs(dx) && has_whole_runs(dy) && has_whole_runs(x) &&
                            has_whole_runs(w) && (gr_tensor_is_none(y) || has_whole_runs(y));

    GR_KEPT(backward, runs_kept(s, whole_runs, x.dtype))(dev, dx, accumulate, y, dy, x, w, rstd, s);
}

void gr_cuda_rmsnorm_forward(struct gr_device *dev, gr_tensor y, gr_tensor rstd, gr_tensor x,
                             gr_tensor w, double eps)
{
    if (gr_tensor_count(x) == 0)
        return;
    (x.dtype == GR_BF16 ? forward_any<__nv_bfloat16> : forward_any<float>)(dev, y, rstd, x, w, eps);
}

void gr_cuda_rmsnorm_backward(struct gr_device *dev, gr_tensor dx, enum gr_write write, gr_tensor y,
                              gr_tensor dy, gr_tensor x, gr_tensor w, gr_tensor rstd)
{
    if (gr_tensor_count(x) == 0)
        return;
    (x.dtype == GR_BF16 ? backward_any<__nv_bfloat16>
                        : backward_any<float>)(dev, dx, write == GR_ACCUMULATE, y, dy, x, w, rstd);
}
