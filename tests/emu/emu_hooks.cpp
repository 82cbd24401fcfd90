/* The functions that code compiled with -fsanitize=thread calls before each load and store.  The
 * thread sanitizer itself is not linked. */
#include "emu_internal.h"

extern "C" {
/* Of the object this is linked into; from the linker. */
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

namespace emu
{

static bool is_in(const void *p, const void *begin, uint64_t bytes)
{
    return (uint64_t)((const char *)p - (const char *)begin) < bytes;
}

/* A kernel has its stack, its arguments, and the variables of the plug-in; the rest belongs to the
 * host. */
static void check_unknown(const void *p, size_t bytes)
{
    if (is_in(p, __ehdr_start, (uint64_t)(_end - __ehdr_start)))
        return;
    fail("bad-pointer", "a kernel touches %zu bytes of the host's memory at %p", bytes, p);
}

/* What code of the host or of a kernel touches outside the arena, other than a kernel's stack and
 * arguments. */
static __attribute__((noinline)) void check_elsewhere(const void *p, size_t bytes, void *pc)
{
    if (running < 0)
        return;
    access_pc = pc;
    check_unknown(p, bytes);
    access_pc = nullptr;
}

static inline __attribute__((always_inline)) bool before_access(const void *p, size_t bytes,
                                                                void *pc)
{
    if (is_in(p, running_stack, STACK_BYTES) || is_in(p, running_arguments, running_argument_bytes))
        return false;
    if (offset_of(p) >= ARENA) {
        check_elsewhere(p, bytes, pc);
        return false;
    }
    access_pc = pc;
    return true;
}

static inline __attribute__((always_inline)) void after_access()
{
    access_pc = nullptr;
    if (preempt > 0 && running >= 0 && random_bits() % (unsigned)preempt == 0)
        let_others();
}

template <size_t bytes, access_kind kind>
static inline __attribute__((always_inline)) void hook(const void *p, void *pc, bool is_aligned)
{
    if (!before_access(p, bytes, pc))
        return;
    if (running >= 0 && is_aligned && ((uintptr_t)p & (bytes - 1)) != 0)
        fail("misaligned", "%zu-byte access at %p", bytes, p);
    check_element<bytes, kind>(running, p);
    after_access();
}

static void hook_range(const void *p, size_t bytes, access_kind kind, void *pc)
{
    if (!before_access(p, bytes, pc))
        return;
    check_access(running, p, bytes, kind);
    after_access();
}

} // namespace emu

using namespace emu;

#define CALLER __builtin_return_address(0)
#define HOOKS(bytes)                                                                               \
    void __tsan_read##bytes(void *p)                                                               \
    {                                                                                              \
        hook<bytes, LOAD>(p, CALLER, true);                                                        \
    }                                                                                              \
    void __tsan_write##bytes(void *p)                                                              \
    {                                                                                              \
        hook<bytes, STORE>(p, CALLER, true);                                                       \
    }                                                                                              \
    void __tsan_unaligned_read##bytes(void *p)                                                     \
    {                                                                                              \
        hook<bytes, LOAD>(p, CALLER, false);                                                       \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *p)                                                    \
    {                                                                                              \
        hook<bytes, STORE>(p, CALLER, false);                                                      \
    }                                                                                              \
    void __tsan_volatile_read##bytes(void *p)                                                      \
    {                                                                                              \
        hook<bytes, LOAD>(p, CALLER, true);                                                        \
    }                                                                                              \
    void __tsan_volatile_write##bytes(void *p)                                                     \
    {                                                                                              \
        hook<bytes, STORE>(p, CALLER, true);                                                       \
    }

extern "C" {

HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

void __tsan_read_range(void *p, unsigned long bytes)
{
    hook_range(p, bytes, LOAD, CALLER);
}

void __tsan_write_range(void *p, unsigned long bytes)
{
    hook_range(p, bytes, STORE, CALLER);
}

void __tsan_init()
{
    checking = true;
}

void __tsan_func_entry(void *)
{
}

void __tsan_func_exit()
{
}

void __tsan_vptr_update(void **, void *)
{
}

void __tsan_vptr_read(void **)
{
}

/* Guards of static variables and counts of shared pointers. */
char __tsan_atomic8_load(const volatile char *p, int)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

int __tsan_atomic32_load(const volatile int *p, int)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

void __tsan_atomic32_store(volatile int *p, int value, int)
{
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
}

int __tsan_atomic32_fetch_add(volatile int *p, int value, int)
{
    return __atomic_fetch_add(p, value, __ATOMIC_ACQ_REL);
}

long __tsan_atomic64_load(const volatile long *p, int)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

void __tsan_atomic64_store(volatile long *p, long value, int)
{
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
}
}
