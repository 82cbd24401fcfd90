/* Counts memory allocations: linked into graft_counted, the program with every allocating call of
 * graft's own objects led to __wrap_* (the linker's --wrap; see CMakeLists.txt).  A call's step is
 * the one after the last gr_engine_update, which is wrapped too.  At exit each process prints on
 * stderr, for the steps after the third:
 *
 *   allocations after step 3: N by graft, M by libraries, S steps, B before, K kept by saving
 *
 * and a line for each step in which graft allocated.  N counts the training thread.  The saver's
 * thread may take memory for keys and records, but has to give it all back: K is what it took and
 * did not free (below 0 where it frees what jansson took).  B, graft's calls up to step 3, shows
 * that counting works at all.  What follows the last step (the export) is not counted.  To find a
 * culprit: gdb graft_counted, break on __wrap_calloc once gr_engine_update has been passed 3 times.
 *
 * Calls of shared libraries reach the malloc below, which the program offers in glibc's place. */
#include "trainer/run/engine.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { WARM_STEPS = 3, MAX_STEPS = 4096 };

static atomic_llong graft_calls[MAX_STEPS + 1]; /* by finished steps */
static atomic_llong all_calls[MAX_STEPS + 1];
static atomic_llong kept; /* by other threads, after the warm steps: taken less freed */
static atomic_int steps_done;
static _Thread_local bool is_training_thread;

/* ---- every call ------------------------------------------------------------------------- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static void count(atomic_llong *calls)
{
    atomic_fetch_add(&calls[atomic_load(&steps_done)], 1);
}

void *malloc(size_t size)
{
    count(all_calls);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
    count(all_calls);
    return __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size)
{
    count(all_calls);
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count(all_calls);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    count(all_calls);
    *memory = __libc_memalign(alignment, size);
    return *memory == NULL;
}

/* ---- graft's own ------------------------------------------------------------------------ */

static void count_graft(int taken)
{
    if (is_training_thread || atomic_load(&steps_done) < WARM_STEPS)
        count(graft_calls);
    else
        atomic_fetch_add(&kept, taken);
}

#define WRAP(type, name, arguments, names, taken)                                                  \
    type __real_##name arguments;                                                                  \
    type __wrap_##name arguments;                                                                  \
    type __wrap_##name arguments                                                                   \
    {                                                                                              \
        count_graft(taken);                                                                        \
        return __real_##name names;                                                                \
    }
WRAP(void *, malloc, (size_t size), (size), 1)
WRAP(void *, calloc, (size_t number, size_t size), (number, size), 1)
WRAP(void *, realloc, (void *memory, size_t size), (memory, size), memory == NULL)
WRAP(void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size), 1)
WRAP(int, posix_memalign, (void **memory, size_t alignment, size_t size), (memory, alignment, size),
     1)
WRAP(void *, mmap, (void *at, size_t size, int rights, int flags, int file, off_t offset),
     (at, size, rights, flags, file, offset), 1)

void __real_free(void *memory);
void __wrap_free(void *memory);
void __wrap_free(void *memory)
{
    if (!is_training_thread && atomic_load(&steps_done) >= WARM_STEPS)
        atomic_fetch_add(&kept, memory == NULL ? 0 : -1);
    __real_free(memory);
}

gr_status __real_gr_engine_update(struct gr_engine *e, struct gr_update *update, int64_t step);
gr_status __wrap_gr_engine_update(struct gr_engine *e, struct gr_update *update, int64_t step);
gr_status __wrap_gr_engine_update(struct gr_engine *e, struct gr_update *update, int64_t step)
{
    gr_status status = __real_gr_engine_update(e, update, step);

    is_training_thread = true;
    GR_CHECK(step <= MAX_STEPS, "%lld", (long long)step);
    atomic_store(&steps_done, (int)step);
    return status;
}

/* ---- the report ------------------------------------------------------------------------- */

__attribute__((destructor)) static void report(void)
{
    long long graft = 0, all = 0, before = 0;
    int last = atomic_load(&steps_done);

    for (int step = 0; step < last; step++) {
        long long calls = atomic_load(&graft_calls[step]);

        if (step < WARM_STEPS) {
            before += calls;
            continue;
        }
        if (calls > 0)
            fprintf(stderr, "step %d: %lld allocations\n", step + 1, calls);
        graft += calls;
        all += atomic_load(&all_calls[step]);
    }
    fprintf(stderr,
            "allocations after step %d: %lld by graft, %lld by libraries, %d steps, %lld before, "
            "%lld kept by saving\n",
            WARM_STEPS, graft, all - graft, last, before, (long long)atomic_load(&kept));
}
