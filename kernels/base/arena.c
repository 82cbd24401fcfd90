/* The bump allocator behind every tensor.  See arena.h. */
#include "kernels/base/arena.h"

#include "kernels/base/status.h"

void *gr_arena_take(struct gr_arena *arena, int64_t bytes)
{
    int64_t begin = (arena->used + GR_ARENA_ALIGN - 1) / GR_ARENA_ALIGN * GR_ARENA_ALIGN;

    GR_CHECK(bytes >= 0, "arena %s: %lld bytes", arena->name, (long long)bytes);
    arena->used = begin + bytes;
    if (gr_arena_measures(arena))
        return NULL;
    GR_CHECK(arena->used <= arena->capacity, "arena %s: %lld bytes taken, %lld measured",
             arena->name, (long long)arena->used, (long long)arena->capacity);
    return arena->base + begin;
}

void gr_arena_reset(struct gr_arena *arena, int64_t mark)
{
    GR_CHECK(mark >= 0 && mark <= arena->used, "arena %s", arena->name);
    arena->used = mark;
}
