/* What the files of the emulator share.  One thread of the host calls CUDA, and everything runs on
 * it, so nothing here is locked. */
#ifndef EMU_INTERNAL_H
#define EMU_INTERNAL_H

#include "emu.h"
#include "emu_queue.h"

#include <array>
#include <vector>

namespace emu
{

/* ---- counters (emu_count.cpp) ---- */

struct counters {
    int64_t loaded, stored; /* distinct bytes of device memory */
    double flops;
    int64_t m, n, k; /* of a library's product */
};
extern counters counted; /* of the operation that runs */
void count_operation(const char *name, bool is_kernel);
void count_wait();
void count_allocation();

/* ---- settings (emu_report.cpp) ---- */

extern const int seed;            /* EMU_SEED: order of threads, blocks and streams; 0: in order */
extern const int preempt;         /* EMU_PREEMPT: one in n accesses lets another thread run */
extern const bool eager;          /* EMU_EAGER: operations run when they are queued */
extern const size_t memory_limit; /* EMU_MEM_MB */
extern const int peer_timeout; /* EMU_PEER_TIMEOUT: seconds an operation may wait for a process */
extern const std::vector<int> devices; /* their numbers: of the EMU_DEVICES that the host has, those
                                        * in CUDA_VISIBLE_DEVICES */
extern const int capability;           /* EMU_CAPABILITY: 80 */
extern const int clock_kind;           /* EMU_CLOCK: what time events have; see emu.h */

extern const void *access_pc; /* of the access being checked, for the report */
extern const void *api_pc;    /* of the call of CUDA that the plug-in is in */
extern const void *other_pc;  /* who queued the other operation of a race */

/* ---- fibers (emu_fiber.cpp) ---- */

enum {
    WARP = 32,
    BLOCK_THREADS = 1024,
    OTHER_THREAD = 1023, /* who accesses memory in operations that are no kernel */
    LANE_IN = 48,
    LANE_OUT = 32,
    STACK_BYTES = 128 << 10
};

enum fiber_state { READY, AT_BARRIER, AT_WARP_OP, DONE };

/* A 16-byte copy that cp.async has begun. */
struct async_copy {
    void *to;
    const void *from;
    int bytes, group;
};

struct fiber {
    void *stack_pointer;
    char *stack;
    fiber_state state;
    uint3 thread;
    place at; /* of the last barrier, warp operation or cp.async */
    warp_op op;
    unsigned mask;
    int parameter;
    int groups; /* of cp.async, committed */
    alignas(16) char in[LANE_IN];
    alignas(16) char out[LANE_OUT];
    std::vector<async_copy> copies;
};

extern fiber fibers[BLOCK_THREADS];
extern int running; /* index of the fiber that runs, -1 in the host's code */
/* Its stack, of STACK_BYTES, and the arguments of its kernel; NULL in the host's code. */
extern const char *running_stack, *running_arguments;
extern uint64_t running_argument_bytes;
extern int threads_in_block;
extern const launch_of *kernel; /* the launch that runs */
extern uint64_t block_number;   /* of the block that runs, linear in the grid */
extern uint32_t block_run;      /* counts all blocks run */
extern uint32_t barriers;       /* this block has passed */

/* __syncwarp passed by each warp of the block; lanes waiting in a warp operation, lanes gone. */
extern uint32_t warp_syncs[BLOCK_THREADS / WARP];
extern uint32_t warp_waiting[BLOCK_THREADS / WARP], warp_gone[BLOCK_THREADS / WARP];

void run_kernel(const launch_of &launch);
void wake(int index);
void suspend();    /* the running fiber, whose state says what it waits for */
void let_others(); /* run first */
void finish_copies(int pending);

/* ---- memory (emu_memory.cpp) ---- */

constexpr uint64_t GIB = 1ull << 30;
constexpr uint64_t ARENA = 128 * GIB;  /* reserved, not used */
constexpr uint64_t PINNED = 96 * GIB;  /* device memory below, pinned memory from here */
constexpr uint64_t SHARED = 120 * GIB; /* shared memory of the block that runs from here */
constexpr uint64_t SHARED_STATIC = 1 << 20;
constexpr uint64_t SHARED_DYNAMIC_END = SHARED + (16 << 20);
constexpr uint64_t SHARED_DYNAMIC = 1 << 20;

/* Of each byte. */
enum shadow : uint8_t { NOT_ALLOCATED, ALLOCATED, WRITTEN, ON_ITS_WAY /* of cp.async */ };

/* Of the keys that histories consist of. */
enum { LABEL_BITS = 14, BLOCK_BITS = 13 };
/* Bytes of memory whose histories fill whole pages. */
enum { HISTORY_PAGE = 1024 };

/* Who accessed two bytes: keys of emu_check.cpp, 0: nobody. */
struct history {
    uint64_t write, first_read, last_read;
};

struct allocation {
    uint64_t offset, bytes; /* as asked for: the end is the end of a page but for 255 bytes */
    uint64_t begin, end;    /* pages */
    int number;
    bool freed;
    uint64_t fill_begin, fill_end; /* where no history says otherwise, this key has written */
    uint64_t fill_key;
};

extern char *arena;
extern uint8_t *shadow_of; /* [ARENA] */
extern history *histories; /* [ARENA / 2]; NULL unless checking */

static inline uint64_t offset_of(const void *p)
{
    return arena != nullptr ? (uint64_t)((const char *)p - arena) : ~0ull;
}
static inline bool is_device(const void *p)
{
    return offset_of(p) < PINNED;
}
static inline bool is_pinned(const void *p)
{
    return offset_of(p) - PINNED < SHARED - PINNED;
}
static inline bool is_shared(const void *p)
{
    return offset_of(p) - SHARED < ARENA - SHARED;
}

/* Shared memory of a block, without asking for more, and at all (compute capability 8.0). */
enum { SHARED_USUAL = 48 << 10, SHARED_MOST = 163 << 10 };

void memory_start();
cudaError_t memory_create(void **memory, size_t bytes, bool pinned);
void memory_destroy(void *memory);
size_t memory_used();
allocation *find_allocation(uint64_t offset); /* the one at or before it that has the byte */
const char *describe(uint64_t offset);        /* valid until the next call */
/* [p, p + bytes) lies in one live allocation, pinned or not. */
void check_extent(const void *p, size_t bytes, const char *what);
void check_redzones();
/* memset, of which whole pages become real when they are touched. */
void fill(void *p, int value, uint64_t bytes);
/* Large, and nobody has accessed it: then `key` has written it, without a history of each byte. */
bool fill_histories(uint64_t begin, uint64_t end, uint64_t key);
uint64_t fill_key_of(uint64_t offset); /* 0: none */
void forget_histories(bool of_shared_memory_only);
char *dynamic_shared_begin();
void fresh_dynamic_shared(bool live);

/* ---- checks (emu_check.cpp) ---- */

/* An access by thread `thread` of the block that runs, or by the host (-1). */
void check_access(int thread, const void *p, size_t bytes, access_kind kind);
/* The same for LOAD and STORE of 1, 2, 4, 8 and 16 bytes that lie in the arena: the usual ones,
 * fast. */
template <size_t bytes, access_kind kind> void check_element(int thread, const void *p);
/* The same for a copy that may carry bytes never written: they stay so in its target. */
void check_copy_source(const void *p, size_t bytes);

/* ---- streams (emu_stream.cpp) ---- */

enum { MOST_STREAMS = 31, COPY_STREAM = 31, CLOCKS = 32 };
/* How many operations of each stream are known to be complete. */
typedef std::array<uint32_t, CLOCKS> vector_clock;

struct operation_info {
    uint32_t stream, number; /* the how many-th of its stream */
    const char *name;
    const void *queued_by;
};

extern operation_info operations[]; /* that have run, by their label */
extern uint32_t label_now;          /* of the operation that runs; when they are used up, 1 again */
extern const operation_info *operation_now; /* NULL in the host's code */
extern const vector_clock *clock_now;       /* its clock */

void host_access(uint64_t offset, size_t bytes, access_kind kind);
/* The host has queued a copy with pinned memory. */
void pend(const void *pinned, size_t bytes, bool device_writes, cudaStream_t stream,
          const char *name);
/* Whether a copy that is queued reads or writes it. */
bool is_pending(const void *pinned, size_t bytes);
void run_now(const char *name, const std::function<void()> &body); /* cudaMemcpy */
void wait_for_blocking_streams();
cudaError_t set_error(cudaError_t error); /* for cudaGetLastError */

} // namespace emu

#endif
