/* Streams: queues of which nothing runs before the host waits, so that who forgets to wait sees
 * NaN.  Which stream goes first is drawn from EMU_SEED.
 *
 * A vector clock per stream knows which operations of the others came before (events, and waits of
 * the host); emu_check.cpp asks it whether two accesses are in an order. */
#include "emu_internal.h"

#include <deque>
#include <map>
#include <string.h>
#include <time.h>
#include <unistd.h>

namespace emu
{

enum operation_kind { OTHER, KERNEL, EVENT };

struct event {
    bool tells_time;
    uint64_t recorded, done; /* how often */
    vector_clock clock;      /* at the last record */
    double at_ms;            /* the last one that is done */
};

struct operation {
    const char *name;
    std::function<void()> body;
    std::function<bool()> poll;
    vector_clock clock; /* what it comes after, itself included */
    const event *waits_for;
    uint64_t record; /* which recording of it */
    operation_kind kind;
    const void *queued_by;
    uint32_t label; /* 0: has not begun */
    counters counted;
};

struct stream {
    uint32_t index;
    bool nonblocking;
    std::deque<operation> queue;
    vector_clock clock;
};

operation_info operations[1 << LABEL_BITS];
uint32_t label_now;
const operation_info *operation_now;
const vector_clock *clock_now;

static std::vector<stream *> streams;
static vector_clock host_clock;
static std::map<const void *, int> dynamic_limit; /* of shared bytes, where a kernel asked */
static cudaError_t last_error;

/* A copy whose pinned memory the host may not touch yet. */
struct pending_copy {
    uint64_t offset, bytes;
    bool device_writes;
    uint32_t stream, number;
    const char *name;
};
static std::vector<pending_copy> pending_copies;

cudaError_t set_error(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

static void join(vector_clock *a, const vector_clock &b)
{
    for (int i = 0; i < CLOCKS; i++) {
        if (b[i] > (*a)[i])
            (*a)[i] = b[i];
    }
}

static stream *stream_of(cudaStream_t handle)
{
    for (stream *s : streams) {
        if ((cudaStream_t)s == handle)
            return s;
    }
    fail("stream", "%p is the default stream, or none", (void *)handle);
}

/* The host has waited for what the clock says; what it knows already is no wait. */
static void host_learns(const vector_clock &clock)
{
    const vector_clock known = host_clock;
    size_t kept = 0;

    join(&host_clock, clock);
    if (host_clock != known)
        count_wait();
    for (const pending_copy &copy : pending_copies) {
        if (host_clock[copy.stream] < copy.number)
            pending_copies[kept++] = copy;
    }
    pending_copies.resize(kept);
}

void host_access(uint64_t offset, size_t bytes, access_kind kind)
{
    if (clock_now != nullptr)
        return;
    if (offset < PINNED)
        fail("host-access", "the host touches device memory: %s", describe(offset));
    for (const pending_copy &copy : pending_copies) {
        if (offset < copy.offset + copy.bytes && copy.offset < offset + bytes &&
            (copy.device_writes || kind != LOAD))
            fail("host-race", "the host %s pinned memory that %s still %s: it has not waited",
                 kind == LOAD ? "reads" : "writes", copy.name,
                 copy.device_writes ? "writes" : "reads");
    }
}

void pend(const void *pinned, size_t bytes, bool device_writes, cudaStream_t handle,
          const char *name)
{
    const stream *s = stream_of(handle);

    pending_copies.push_back(
        {offset_of(pinned), bytes, device_writes, s->index, s->clock[s->index] + 1, name});
}

bool is_pending(const void *pinned, size_t bytes)
{
    const uint64_t offset = offset_of(pinned);

    for (const pending_copy &copy : pending_copies) {
        if (offset < copy.offset + copy.bytes && copy.offset < offset + bytes)
            return true;
    }
    return false;
}

static uint32_t new_label(const operation_info &info)
{
    static uint32_t label;

    if (++label >> LABEL_BITS != 0) { /* they begin again: what has the old ones is forgotten */
        label = 1;
        forget_histories(false);
    }
    operations[label] = info;
    return label;
}

static void begin(uint32_t label, const vector_clock *clock)
{
    label_now = label;
    operation_now = &operations[label];
    clock_now = clock;
    block_number = 0;
    barriers = 0;
    counted = {};
}

static void end()
{
    operation_now = nullptr;
    clock_now = nullptr;
    access_pc = nullptr;
}

/* Whether it is through; it may wait for another process. */
static bool poll_once(const operation &o)
{
    static time_t waiting_since;

    if (o.poll()) {
        waiting_since = 0;
        return true;
    }
    if (waiting_since == 0)
        waiting_since = time(nullptr);
    if (time(nullptr) - waiting_since > peer_timeout)
        fail("peer", "no other process takes part in %s", o.name);
    usleep(50);
    return false;
}

static void run_first(stream *s)
{
    operation &o = s->queue.front();
    bool done = true;

    if (o.label == 0)
        o.label = new_label({s->index, o.clock[s->index], o.name, o.queued_by});
    begin(o.label, &o.clock);
    counted = o.counted;
    if (o.body)
        o.body();
    if (o.poll)
        done = poll_once(o);
    o.counted = counted;
    if (done && o.kind != EVENT)
        count_operation(o.name, o.kind == KERNEL);
    end();
    if (done)
        s->queue.pop_front();
}

void run_now(const char *name, const std::function<void()> &body)
{
    const uint32_t number = ++host_clock[COPY_STREAM];

    begin(new_label({COPY_STREAM, number, name, api_pc}), &host_clock);
    body();
    count_operation(name, false);
    count_wait();
    end();
}

static bool is_runnable(const stream *s)
{
    if (s->queue.empty())
        return false;
    const operation &first = s->queue.front();

    return first.waits_for == nullptr || first.waits_for->done >= first.record;
}

/* Runs what is queued until the host has what it waits for.  With most seeds the streams it does
 * not wait for stay as late as they may. */
static void run_until(stream *wanted, const std::function<bool()> &arrived)
{
    std::vector<stream *> runnable;

    while (!arrived()) {
        stream *next;

        runnable.clear();
        for (stream *s : streams) {
            if (is_runnable(s))
                runnable.push_back(s);
        }
        if (runnable.empty())
            fail("deadlock", "the host waits, but all streams are empty or wait for events");
        next = runnable[random_bits() % runnable.size()];
        if (wanted != nullptr && is_runnable(wanted) && seed % 3 != 1)
            next = wanted;
        run_first(next);
    }
}

static void push(stream *s, operation &&o)
{
    join(&s->clock, host_clock);
    s->clock[s->index]++;
    o.clock = s->clock;
    o.queued_by = api_pc;
    s->queue.push_back(std::move(o));
    if (eager)
        run_until(s, [=] { return s->queue.empty(); });
}

void enqueue(cudaStream_t handle, const char *name, std::function<void()> body)
{
    operation o = {};

    o.name = name;
    o.body = std::move(body);
    push(stream_of(handle), std::move(o));
}

void enqueue_poll(cudaStream_t handle, const char *name, std::function<bool()> poll)
{
    operation o = {};

    o.name = name;
    o.poll = std::move(poll);
    push(stream_of(handle), std::move(o));
}

static bool is_valid(dim3 grid, dim3 block)
{
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;

    return threads > 0 && threads <= BLOCK_THREADS && block.z <= 64 && grid.x > 0 &&
           grid.x <= 0x7fffffff && grid.y > 0 && grid.y <= 0xffff && grid.z > 0 && grid.z <= 0xffff;
}

cudaError_t queue_launch(launch_of &&launch, cudaStream_t handle, const void *const *pointers,
                         int pointer_count)
{
    auto asked = dynamic_limit.find(launch.function);
    const int limit = asked == dynamic_limit.end() ? SHARED_USUAL : asked->second;
    operation o = {};
    EMU_API;

    memory_start();
    if (!is_valid(launch.grid, launch.block))
        return set_error(cudaErrorInvalidConfiguration);
    if (launch.shared_bytes > (size_t)limit)
        return set_error(cudaErrorInvalidValue);
    for (int i = 0; i < pointer_count; i++) {
        if (pointers[i] != nullptr && !is_device(pointers[i]))
            fail("bad-pointer", "argument %d of the kernel %s is no device memory", i, launch.name);
    }
    launch.shared_limit = asked == dynamic_limit.end() ? SHARED_USUAL : SHARED_MOST;
    o.name = launch.name;
    o.kind = KERNEL;
    auto kept = std::make_shared<launch_of>(std::move(launch));
    o.body = [kept] { run_kernel(*kept); };
    push(stream_of(handle), std::move(o));
    return cudaSuccess;
}

static void wait_for(stream *s)
{
    run_until(s, [=] { return s->queue.empty(); });
    host_learns(s->clock);
}

void wait_for_blocking_streams()
{
    for (stream *s : streams) {
        if (!s->nonblocking)
            wait_for(s);
    }
}

static uint32_t free_index()
{
    for (uint32_t i = 0; i < MOST_STREAMS; i++) {
        bool taken = false;

        for (const stream *s : streams)
            taken = taken || s->index == i;
        if (!taken)
            return i;
    }
    fail("stream", "there are more than %d streams", MOST_STREAMS);
}

/* Of the processor, so that the load of the machine does not count. */
static double host_ms()
{
    timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static event *event_of(cudaEvent_t handle)
{
    if (handle == nullptr)
        fail("event", "NULL is no event");
    return (event *)handle;
}

} // namespace emu

using namespace emu;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags)
{
    EMU_API;
    stream *s;

    memory_start();
    s = new stream{free_index(), flags == cudaStreamNonBlocking, {}, host_clock};
    streams.push_back(s);
    *handle = (cudaStream_t)s;
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *handle)
{
    EMU_API;
    return cudaStreamCreateWithFlags(handle, cudaStreamDefault);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    EMU_API;
    wait_for(stream_of(handle));
    check_redzones();
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    EMU_API;
    stream *s = stream_of(handle);

    if (is_runnable(s))
        run_first(s);
    if (!s->queue.empty())
        return cudaErrorNotReady;
    host_learns(s->clock);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    EMU_API;
    stream *s = stream_of(handle);

    cudaStreamSynchronize(handle);
    for (size_t i = 0; i < streams.size(); i++) {
        if (streams[i] == s)
            streams.erase(streams.begin() + (long)i--);
    }
    delete s;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize()
{
    EMU_API;
    for (size_t i = 0; i < streams.size(); i++)
        wait_for(streams[i]);
    check_redzones();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags)
{
    EMU_API;
    *handle = (cudaEvent_t) new event{(flags & cudaEventDisableTiming) == 0, 0, 0, {}, 0};
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *handle)
{
    EMU_API;
    return cudaEventCreateWithFlags(handle, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle)
{
    EMU_API;
    cudaDeviceSynchronize(); /* queued waits know it */
    delete event_of(handle);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle)
{
    EMU_API;
    event *e = event_of(handle);
    stream *s = stream_of(stream_handle);
    const uint64_t record = ++e->recorded;
    operation o = {};

    join(&s->clock, host_clock);
    e->clock = s->clock;
    e->clock[s->index]++;
    o.name = "cudaEventRecord";
    o.kind = EVENT;
    o.body = [=] {
        if (e->done >= record)
            return;
        e->done = record;
        e->at_ms = host_ms();
    };
    push(s, std::move(o));
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream_handle, cudaEvent_t handle, unsigned)
{
    EMU_API;
    const event *e = event_of(handle);
    stream *s = stream_of(stream_handle);
    operation o = {};

    if (e->recorded == 0)
        return cudaSuccess;
    join(&s->clock, e->clock);
    o.name = "cudaStreamWaitEvent";
    o.kind = EVENT;
    o.waits_for = e;
    o.record = e->recorded;
    push(s, std::move(o));
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
    EMU_API;
    event *e = event_of(handle);
    const uint64_t record = e->recorded;

    run_until(nullptr, [=] { return e->done >= record; });
    host_learns(e->clock);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    EMU_API;
    event *e = event_of(handle);

    for (stream *s : streams) {
        if (e->done < e->recorded && is_runnable(s))
            run_first(s);
    }
    if (e->done < e->recorded)
        return cudaErrorNotReady;
    host_learns(e->clock);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    EMU_API;
    const event *a = event_of(from), *b = event_of(to);

    if (a->recorded == 0 || b->recorded == 0 || !a->tells_time || !b->tells_time)
        return set_error(cudaErrorInvalidResourceHandle);
    if (a->done < a->recorded || b->done < b->recorded)
        return set_error(cudaErrorNotReady);
    *milliseconds = clock_kind == 1   ? (float)(b->at_ms - a->at_ms)
                    : clock_kind == 2 ? 0.5f + (float)(random_bits() % 1024) / 1024
                                      : 1.0f; /* there is no time here */
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
    EMU_API;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || value > SHARED_MOST)
        return set_error(cudaErrorInvalidValue);
    dynamic_limit[function] = value;
    return cudaSuccess;
}

cudaError_t cudaGetLastError()
{
    const cudaError_t error = last_error;

    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError()
{
    return last_error;
}
}
