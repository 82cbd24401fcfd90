/* Programs in which nothing is wrong: right values, and no word from the emulator. */
#include "self.h"

static const size_t bytes = SELF_COUNT * sizeof(float);

/* ---- reductions: warps, shared memory that is used again, atomics ---- */

static __device__ float sum_of_block(float value)
{
    GR_SHARED(float, sums, [32]);

    for (int lane = 16; lane > 0; lane /= 2)
        value += __shfl_xor_sync(~0u, value, lane);
    __syncthreads(); /* of the last use */
    if (threadIdx.x % 32 == 0)
        sums[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0;
    for (int i = 0; i < (int)blockDim.x / 32; i++)
        value += sums[i];
    return value;
}

static __global__ void reduce(float *out, unsigned *blocks, const float *p, int n)
{
    float sum = 0;

    for (int round = 0; round < 3; round++) {
        float value = 0;

        for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
            value += p[i];
        sum += sum_of_block(value);
    }
    if (threadIdx.x == 0) {
        out[blockIdx.x] = sum;
        atomicAdd(blocks, 1u);
    }
}

static bool reduction(cudaStream_t s)
{
    float *out = self_memory(7), *host;
    unsigned *blocks = (unsigned *)self_memory(1);

    cudaMemsetAsync(blocks, 0, sizeof *blocks, s);
    GR_LAUNCH(reduce, 7, 96, 0, s, out, blocks, self_numbers(s, SELF_COUNT), (int)SELF_COUNT);
    host = self_fetch(s, out, 7);
    for (int i = 0; i < 7; i++) {
        if (host[i] != 3 * 4950)
            return false;
    }
    return __float_as_uint(self_fetch(s, blocks, 1)[0]) == 7;
}

/* ---- parts of warps ---- */

static __global__ void halves(float *p, unsigned *votes)
{
    const unsigned mask = threadIdx.x % 2 == 1 ? 0xaaaaaaaau : 0x55555555u;

    if (threadIdx.x % 2 == 1)
        __syncwarp(0xaaaaaaaau);
    else
        __syncwarp(0x55555555u);
    votes[threadIdx.x] = __ballot_sync(mask, threadIdx.x < 4);
    p[threadIdx.x] = __shfl_up_sync(~0u, p[threadIdx.x], 1, 16);
    __syncwarp();
    if (threadIdx.x < 8)
        p[threadIdx.x] = __shfl_down_sync(0xffu, p[threadIdx.x], 1, 8);
}

static bool parts_of_warps(cudaStream_t s)
{
    unsigned *votes = (unsigned *)self_memory(32);
    float *p = self_numbers(s, 32), *host;

    GR_LAUNCH(halves, 1, 32, 0, s, p, votes);
    host = self_fetch(s, p, 32);
    if (host[0] != 0 || host[1] != 1 || host[7] != 6 || host[15] != 14 || host[16] != 16)
        return false;
    host = self_fetch(s, votes, 2);
    return __float_as_uint(host[0]) == 5 && __float_as_uint(host[1]) == 10;
}

/* ---- a warp's own shared memory, over more __syncwarp than a key can count ---- */

static __global__ void long_loop(float *p)
{
    GR_SHARED(float, once, [64]);
    float sum = 0;

    once[threadIdx.x] = p[threadIdx.x];
    __syncwarp();
    for (int i = 0; i < 1500; i++) {
        sum += once[threadIdx.x ^ 1];
        __syncwarp();
    }
    p[threadIdx.x] = sum;
}

static bool many_syncs(cudaStream_t s)
{
    float *p = self_numbers(s, 64);

    GR_LAUNCH(long_loop, 1, 64, 0, s, p);
    return self_fetch(s, p, 64)[6] == 7 * 1500;
}

/* ---- cp.async in two buffers ---- */

static __global__ void pipeline(float *out, const float *p, int tiles)
{
    GR_DYNAMIC_SHARED(float4, room);
    const int me = (int)threadIdx.x, threads = (int)blockDim.x;
    float sum = 0;

    gr_cp_async16(room + me, p + 4 * me);
    gr_cp_async_commit();
    for (int i = 0; i < tiles; i++) {
        if (i + 1 < tiles)
            gr_cp_async16(room + (i + 1) % 2 * threads + me, p + 4 * ((i + 1) * threads + me),
                          i + 2 == tiles && me == 0 ? 8 : 16);
        gr_cp_async_commit();
        gr_cp_async_wait<1>();
        __syncthreads();
        for (int j = 0; j < threads; j++) {
            const float4 v = room[i % 2 * threads + j];

            sum += v.x + v.y + v.z + v.w;
        }
        __syncthreads();
    }
    out[me] = sum;
}

static bool double_buffer(cudaStream_t s)
{
    const int threads = 64, tiles = 5, count = 4 * threads * tiles;
    float *out = self_memory(threads);
    const float all = (float)(count * (count - 1) / 2), cut = 4 * threads * (tiles - 1) + 2;

    GR_LAUNCH(pipeline, 1, threads, 2 * threads * sizeof(float4), s, out, self_numbers(s, count),
              tiles);
    return self_fetch(s, out, threads)[63] == all - 2 * cut - 1;
}

/* ---- two streams in order, and pinned memory used again ---- */

static __global__ void add(float *p, float value)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    if (i < SELF_COUNT)
        p[i] += value;
}

static bool two_streams(cudaStream_t s)
{
    cudaStream_t other;
    cudaEvent_t ready, taken;
    float *device = self_numbers(s, SELF_COUNT), *host = self_fetch(s, device, SELF_COUNT);

    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&ready, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&taken, cudaEventDisableTiming);
    for (int i = 0; i < 4; i++) {
        cudaStreamWaitEvent(s, taken, 0);
        GR_LAUNCH(add, 4, 32, 0, s, device, 1.0f);
        cudaEventRecord(ready, s);
        cudaStreamWaitEvent(other, ready, 0);
        cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, other);
        cudaEventRecord(taken, other);
        cudaEventSynchronize(taken);
        if (host[3] != (float)(4 + i))
            return false;
        host[3] = 0;
    }
    while (cudaEventQuery(taken) == cudaErrorNotReady)
        ;
    cudaStreamDestroy(other);
    cudaEventDestroy(ready);
    cudaEventDestroy(taken);
    return self_wait(s);
}

/* Only what has been waited for has taken time, and only where it was wanted. */
static bool times(cudaStream_t s)
{
    float *device = self_numbers(s, SELF_COUNT), ms = 0;
    cudaEvent_t begin, end, silent;
    bool good;

    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    cudaEventCreateWithFlags(&silent, cudaEventDisableTiming);
    cudaEventRecord(begin, s);
    GR_LAUNCH(add, 4, 32, 0, s, device, 1.0f);
    cudaEventRecord(silent, s);
    good = cudaEventElapsedTime(&ms, begin, end) == cudaErrorInvalidResourceHandle;
    cudaEventRecord(end, s);
    good = cudaEventElapsedTime(&ms, begin, end) == cudaErrorNotReady && good;
    cudaEventSynchronize(end);
    good = cudaEventElapsedTime(&ms, begin, end) == cudaSuccess && ms > 0 && good;
    good = cudaEventElapsedTime(&ms, begin, silent) == cudaErrorInvalidResourceHandle && good;
    cudaGetLastError();
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaEventDestroy(silent);
    return good && self_wait(s);
}

/* ---- launches: arguments by value, grids of three dimensions, shared memory on request ---- */

struct many {
    float *out;
    int table[40];
    dim3 shape;
};

template <int scale, bool is_negative> static __global__ void fill(struct many m, int8_t sign)
{
    GR_DYNAMIC_SHARED(int, room);
    const unsigned block = blockIdx.x + m.shape.x * (blockIdx.y + m.shape.y * blockIdx.z);
    int local[4];

    for (int i = 0; i < 4; i++)
        local[i] = m.table[i] * (is_negative ? -scale : scale);
    if (threadIdx.x + threadIdx.y == 0)
        memcpy(room, local, sizeof local);
    __syncthreads();
    if (threadIdx.x == 1 && threadIdx.y == 1)
        m.out[block] = (float)(room[block % 4] * sign);
}

static bool arguments(cudaStream_t s)
{
    struct many m = {self_memory(2 * 3 * 4), {1, 2, 3, 4}, dim3(2, 3, 4)};
    const int shared = 100 << 10;
    float *host;

    if (cudaFuncSetAttribute(fill<5, true>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared) !=
        cudaSuccess)
        return false;
    if (GR_LAUNCH((fill<5, true>), m.shape, dim3(2, 3), shared, s, m, (int8_t)-1) != cudaSuccess)
        return false;
    m.table[0] = 100; /* the launch has its copy */
    host = self_fetch(s, m.out, 24);
    return host[0] == 5 && host[11] == 20 && host[23] == 20;
}

/* ---- the whole of a block, and vectors ---- */

static __constant__ float constants[4] = {1, 2, 3, 4};

static __global__ void vectors(float *p)
{
    const uint4 bits = __ldg(reinterpret_cast<const uint4 *>(p) + threadIdx.x);
    const float4 v =
        make_float4(constants[0] * __uint_as_float(bits.x), constants[1] * __uint_as_float(bits.y),
                    constants[2] * __uint_as_float(bits.z), constants[3] * __uint_as_float(bits.w));

    reinterpret_cast<float4 *>(p)[threadIdx.x] = v;
}

static bool whole_block(cudaStream_t s)
{
    float *p = self_numbers(s, 4096), *host;

    GR_LAUNCH(vectors, 1, 1024, 0, s, p);
    host = self_fetch(s, p, 4096);
    for (int i = 0; i < 4096; i++) {
        if (host[i] != (float)(i * (1 + i % 4)))
            return false;
    }
    return true;
}

/* ---- more operations than there are labels for histories ---- */

static bool many_launches(cudaStream_t s)
{
    float *p = self_numbers(s, SELF_COUNT);

    for (int i = 0; i < 70000; i++) {
        GR_LAUNCH(add, 1, 1, 0, s, p, 1.0f);
        if (i % 1000 == 0)
            cudaStreamSynchronize(s);
    }
    return self_fetch(s, p, 2)[0] == 70000;
}

/* What is copied while it holds new bytes may be copied, so long as nobody computes with them. */
static bool new_bytes_copied(cudaStream_t s)
{
    float *a = self_memory(SELF_COUNT), *b = self_memory(SELF_COUNT);

    cudaMemcpyAsync(b, a, bytes, cudaMemcpyDeviceToDevice, s);
    cudaMemsetAsync(b, 0, bytes, s);
    GR_LAUNCH(add, 4, 32, 0, s, b, 2.0f);
    return self_fetch(s, b, SELF_COUNT)[99] == 2;
}

const struct self_case legal_programs[] = {{"reduction", SILENT, NULL, reduction},
                                           {"parts of warps", SILENT, NULL, parts_of_warps},
                                           {"many __syncwarp", SILENT, NULL, many_syncs},
                                           {"cp.async in two buffers", SILENT, NULL, double_buffer},
                                           {"two streams with events", SILENT, NULL, two_streams},
                                           {"events tell time", SILENT, NULL, times},
                                           {"arguments by value", SILENT, NULL, arguments},
                                           {"1024 threads and vectors", SILENT, NULL, whole_block},
                                           {"many launches", SILENT, NULL, many_launches},
                                           {"copy of new bytes", SILENT, NULL, new_bytes_copied},
                                           END_OF_CASES};
