/* What the counters say about kernels whose traffic is known.  In the fast build they count
 * operations only. */
#include "self.h"

#include "emu_count.h"

enum { ROWS = 8, COLUMNS = 64, CELLS = ROWS * COLUMNS };

/* A block a row: reads it `passes` times, writes it once. */
static __global__ void scale_rows(float *y, const float *x, int passes)
{
    float sum = 0;

    for (int i = 0; i < passes; i++)
        sum += x[blockIdx.x * COLUMNS + threadIdx.x];
    y[blockIdx.x * COLUMNS + threadIdx.x] = sum;
}

static __global__ void copy_part(float4 *to, const float4 *x, unsigned *count)
{
    GR_SHARED(float4, room, [16]);

    if (threadIdx.x < 16) {
        gr_cp_async16(&room[threadIdx.x], x + threadIdx.x, threadIdx.x < 8 ? 16 : 4);
        gr_cp_async_commit();
        gr_cp_async_wait<0>();
        to[threadIdx.x] = room[threadIdx.x];
    }
    atomicAdd(count, 1u);
}

static bool is(int64_t i, const char *name, bool is_kernel, int64_t loaded, int64_t stored)
{
    const struct emu_operation o = emu_counted_operation(i);

    if (strcmp(o.name, name) == 0 && (o.is_kernel != 0) == is_kernel &&
        o.loaded == (emu::checking ? loaded : 0) && o.stored == (emu::checking ? stored : 0))
        return true;
    printf("%s: kernel %d, loaded %lld, stored %lld\n", o.name, (int)o.is_kernel,
           (long long)o.loaded, (long long)o.stored);
    return false;
}

static bool known_traffic(cudaStream_t s)
{
    const int64_t bytes = CELLS * (int64_t)sizeof(float);
    float *x = self_numbers(s, CELLS), *y = self_memory(CELLS);
    void *host = NULL;

    cudaMallocHost(&host, (size_t)bytes);
    emu_count(1);
    GR_LAUNCH(scale_rows, ROWS, COLUMNS, 0, s, y, x, 1);
    GR_LAUNCH(scale_rows, ROWS, COLUMNS, 0, s, y, x, 3);
    GR_LAUNCH(scale_rows, 1, COLUMNS, 0, s, x, x, 1);
    cudaMemcpyAsync(host, y, (size_t)bytes, cudaMemcpyDeviceToHost, s);
    cudaMemsetAsync(y, 0, 100, s);
    if (emu_counted() != 0) /* nothing has run */
        return false;
    cudaStreamSynchronize(s);
    return emu_counted() == 5 && is(0, "scale_rows", true, bytes, bytes) &&
           is(1, "scale_rows", true, bytes, bytes) &&
           is(2, "scale_rows", true, bytes / ROWS, bytes / ROWS) &&
           is(3, "copy to the host", false, bytes, 0) && is(4, "cudaMemsetAsync", false, 0, 100);
}

/* One more pass over the tensor, as a launch of its own, is seen. */
static bool extra_pass(cudaStream_t s)
{
    float *x = self_numbers(s, CELLS), *y = self_memory(CELLS);
    int64_t traffic = 0;

    emu_count(1);
    GR_LAUNCH(scale_rows, ROWS, COLUMNS, 0, s, y, x, 1);
    GR_LAUNCH(scale_rows, ROWS, COLUMNS, 0, s, y, y, 1);
    cudaStreamSynchronize(s);
    for (int64_t i = 0; i < emu_counted(); i++)
        traffic += emu_counted_operation(i).loaded + emu_counted_operation(i).stored;
    return traffic == (emu::checking ? 4 * CELLS * (int64_t)sizeof(float) : 0);
}

static bool copies_and_atomics(cudaStream_t s)
{
    float *x = self_numbers(s, 64), *y = self_memory(64);
    unsigned *count = (unsigned *)self_memory(1);

    cudaMemsetAsync(count, 0, sizeof *count, s);
    cudaStreamSynchronize(s);
    emu_count(1);
    GR_LAUNCH(copy_part, 1, 32, 0, s, (float4 *)y, (const float4 *)x, count);
    cudaStreamSynchronize(s);
    return is(0, "copy_part", true, 8 * 16 + 8 * 4 + 4, 16 * 16 + 4);
}

static bool waits_are(int64_t expected)
{
    const int64_t waits = emu_counted_host().waits;

    if (waits != expected)
        printf("%lld waits, expected %lld\n", (long long)waits, (long long)expected);
    return waits == expected;
}

/* Each way to wait counts once; asking for what is known does not. */
static bool waits(cudaStream_t s)
{
    float *x = self_numbers(s, 64);
    cudaEvent_t event;
    bool good;

    cudaEventCreate(&event);
    emu_count(1);
    cudaMemsetAsync(x, 0, 64, s);
    good = waits_are(0);
    cudaStreamSynchronize(s);
    good = waits_are(1) && good;
    cudaStreamSynchronize(s);
    good = cudaStreamQuery(s) == cudaSuccess && waits_are(1) && good;
    cudaMemsetAsync(x, 0, 64, s);
    cudaEventRecord(event, s);
    cudaEventSynchronize(event);
    cudaEventSynchronize(event);
    good = waits_are(2) && good;
    cudaMemsetAsync(x, 0, 64, s);
    while (cudaStreamQuery(s) == cudaErrorNotReady)
        continue;
    good = waits_are(3) && good;
    cudaMemsetAsync(x, 0, 64, s);
    cudaDeviceSynchronize();
    cudaMemset(x, 0, 64);
    good = waits_are(5) && good;
    emu_count(0);
    cudaEventDestroy(event);
    return good;
}

static bool allocations(cudaStream_t s)
{
    void *memory[2];

    (void)s;
    emu_count(1);
    cudaMalloc(&memory[0], 64);
    cudaMallocHost(&memory[1], 64);
    cudaFree(memory[0]);
    cudaFreeHost(memory[1]);
    return emu_counted_host().allocations == 4;
}

const struct self_case counts[] = {
    {"counters: known traffic", SILENT, NULL, known_traffic},
    {"counters: an extra pass", SILENT, NULL, extra_pass},
    {"counters: cp.async and atomics", SILENT, NULL, copies_and_atomics},
    {"counters: waits", SILENT, NULL, waits},
    {"counters: allocations", SILENT, NULL, allocations},
    END_OF_CASES};
