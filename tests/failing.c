/* Lets one allocation fail: linked into graft_failing, the program with malloc and its kin in the
 * place of glibc's, so that calls of graft and of every library arrive here.  The first argument,
 * which is taken away, says what to do:
 *
 *   list       each call stack that allocates is told once, when it allocates first
 *   K          allocation K fails, NULL or MAP_FAILED with errno ENOMEM, and is told; 0: none does
 *
 * Told is, on file 3, a line: "K graft", or "K" and the library, K counting from 1.
 *
 * Counted are the calls from main on, by all threads. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DEPTH = 24, STACKS = 1 << 16, LIST_FILE = 3 };

static atomic_llong calls;
static long long failing; /* 0: none */
static bool lists, begun;
static _Atomic uint64_t stacks[STACKS]; /* hashes of those that were told */
static _Thread_local bool is_inside;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

/* Whether the stack is new. */
__attribute__((noinline)) static bool is_new_stack(void *const *frame, int depth)
{
    uint64_t hash = 14695981039346656037u;

    for (int i = 0; i < depth; i++)
        hash = (hash ^ (uint64_t)(uintptr_t)frame[i]) * 1099511628211u;
    for (uint64_t i = 0; i < STACKS; i++) {
        _Atomic uint64_t *slot = &stacks[(hash + i) % STACKS];
        uint64_t none = 0;

        if (atomic_compare_exchange_strong(slot, &none, hash))
            return true;
        if (none == hash)
            return false;
    }
    return false;
}

/* The library that graft called and that now allocates; "graft" where it is graft itself. */
static const char *who_allocates(void *const *frame, int depth)
{
    Dl_info own, object;
    const char *who = "graft";

    if (dladdr((void *)(uintptr_t)who_allocates, &own) == 0)
        return "unknown";
    for (int i = 3; i < depth; i++) { /* behind tell_stack, fails and malloc */
        if (dladdr(frame[i], &object) == 0)
            continue;
        if (object.dli_fbase == own.dli_fbase)
            break;
        who = object.dli_fname;
    }
    return who;
}

__attribute__((noinline)) static void tell_stack(long long number)
{
    void *frame[DEPTH];
    int depth = backtrace(frame, DEPTH);

    if (!lists || is_new_stack(frame, depth))
        dprintf(LIST_FILE, "%lld %s\n", number, who_allocates(frame, depth));
}

/* Called by every allocation; true: it is to fail. */
__attribute__((noinline)) static bool fails(void)
{
    long long number;

    if (!begun || is_inside)
        return false;
    number = atomic_fetch_add(&calls, 1) + 1;
    if (lists || number == failing) {
        is_inside = true; /* what telling allocates */
        tell_stack(number);
        is_inside = false;
    }
    if (number == failing)
        errno = ENOMEM;
    return number == failing;
}

/* ---- every call ------------------------------------------------------------------------- */

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
    return fails() ? NULL : __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size)
{
    return fails() ? NULL : __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    return fails() ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = fails() ? NULL : __libc_memalign(alignment, size);
    return *memory == NULL ? ENOMEM : 0;
}

/* ---- mmap, graft's own alone: the linker's --wrap ----------------------------------------- */

void *__real_mmap(void *at, size_t size, int rights, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t size, int rights, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t size, int rights, int flags, int file, off_t offset)
{
    return fails() ? MAP_FAILED : __real_mmap(at, size, rights, flags, file, offset);
}

/* ---- the beginning ---------------------------------------------------------------------- */

int __real_main(int argc, char **argv);
int __wrap_main(int argc, char **argv);
int __wrap_main(int argc, char **argv)
{
    void *frame[2];

    if (argc < 2)
        return 2;
    backtrace(frame, 2); /* its first call allocates */
    lists = strcmp(argv[1], "list") == 0;
    failing = atoll(argv[1]);
    argv[1] = argv[0];
    begun = true;
    return __real_main(argc - 1, argv + 1);
}
