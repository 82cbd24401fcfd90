/* What the emulator gives to everything that works on its streams: the CUDA calls, and the doubles
 * of cuBLASLt and NCCL.  Kernels never see it. */
#ifndef EMU_QUEUE_H
#define EMU_QUEUE_H

#include <cuda_runtime.h>
#include <functional>
#include <stddef.h>
#include <stdint.h>

namespace emu
{

enum access_kind { LOAD, STORE, ATOMIC };

/* A finding: prints "EMU ERROR [kind] ...", kernel, thread, file:line, and ends the process (99).
 */
[[noreturn]] void fail(const char *kind, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* First in each function that the plug-in calls: what goes wrong in it, or later in what it queues,
 * is reported with the line that called it. */
#define EMU_API emu::api_call api_call_here(__builtin_return_address(0))
struct api_call {
    explicit api_call(const void *pc);
    ~api_call();
    bool is_outermost;
};

/* Queues an operation.  It runs when the host waits, in the stream's order. */
void enqueue(cudaStream_t stream, const char *name, std::function<void()> body);
/* The same for one that waits for another process: called again until it returns true. */
void enqueue_poll(cudaStream_t stream, const char *name, std::function<bool()> poll);

/* [p, p + bytes) must lie in one live allocation of device memory; legal anywhere. */
void dev_extent(const void *p, size_t bytes, const char *what);
/* dev_extent, and the operation that is running reads or writes the range: finds what is not
 * written yet and what races with other streams, and is counted.  Before the read, or the write. */
void dev_touch(const void *p, size_t bytes, access_kind kind, const char *what);
/* dev_touch of what is written, but is no operand: the workspace of a library, not counted. */
void dev_scratch(const void *p, size_t bytes, const char *what);
/* The product that the running operation computes, for the counters. */
void count_product(int64_t m, int64_t n, int64_t k);

/* From EMU_SEED. */
uint32_t random_bits();

} // namespace emu

#endif
