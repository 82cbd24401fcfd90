/* Faults of kernels: bounds, what was never written, races, pointers. */
#include "self.h"

/* Launches a kernel of (float *, int) with one block of 32 threads. */
#define RUN(kernel, memory) (GR_LAUNCH(kernel, 1, 32, 0, s, memory, SELF_COUNT), self_wait(s))

static __global__ void past_end(float *p, int n)
{
    if (threadIdx.x == 0)
        p[n] = 1; // found
}

static __global__ void before_begin(float *p, int)
{
    if (threadIdx.x == 0)
        p[-1] = 1; // found
}

static __global__ void far_past_end(float *p, int n)
{
    if (threadIdx.x == 0)
        p[n + 4096] = 1; // found
}

static __global__ void past_dynamic_shared(float *p, int)
{
    GR_DYNAMIC_SHARED(float, room);

    room[threadIdx.x + 1] = 1; // found
    p[threadIdx.x] = room[threadIdx.x + 1];
}

static __global__ void past_static_shared(float *p, int n)
{
    GR_SHARED(float, room, [8]);

    if (threadIdx.x == 0)
        room[n / 12] = 1; // found
    p[threadIdx.x] = 0;
}

static __global__ void copies_past_end(float *p, int n)
{
    float four[4] = {0, 1, 2, 3};

    if (threadIdx.x == 0)
        memcpy(p + n - 3, four, sizeof four); // found
}

static __global__ void reads(float *p, int)
{
    if (p[threadIdx.x] == 1) // found
        p[threadIdx.x] = 2;
}

static __global__ void reads_unwritten_shared(float *p, int)
{
    GR_SHARED(float, room, [32]);

    if (threadIdx.x < 16)
        room[threadIdx.x] = 1;
    __syncthreads();
    p[threadIdx.x] = room[threadIdx.x]; // found
}

static __global__ void reduces_without_barrier(float *p, int)
{
    GR_SHARED(float, room, [64]);

    room[threadIdx.x] = p[threadIdx.x];
    __syncthreads();
    for (int step = 32; step > 0; step /= 2) {
        if ((int)threadIdx.x < step)
            room[threadIdx.x] += room[threadIdx.x + step]; // found
    }
    p[threadIdx.x] = room[threadIdx.x];
}

/* The second sum overwrites the first one before all have read it. */
static __global__ void reuses_buffer(float *p, int)
{
    GR_SHARED(float, room, [1]);

    for (int i = 0; i < 2; i++) {
        if (threadIdx.x == 0)
            room[0] = p[i]; // found
        __syncthreads();
        p[threadIdx.x + 2] = room[0]; // found
    }
}

static __global__ void writes_same_shared(float *p, int)
{
    GR_SHARED(float, room, [8]);

    room[threadIdx.x % 8] = (float)threadIdx.x; // found
    __syncthreads();
    p[threadIdx.x] = room[threadIdx.x % 8];
}

static __global__ void blocks_overlap(float *p, int)
{
    p[blockIdx.x + threadIdx.x] = 1; // found
}

static __global__ void reads_neighbour_block(float *p, int)
{
    p[blockIdx.x * 32 + threadIdx.x] = p[(blockIdx.x * 32 + threadIdx.x + 32) % 64] + 1; // found
}

static __global__ void adds_without_atomic(float *p, int)
{
    p[0] += 1; // found
}

static __global__ void stores_misaligned(float *p, int)
{
    if (threadIdx.x == 0)
        *reinterpret_cast<float4 *>(p + 1) = make_float4(1, 2, 3, 4); // found
}

static __global__ void loads_misaligned(float *p, int)
{
    if (threadIdx.x == 0) {
        const uint4 bits = *reinterpret_cast<const uint4 *>(p + 2); // found
        p[0] = (float)(bits.x + bits.y + bits.z + bits.w);
    }
}

struct hidden_pointer {
    const float *to;
};

static __global__ void follows(float *p, struct hidden_pointer hidden)
{
    p[threadIdx.x] = hidden.to[threadIdx.x]; // found
}

static __attribute__((noinline)) __device__ float deep(int n)
{ // found
    volatile float room[64];

    room[n & 63] = (float)n;                       // found
    return n > 0 ? deep(n - 1) + room[n & 63] : 0; // found
}

static __global__ void recurses(float *p, int)
{
    p[0] = deep(1 << 20);
}

static __global__ void traps(float *p, int)
{
    if (p[threadIdx.x] == 5)
        __trap(); // found
}

static __global__ void much_static_shared(float *p, int)
{
    GR_SHARED(float, room, [4096]); // found
    GR_DYNAMIC_SHARED(float, more);

    room[threadIdx.x] = more[threadIdx.x] = 0;
    p[threadIdx.x] = room[threadIdx.x];
}

/* ---- the cases ---- */

static bool past_end_case(cudaStream_t s)
{
    return RUN(past_end, self_memory(SELF_COUNT));
}

static bool before_begin_case(cudaStream_t s)
{
    return RUN(before_begin, self_memory(SELF_COUNT));
}

static bool far_past_end_case(cudaStream_t s)
{
    return RUN(far_past_end, self_memory(SELF_COUNT));
}

static bool past_dynamic_shared_case(cudaStream_t s)
{
    GR_LAUNCH(past_dynamic_shared, 1, 32, 128, s, self_memory(SELF_COUNT), SELF_COUNT);
    return self_wait(s);
}

static bool past_static_shared_case(cudaStream_t s)
{
    return RUN(past_static_shared, self_memory(SELF_COUNT));
}

static bool copies_past_end_case(cudaStream_t s)
{
    return RUN(copies_past_end, self_memory(SELF_COUNT));
}

static bool unwritten_case(cudaStream_t s)
{
    return RUN(reads, self_memory(SELF_COUNT));
}

static bool unwritten_copy_case(cudaStream_t s)
{
    float *copy = self_memory(SELF_COUNT);

    cudaMemcpyAsync(copy, self_memory(SELF_COUNT), SELF_COUNT * sizeof(float),
                    cudaMemcpyDeviceToDevice, s);
    return RUN(reads, copy);
}

static bool unwritten_shared_case(cudaStream_t s)
{
    return RUN(reads_unwritten_shared, self_memory(SELF_COUNT));
}

static bool use_after_free_case(cudaStream_t s)
{
    float *p = self_numbers(s, SELF_COUNT);

    cudaFree(p);
    return RUN(reads, p);
}

static bool missing_barrier_case(cudaStream_t s)
{
    GR_LAUNCH(reduces_without_barrier, 1, 64, 0, s, self_numbers(s, SELF_COUNT), SELF_COUNT);
    return self_wait(s);
}

static bool reused_buffer_case(cudaStream_t s)
{
    GR_LAUNCH(reuses_buffer, 1, 64, 0, s, self_numbers(s, SELF_COUNT), SELF_COUNT);
    return self_wait(s);
}

static bool same_shared_case(cudaStream_t s)
{
    return RUN(writes_same_shared, self_memory(SELF_COUNT));
}

static bool blocks_overlap_case(cudaStream_t s)
{
    GR_LAUNCH(blocks_overlap, 2, 32, 0, s, self_memory(SELF_COUNT), SELF_COUNT);
    return self_wait(s);
}

static bool neighbour_block_case(cudaStream_t s)
{
    GR_LAUNCH(reads_neighbour_block, 2, 32, 0, s, self_numbers(s, SELF_COUNT), SELF_COUNT);
    return self_wait(s);
}

static bool no_atomic_case(cudaStream_t s)
{
    return RUN(adds_without_atomic, self_numbers(s, SELF_COUNT));
}

static bool misaligned_store_case(cudaStream_t s)
{
    return RUN(stores_misaligned, self_numbers(s, SELF_COUNT));
}

static bool misaligned_load_case(cudaStream_t s)
{
    return RUN(loads_misaligned, self_numbers(s, SELF_COUNT));
}

static bool host_pointer_case(cudaStream_t s)
{
    float here[SELF_COUNT] = {0};

    return RUN(past_end, here); // found
}

static bool hidden_host_pointer_case(cudaStream_t s)
{
    float here[32] = {0};
    const struct hidden_pointer hidden = {here};

    GR_LAUNCH(follows, 1, 32, 0, s, self_memory(SELF_COUNT), hidden);
    return self_wait(s);
}

static bool pinned_pointer_case(cudaStream_t s)
{
    struct hidden_pointer hidden = {self_fetch(s, self_numbers(s, SELF_COUNT), SELF_COUNT)};

    GR_LAUNCH(follows, 1, 32, 0, s, self_memory(SELF_COUNT), hidden);
    return self_wait(s);
}

static bool deep_stack_case(cudaStream_t s)
{
    GR_LAUNCH(recurses, 1, 1, 0, s, self_memory(SELF_COUNT), SELF_COUNT);
    return self_wait(s);
}

static bool trap_case(cudaStream_t s)
{
    return RUN(traps, self_numbers(s, SELF_COUNT));
}

static bool much_shared_case(cudaStream_t s)
{
    GR_LAUNCH(much_static_shared, 1, 32, 40 << 10, s, self_memory(SELF_COUNT), SELF_COUNT); // found
    return self_wait(s);
}

/* Launches that CUDA refuses. */

static bool too_many_threads_case(cudaStream_t s)
{
    return GR_LAUNCH(past_end, 1, 2048, 0, s, self_memory(SELF_COUNT), 0) ==
               cudaErrorInvalidConfiguration &&
           cudaGetLastError() == cudaErrorInvalidConfiguration &&
           cudaGetLastError() == cudaSuccess && self_wait(s);
}

static bool empty_grid_case(cudaStream_t s)
{
    return GR_LAUNCH(past_end, 0, 32, 0, s, self_memory(SELF_COUNT), 0) ==
           cudaErrorInvalidConfiguration;
}

static bool too_much_shared_case(cudaStream_t s)
{
    return GR_LAUNCH(past_end, 1, 32, 60 << 10, s, self_memory(SELF_COUNT), 0) ==
           cudaErrorInvalidValue;
}

static bool out_of_memory_case(cudaStream_t)
{
    void *memory = NULL;

    return cudaMalloc(&memory, (size_t)1 << 45) == cudaErrorMemoryAllocation && memory == NULL;
}

const struct self_case kernel_faults[] = {
    {"write past the end", FOUND_BY_BOTH, "out-of-bounds", past_end_case},
    {"write before the begin", FOUND_BY_BOTH, "out-of-bounds", before_begin_case},
    {"write far past the end", FOUND_BY_BOTH, "out-of-bounds", far_past_end_case},
    {"write past dynamic shared memory", FOUND, "out-of-bounds", past_dynamic_shared_case},
    {"write past a shared variable", FOUND, "out-of-bounds", past_static_shared_case},
    {"memcpy past the end", FOUND_BY_BOTH, "out-of-bounds", copies_past_end_case},
    {"read of new memory", FOUND, "uninitialised", unwritten_case},
    {"read of a copy of new memory", FOUND, "uninitialised", unwritten_copy_case},
    {"read of new shared memory", FOUND, "uninitialised", unwritten_shared_case},
    {"use after free", FOUND_BY_BOTH, "use-after-free", use_after_free_case},
    {"missing barrier", FOUND, "race", missing_barrier_case},
    {"buffer used again without a barrier", FOUND, "race", reused_buffer_case},
    {"write to the same shared memory", FOUND, "race", same_shared_case},
    {"blocks write the same memory", FOUND, "race", blocks_overlap_case},
    {"block reads what another writes", FOUND, "race", neighbour_block_case},
    {"+= in place of atomicAdd", FOUND, "race", no_atomic_case},
    {"misaligned store of float4", FOUND, "misaligned", misaligned_store_case},
    {"misaligned load of uint4", FOUND, "misaligned", misaligned_load_case},
    {"host pointer as argument", FOUND_BY_BOTH, "bad-pointer", host_pointer_case},
    {"host pointer inside an argument", FOUND, "bad-pointer", hidden_host_pointer_case},
    {"pinned memory in a kernel", FOUND, "bad-pointer", pinned_pointer_case},
    {"deep recursion", FOUND_BY_BOTH, "stack", deep_stack_case},
    {"trap", FOUND_BY_BOTH, "trap", trap_case},
    {"too much static and dynamic shared memory", FOUND_BY_BOTH, "shared-memory", much_shared_case},
    {"too many threads", SILENT, NULL, too_many_threads_case},
    {"empty grid", SILENT, NULL, empty_grid_case},
    {"too much dynamic shared memory", SILENT, NULL, too_much_shared_case},
    {"out of memory", SILENT, NULL, out_of_memory_case},
    END_OF_CASES};
