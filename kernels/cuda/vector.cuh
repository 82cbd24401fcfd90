/* What the row-wise and element-wise kernels share: runs of a row between memory, where they are
 * f32 or bf16, and registers, where they are f32; launches that give each run a thread; sums over
 * the lanes of a row.  Nothing about matrices. */
#ifndef GR_CUDA_VECTOR_CUH
#define GR_CUDA_VECTOR_CUH

#include "kernels/cuda/cuda.h"

/* A tensor in a kernel. */
template <typename T> struct gr_view {
    T *data;
    int64_t stride;

    __device__ T *at(int64_t row, int64_t column) const
    {
        return data + row * stride + column;
    }
};

template <typename T> static inline gr_view<T> gr_view_of(gr_tensor t)
{
    return gr_view<T>{(T *)t.data, t.stride};
}

/* ---- runs: neighbours that a thread takes together ---- */

/* 16 bytes of them, the most that one instruction moves. */
template <typename T> constexpr int gr_run_of = (int)(16 / sizeof(T));

/* n elements as they are in memory: 16 bytes, or 8. */
template <int bytes> struct gr_bits_of;
template <> struct gr_bits_of<16> {
    typedef uint4 type;
};
template <> struct gr_bits_of<8> {
    typedef uint2 type;
};
template <int n, typename T> using gr_bits = typename gr_bits_of<n *(int)sizeof(T)>::type;

static __device__ __forceinline__ unsigned gr_bf16_pair(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);

    return *reinterpret_cast<const unsigned *>(&pair);
}

static __device__ __forceinline__ void gr_unpack_pair(float &low, float &high, unsigned pair)
{
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}

/* f32 from such bits. */
static __device__ __forceinline__ void gr_unpack(float (&v)[4], uint4 bits)
{
    v[0] = __uint_as_float(bits.x);
    v[1] = __uint_as_float(bits.y);
    v[2] = __uint_as_float(bits.z);
    v[3] = __uint_as_float(bits.w);
}

static __device__ __forceinline__ void gr_unpack(float (&v)[4], uint2 bits)
{
    gr_unpack_pair(v[0], v[1], bits.x);
    gr_unpack_pair(v[2], v[3], bits.y);
}

static __device__ __forceinline__ void gr_unpack(float (&v)[8], uint4 bits)
{
    gr_unpack_pair(v[0], v[1], bits.x);
    gr_unpack_pair(v[2], v[3], bits.y);
    gr_unpack_pair(v[4], v[5], bits.z);
    gr_unpack_pair(v[6], v[7], bits.w);
}

/* And back; bf16 is rounded. */
static __device__ __forceinline__ void gr_pack(uint4 &bits, const float (&v)[4])
{
    bits = make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                      __float_as_uint(v[3]));
}

static __device__ __forceinline__ void gr_pack(uint2 &bits, const float (&v)[4])
{
    bits = make_uint2(gr_bf16_pair(v[0], v[1]), gr_bf16_pair(v[2], v[3]));
}

static __device__ __forceinline__ void gr_pack(uint4 &bits, const float (&v)[8])
{
    bits = make_uint4(gr_bf16_pair(v[0], v[1]), gr_bf16_pair(v[2], v[3]), gr_bf16_pair(v[4], v[5]),
                      gr_bf16_pair(v[6], v[7]));
}

static __device__ __forceinline__ float gr_widen(float x)
{
    return x;
}

static __device__ __forceinline__ float gr_widen(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

static __device__ __forceinline__ void gr_narrow(float *to, float x)
{
    *to = x;
}

static __device__ __forceinline__ void gr_narrow(__nv_bfloat16 *to, float x)
{
    const __nv_bfloat16 narrow = __float2bfloat16_rn(x);

    *to = narrow; /* apart: the emulator does not see what a call stores itself */
}

/* All n at once, from an address that is a multiple of their size. */
template <int n, typename T>
static __device__ __forceinline__ gr_bits<n, T> gr_fetch_whole(const T *p)
{
    return *reinterpret_cast<const gr_bits<n, T> *>(p);
}

template <int n, typename T>
static __device__ __forceinline__ bool gr_is_whole(const T *p, int64_t count)
{
    return count >= n && ((uintptr_t)p & (sizeof(gr_bits<n, T>) - 1)) == 0;
}

/* The first `count` of n elements, the others 0, from any address.  Several of these, then their
 * gr_unpack: so the loads are under way together. */
template <int n, typename T>
static __device__ __forceinline__ gr_bits<n, T> gr_fetch(const T *p, int64_t count)
{
    gr_bits<n, T> bits;

    if (gr_is_whole<n>(p, count)) {
        bits = gr_fetch_whole<n>(p);
    } else {
        float v[n];

#pragma unroll
        for (int i = 0; i < n; i++)
            v[i] = i < count ? gr_widen(p[i]) : 0.0f;
        gr_pack(bits, v); /* exact */
    }
    return bits;
}

template <int n, typename T>
static __device__ __forceinline__ void gr_read(float (&v)[n], const T *p, int64_t count)
{
    gr_unpack(v, gr_fetch<n>(p, count));
}

/* By one instruction: a plain store of a uint4 is often cut into four. */
template <int n, typename T>
static __device__ __forceinline__ void gr_write_whole(T *p, const float (&v)[n])
{
    gr_bits<n, T> bits;

    gr_pack(bits, v);
    __stwb(reinterpret_cast<gr_bits<n, T> *>(p), bits);
}

/* The first `count`, to any address. */
template <int n, typename T>
static __device__ __forceinline__ void gr_write(T *p, const float (&v)[n], int64_t count)
{
    if (gr_is_whole<n>(p, count)) {
        gr_write_whole(p, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < n; i++)
        if (i < count)
            gr_narrow(p + i, v[i]);
}

/* ---- launches ---- */

static inline int gr_power_of_two(int64_t least, int most)
{
    int power = 1;

    while (power < least && power < most)
        power *= 2;
    return power;
}

/* rows x width elements with a thread for each run; blocks are `across` side by side in a row. */
struct gr_runs {
    int64_t rows, width;
    unsigned across;
    dim3 grid, block;
};

static inline struct gr_runs gr_runs_over(int64_t rows, int64_t width, int run)
{
    enum { THREADS = 256 };
    const int64_t in_row = (width + run - 1) / run;
    struct gr_runs r;

    r.rows = rows;
    r.width = width;
    r.block.x = (unsigned)gr_power_of_two(in_row, THREADS);
    r.block.y = (unsigned)gr_power_of_two(rows, THREADS / (int)r.block.x);
    r.across = (unsigned)((in_row + r.block.x - 1) / r.block.x);
    r.grid.x = (unsigned)((rows + r.block.y - 1) / r.block.y) * r.across;
    return r;
}

/* The run of this thread. */
struct gr_run {
    int64_t row, begin, count; /* count: elements from `begin` to the end of the row */
};

/* false: there is none. */
static __device__ __forceinline__ bool gr_find_run(struct gr_run *at, const struct gr_runs &r,
                                                   int run)
{
    at->row = (int64_t)(blockIdx.x / r.across) * blockDim.y + threadIdx.y;
    at->begin = ((int64_t)(blockIdx.x % r.across) * blockDim.x + threadIdx.x) * run;
    at->count = r.width - at->begin;
    return at->row < r.rows && at->count > 0;
}

/* Of entries whose blocks follow each other, from their first_block on, that of this block. */
template <typename T>
static __device__ __forceinline__ const T &gr_find_entry(const T *entry, int count)
{
    int low = 0, high = count;

    while (high - low > 1) {
        const int middle = (low + high) / 2;

        if (entry[middle].first_block <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    return entry[low];
}

/* ---- sums ---- */

/* Over the `lanes` neighbours (a power of two) that work on a row; the whole warp calls it. */
static __device__ __forceinline__ double gr_sum_lanes(double value, int lanes)
{
    for (int offset = lanes / 2; offset > 0; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

#endif
