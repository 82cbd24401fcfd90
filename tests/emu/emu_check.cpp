/* Every access is looked at: bounds, what was never written, races between threads, blocks and
 * streams, alignment.
 *
 * The checked plug-in is compiled with -fsanitize=thread, which calls a function before each load
 * and store; those functions are not the sanitizer's but those of emu_hooks.cpp.  The
 * program that opened the plug-in is not compiled so: its accesses are not seen. */
#include "emu_internal.h"

#include <string.h>

namespace emu
{

/* ---- who accessed what: a key says operation, block, thread, and the synchronisation it had
 * passed ---- */

/* Counts begin again, so bits are where a wrong match would be a false alarm. */
enum {
    SYNC_SHIFT = 1, /* after "is atomic" */
    SYNC_BITS = 13, /* __syncwarp passed */
    BARRIER_SHIFT = SYNC_SHIFT + SYNC_BITS,
    BARRIER_BITS = 13, /* __syncthreads passed */
    THREAD_SHIFT = BARRIER_SHIFT + BARRIER_BITS,
    THREAD_BITS = 10,
    BLOCK_SHIFT = THREAD_SHIFT + THREAD_BITS,
    LABEL_SHIFT = BLOCK_SHIFT + BLOCK_BITS
};
static_assert(LABEL_SHIFT + LABEL_BITS == 64, "a key has 64 bits");

static inline uint64_t field(uint64_t key, int shift, int bits)
{
    return key >> shift & ((1ull << bits) - 1);
}

static inline unsigned label_of(uint64_t key)
{
    return (unsigned)(key >> LABEL_SHIFT);
}

static unsigned block_of(uint64_t key)
{
    return (unsigned)field(key, BLOCK_SHIFT, BLOCK_BITS);
}

static unsigned thread_of(uint64_t key)
{
    return (unsigned)field(key, THREAD_SHIFT, THREAD_BITS);
}

static unsigned barriers_of(uint64_t key)
{
    return (unsigned)field(key, BARRIER_SHIFT, BARRIER_BITS);
}

static unsigned syncs_of(uint64_t key)
{
    return (unsigned)field(key, SYNC_SHIFT, SYNC_BITS);
}

/* Blocks are told apart by their place in the grid; in shared memory, which is the same for all, by
 * when they run. */
static inline __attribute__((always_inline)) uint64_t key_of(int thread, bool is_shared,
                                                             bool is_atomic)
{
    const uint64_t block = is_shared ? block_run : block_number;
    const uint64_t syncs = warp_syncs[thread / WARP];

    return (uint64_t)label_now << LABEL_SHIFT | field(block, 0, BLOCK_BITS) << BLOCK_SHIFT |
           (uint64_t)thread << THREAD_SHIFT | field(barriers, 0, BARRIER_BITS) << BARRIER_SHIFT |
           field(syncs, 0, SYNC_BITS) << SYNC_SHIFT | (uint64_t)is_atomic;
}

static const char *done(bool is_write)
{
    return is_write ? "write" : "read";
}

/* Whether the operation of the key comes before the one that runs, by events or by the host. */
static inline bool came_before(uint64_t old)
{
    const operation_info *earlier = &operations[label_of(old)];

    return clock_now == nullptr || (*clock_now)[earlier->stream] >= earlier->number;
}

[[noreturn]] static void report_streams(uint64_t old, uint64_t offset, bool old_is_write,
                                        bool new_is_write)
{
    const operation_info *earlier = &operations[label_of(old)];

    other_pc = earlier->queued_by;
    fail("stream-race",
         "a %s of device memory and the %s by %s of another stream are in no order (an event wait "
         "is missing): %s",
         done(new_is_write), done(old_is_write), earlier->name, describe(offset));
}

static bool are_ordered(uint64_t old, uint64_t now)
{
    if (thread_of(old) == thread_of(now) || barriers_of(old) != barriers_of(now))
        return true;
    return thread_of(old) / WARP == thread_of(now) / WARP && syncs_of(old) != syncs_of(now);
}

/* Two accesses of the same bytes, one of them a write. */
static inline __attribute__((always_inline)) void
check_pair(uint64_t old, uint64_t now, uint64_t offset, bool old_is_write, bool new_is_write)
{
    if (old == 0 || (old ^ now) >> THREAD_SHIFT == 0 || ((old & 1) != 0 && (now & 1) != 0))
        return; /* nobody, the same thread, or both atomic */
    if (label_of(old) != label_of(now)) {
        if (offset < PINNED && !came_before(old))
            report_streams(old, offset, old_is_write, new_is_write);
    } else if (block_of(old) != block_of(now)) {
        if (offset < SHARED) /* blocks use the same shared memory one after the other */
            fail("race", "a %s of global memory and the %s by block %u, thread %u: %s",
                 done(new_is_write), done(old_is_write), block_of(old), thread_of(old),
                 describe(offset));
    } else if (!are_ordered(old, now)) {
        fail("race",
             "a %s of %s memory and the %s by thread %u of the same block, no barrier between",
             done(new_is_write), offset < SHARED ? "global" : "shared", done(old_is_write),
             thread_of(old));
    }
}

/* Kept as the first read until a later operation, or another barrier of its block. */
static inline bool is_replaced(uint64_t first, uint64_t now, uint64_t offset)
{
    if (label_of(first) != label_of(now))
        return first == 0 || came_before(first);
    if (block_of(first) != block_of(now))
        return offset >= SHARED;
    return barriers_of(first) != barriers_of(now);
}

enum { GRAIN = 2 }; /* bytes that share a history */

static inline void count_access(const history *h, uint64_t offset, access_kind kind)
{
    const bool stored = label_of(h->write) == label_now;

    if (offset >= PINNED)
        return;
    if (kind == LOAD ? label_of(h->last_read) != label_now : kind == ATOMIC && !stored)
        counted.loaded += GRAIN;
    if (kind != LOAD && !stored)
        counted.stored += GRAIN;
}

/* An access of the bytes of one history. */
static inline __attribute__((always_inline)) void check_grain(history *h, uint64_t offset,
                                                              uint64_t now, access_kind kind)
{
    const uint64_t written = h->write != 0 ? h->write : fill_key_of(offset);

    check_pair(written, now, offset, true, kind != LOAD);
    if (kind == LOAD) {
        if (is_replaced(h->first_read, now, offset))
            h->first_read = now;
        h->last_read = now;
    } else {
        check_pair(h->first_read, now, offset, false, true);
        check_pair(h->last_read, now, offset, false, true);
        h->write = now;
    }
}

static inline bool are_same(const history *a, const history *b)
{
    return ((a->write ^ b->write) | (a->first_read ^ b->first_read) |
            (a->last_read ^ b->last_read)) == 0;
}

/* Bytes that were accessed together mostly have the same history, which is then looked at once.  An
 * access that crosses no page of histories meets one fill at most. */
static inline __attribute__((always_inline)) void check_races(int thread, uint64_t offset,
                                                              size_t bytes, access_kind kind)
{
    const uint64_t now = key_of(thread, offset >= SHARED, kind == ATOMIC);
    const uint64_t first = offset / GRAIN, last = (offset + bytes - 1) / GRAIN;
    const bool one_page = offset / HISTORY_PAGE == (offset + bytes - 1) / HISTORY_PAGE;
    history before = histories[first];

    count_access(&histories[first], first * GRAIN, kind);
    check_grain(&histories[first], first * GRAIN, now, kind);
    for (uint64_t g = first + 1; g <= last; g++) {
        history *h = &histories[g];

        count_access(h, g * GRAIN, kind);
        if (one_page && are_same(h, &before)) {
            *h = histories[g - 1];
        } else {
            before = *h;
            check_grain(h, g * GRAIN, now, kind);
        }
    }
}

/* A store of a library or a copy: its inner part at once if nobody has been there. */
static void check_store(uint64_t offset, size_t bytes)
{
    const uint64_t begin = (offset + HISTORY_PAGE - 1) / HISTORY_PAGE * HISTORY_PAGE;
    const uint64_t end = (offset + bytes) / HISTORY_PAGE * HISTORY_PAGE;

    fill(shadow_of + offset, WRITTEN, bytes);
    if (begin >= end || !fill_histories(begin, end, key_of(OTHER_THREAD, false, false))) {
        check_races(OTHER_THREAD, offset, bytes, STORE);
        return;
    }
    counted.stored += (int64_t)(end - begin);
    if (begin > offset)
        check_races(OTHER_THREAD, offset, begin - offset, STORE);
    if (offset + bytes > end)
        check_races(OTHER_THREAD, end, offset + bytes - end, STORE);
}

/* ---- bounds, and what was never written ---- */

[[noreturn]] static void report_outside(uint64_t offset, size_t bytes, access_kind kind)
{
    const allocation *a = find_allocation(offset);
    const bool freed = a != nullptr && a->freed;

    fail(freed ? "use-after-free" : "out-of-bounds", "%zu-byte %s: %s", bytes, done(kind != LOAD),
         describe(offset));
}

static void check_byte(uint64_t offset, size_t bytes, access_kind kind)
{
    uint8_t *s = &shadow_of[offset];

    if (*s == NOT_ALLOCATED)
        report_outside(offset, bytes, kind);
    if (*s == ON_ITS_WAY)
        fail("cp.async", "%zu-byte %s of shared memory before the copy to it was waited for", bytes,
             done(kind != LOAD));
    if (kind != STORE && *s == ALLOCATED)
        fail("uninitialised", "%zu-byte read of %s memory that was never written: %s", bytes,
             offset < SHARED ? "device" : "shared", describe(offset));
    if (kind != LOAD)
        *s = WRITTEN;
}

template <typename word>
static inline __attribute__((always_inline)) bool starts_written(const uint8_t *s)
{
    word found;

    memcpy(&found, s, sizeof found);
    return found == (word)(WRITTEN * 0x0101010101010101ull);
}

/* `bytes` is mostly known to the compiler. */
static inline __attribute__((always_inline)) bool all_written(const uint8_t *s, size_t bytes)
{
    for (; bytes >= 8; s += 8, bytes -= 8) {
        if (!starts_written<uint64_t>(s))
            return false;
    }
    return ((bytes & 4) == 0 || starts_written<uint32_t>(s)) &&
           ((bytes & 2) == 0 || starts_written<uint16_t>(s + (bytes & 4))) &&
           ((bytes & 1) == 0 || s[bytes - 1] == WRITTEN);
}

static inline __attribute__((always_inline)) void check_inside(int thread, uint64_t offset,
                                                               size_t bytes, access_kind kind)
{
    if (!all_written(shadow_of + offset, bytes)) {
        for (size_t i = 0; i < bytes; i++)
            check_byte(offset + i, bytes, kind);
    }
    if (histories != nullptr && bytes > 0)
        check_races(thread, offset, bytes, kind);
}

void check_access(int thread, const void *p, size_t bytes, access_kind kind)
{
    const uint64_t offset = offset_of(p);

    if (offset >= ARENA)
        return;
    if (thread < 0) {
        host_access(offset, bytes, kind);
        return;
    }
    if (running >= 0 && is_pinned(p))
        fail("bad-pointer", "a kernel touches pinned memory of the host");
    check_inside(thread, offset, bytes, kind);
}

/* The same, compiled for each size. */
template <size_t bytes, access_kind kind> void check_element(int thread, const void *p)
{
    if (thread < 0 || is_pinned(p))
        check_access(thread, p, bytes, kind);
    else
        check_inside(thread, offset_of(p), bytes, kind);
}
#define CHECK_ELEMENT(bytes)                                                                       \
    template void check_element<bytes, LOAD>(int thread, const void *p);                           \
    template void check_element<bytes, STORE>(int thread, const void *p);
CHECK_ELEMENT(1)
CHECK_ELEMENT(2)
CHECK_ELEMENT(4)
CHECK_ELEMENT(8)
CHECK_ELEMENT(16)

void check_copy_source(const void *p, size_t bytes)
{
    if (histories != nullptr && bytes > 0)
        check_races(OTHER_THREAD, offset_of(p), bytes, LOAD);
}

void dev_touch(const void *p, size_t bytes, access_kind kind, const char *what)
{
    if (bytes == 0)
        return;
    dev_extent(p, bytes, what);
    if (checking && kind == STORE)
        check_store(offset_of(p), bytes);
    else if (checking)
        check_access(OTHER_THREAD, p, bytes, kind);
}

void dev_scratch(const void *p, size_t bytes, const char *what)
{
    const counters before = counted;

    dev_touch(p, bytes, STORE, what);
    counted = before;
}

void count_product(int64_t m, int64_t n, int64_t k)
{
    counted.flops += 2.0 * (double)m * (double)n * (double)k;
    counted.m = m;
    counted.n = n;
    counted.k = k;
}

/* ---- accesses that emu.h reports itself ---- */

void atomic_access(const void *p, size_t bytes)
{
    if (!checking)
        return;
    access_pc = __builtin_return_address(0);
    check_access(running, p, bytes, ATOMIC);
    access_pc = nullptr;
}

static void check_range(const void *p, size_t bytes, access_kind kind, void *pc)
{
    if (bytes == 0 || (!checking && running >= 0)) /* the fast plug-in checks the host's */
        return;
    access_pc = pc;
    check_access(running, p, bytes, kind);
    access_pc = nullptr;
}

void *copy_bytes(void *to, const void *from, size_t bytes)
{
    check_range(from, bytes, LOAD, __builtin_return_address(0));
    check_range(to, bytes, STORE, __builtin_return_address(0));
    return memcpy(to, from, bytes);
}

void *move_bytes(void *to, const void *from, size_t bytes)
{
    check_range(from, bytes, LOAD, __builtin_return_address(0));
    check_range(to, bytes, STORE, __builtin_return_address(0));
    return memmove(to, from, bytes);
}

void *set_bytes(void *to, int value, size_t bytes)
{
    check_range(to, bytes, STORE, __builtin_return_address(0));
    return memset(to, value, bytes);
}

} // namespace emu
