/* An arena: one block of memory handed out front to back and given back all at once.
 *
 * The same layout code runs twice: first over an arena without memory, which only measures, then
 * over one with that much memory, which carves.  Three arenas per device by lifetime: weights,
 * state, step (see the memory plan). */
#ifndef GR_BASE_ARENA_H
#define GR_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GR_ARENA_ALIGN = 256 }; /* bytes; every piece starts at such a multiple */

struct gr_arena {
    const char *name;    /* "weights", "state", "step": for the plan and for errors */
    unsigned char *base; /* NULL while measuring */
    int64_t capacity;    /* bytes at base; 0 while measuring */
    int64_t used;        /* bytes handed out, alignment included */
};

/* The next `bytes` bytes; NULL while measuring (used advances all the same).  Taking more than was
 * measured is a bug.  The memory is not cleared. */
void *gr_arena_take(struct gr_arena *arena, int64_t bytes);
/* Gives back everything taken after `mark` (a former value of used). */
void gr_arena_reset(struct gr_arena *arena, int64_t mark);
static inline bool gr_arena_measures(const struct gr_arena *arena)
{
    return arena->base == NULL;
}

#endif
