/* Faults of the host's code: waits, events, copies, pointers. */
#include "self.h"

static __global__ void add_one(float *p, int n)
{
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        p[i] += 1;
}

static const size_t bytes = SELF_COUNT * sizeof(float);

static float *pinned(void)
{
    void *memory = NULL;

    cudaMallocHost(&memory, bytes);
    memset(memory, 0, bytes);
    return (float *)memory;
}

static cudaStream_t second_stream(void)
{
    cudaStream_t stream;

    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    return stream;
}

static bool reads_before_wait(cudaStream_t s)
{
    float *host = pinned();

    cudaMemcpyAsync(host, self_numbers(s, SELF_COUNT), bytes, cudaMemcpyDeviceToHost, s);
    return host[1] == 1; // found
}

static bool copies_before_wait(cudaStream_t s)
{
    float *host = pinned(), mine[SELF_COUNT];

    cudaMemcpyAsync(host, self_numbers(s, SELF_COUNT), bytes, cudaMemcpyDeviceToHost, s);
    memcpy(mine, host, sizeof mine); // found
    return mine[1] == 1;
}

/* Waits, but for another stream. */
static bool waits_for_other_stream(cudaStream_t s)
{
    float *host = pinned();
    cudaStream_t other = second_stream();

    cudaMemcpyAsync(host, self_numbers(s, SELF_COUNT), bytes, cudaMemcpyDeviceToHost, s);
    cudaStreamSynchronize(other);
    return host[1] == 1; // found
}

/* Waits for an event that was recorded before the copy. */
static bool waits_for_earlier_event(cudaStream_t s)
{
    float *host = pinned(), *device = self_numbers(s, SELF_COUNT);
    cudaEvent_t event;

    cudaEventCreate(&event);
    cudaEventRecord(event, s);
    cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s);
    cudaEventSynchronize(event);
    return host[1] == 1; // found
}

static bool writes_source_before_wait(cudaStream_t s)
{
    float *host = pinned(), *device = self_memory(SELF_COUNT);

    cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, s);
    host[0] = 2; // found
    return self_wait(s);
}

/* Another stream reads what this one writes. */
static bool missing_event_wait(cudaStream_t s)
{
    float *device = self_numbers(s, SELF_COUNT), *host = pinned();
    cudaStream_t other = second_stream();

    GR_LAUNCH(add_one, 1, 32, 0, s, device, SELF_COUNT);                 // found
    cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, other); // found
    cudaStreamSynchronize(s);
    cudaStreamSynchronize(other);
    return host[1] == 2;
}

/* An event is recorded too early, before the kernel that is to be waited for. */
static bool event_recorded_too_early(cudaStream_t s)
{
    float *device = self_numbers(s, SELF_COUNT);
    cudaStream_t other = second_stream();
    cudaEvent_t event;

    cudaEventCreate(&event);
    cudaEventRecord(event, s);
    GR_LAUNCH(add_one, 1, 32, 0, s, device, SELF_COUNT); // found
    cudaStreamWaitEvent(other, event, 0);
    GR_LAUNCH(add_one, 1, 32, 0, other, device, SELF_COUNT); // found
    cudaStreamSynchronize(other);
    return self_wait(s);
}

static bool pageable_copy(cudaStream_t s)
{
    float here[SELF_COUNT] = {0};

    cudaMemcpyAsync(self_memory(SELF_COUNT), here, bytes, cudaMemcpyHostToDevice, s); // found
    return self_wait(s);
}

static bool double_free(cudaStream_t s)
{
    float *p = self_numbers(s, SELF_COUNT);

    cudaFree(p);
    cudaFree(p); // found
    return true;
}

static bool free_inside(cudaStream_t s)
{
    cudaFree(self_numbers(s, SELF_COUNT) + 4); // found
    return true;
}

static bool host_reads_device(cudaStream_t s)
{
    return self_numbers(s, SELF_COUNT)[3] == 3; // found
}

static bool host_clears_device(cudaStream_t s)
{
    memset(self_numbers(s, SELF_COUNT), 0, bytes); // found
    return true;
}

static bool memset_too_long(cudaStream_t s)
{
    cudaMemsetAsync(self_memory(SELF_COUNT), 0, bytes + 4, s); // found
    return self_wait(s);
}

static bool copy_too_long(cudaStream_t s)
{
    void *host = NULL;

    cudaMallocHost(&host, 2 * bytes);
    float *device = self_numbers(s, SELF_COUNT);
    cudaMemcpyAsync(host, device, 2 * bytes, cudaMemcpyDeviceToHost, s); // found
    return self_wait(s);
}

static bool copy_past_pinned(cudaStream_t s)
{
    float *host = pinned(), *device = self_numbers(s, 2 * SELF_COUNT);

    cudaMemcpyAsync(host, device, bytes + 4, cudaMemcpyDeviceToHost, s); // found
    return self_wait(s);
}

static bool wrong_direction(cudaStream_t s)
{
    cudaMemcpyAsync(self_memory(SELF_COUNT), pinned(), bytes, cudaMemcpyDeviceToHost, s); // found
    return self_wait(s);
}

static bool default_stream(cudaStream_t s)
{
    GR_LAUNCH(add_one, 1, 32, 0, (cudaStream_t)0, self_numbers(s, SELF_COUNT), SELF_COUNT); // found
    return self_wait(s);
}

static bool destroyed_stream(cudaStream_t s)
{
    cudaStream_t other = second_stream();

    cudaStreamDestroy(other);
    GR_LAUNCH(add_one, 1, 32, 0, other, self_numbers(s, SELF_COUNT), SELF_COUNT); // found
    return self_wait(s);
}

/* cudaMemcpy waits for blocking streams only. */
static bool memcpy_beside_stream(cudaStream_t s)
{
    float *device = self_numbers(s, SELF_COUNT), host[SELF_COUNT];

    GR_LAUNCH(add_one, 1, 32, 0, s, device, SELF_COUNT);     // found
    cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost); // found
    self_wait(s);
    return host[1] == 2;
}

const struct self_case host_faults[] = {
    {"host reads before the wait", FOUND, "host-race", reads_before_wait},
    {"host copies before the wait", FOUND_BY_BOTH, "host-race", copies_before_wait},
    {"host waits for another stream", FOUND, "host-race", waits_for_other_stream},
    {"host waits for an earlier event", FOUND, "host-race", waits_for_earlier_event},
    {"host writes a copy's source", FOUND, "host-race", writes_source_before_wait},
    {"missing event wait", FOUND, "stream-race", missing_event_wait},
    {"event recorded too early", FOUND, "stream-race", event_recorded_too_early},
    {"asynchronous copy of pageable memory", FOUND_BY_BOTH, "pageable", pageable_copy},
    {"double free", FOUND_BY_BOTH, "free", double_free},
    {"free of a pointer inside", FOUND_BY_BOTH, "free", free_inside},
    {"host reads device memory", FOUND, "host-access", host_reads_device},
    {"host clears device memory", FOUND_BY_BOTH, "host-access", host_clears_device},
    {"memset that is too long", FOUND_BY_BOTH, "out-of-bounds", memset_too_long},
    {"copy that is too long", FOUND_BY_BOTH, "out-of-bounds", copy_too_long},
    {"copy past pinned memory", FOUND_BY_BOTH, "out-of-bounds", copy_past_pinned},
    {"copy of the wrong direction", FOUND_BY_BOTH, "bad-pointer", wrong_direction},
    {"default stream", FOUND_BY_BOTH, "stream", default_stream},
    {"destroyed stream", FOUND_BY_BOTH, "stream", destroyed_stream},
    {"cudaMemcpy beside a stream that does not wait", FOUND, "stream-race", memcpy_beside_stream},
    END_OF_CASES};
