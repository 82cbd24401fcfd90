/* The term: the fence.  Who put term n may write until term n+1 is there.  A term that is a fence
 * alone has no base yet, commits nothing and bounds nothing (see start.c). */
#ifndef GR_TRAINER_STATE_TERM_H
#define GR_TRAINER_STATE_TERM_H

#include "trainer/state/access.h"
#include "trainer/state/names.h"

enum { GR_TERM_TEXT_BYTES = 256 };

struct gr_term {
    int64_t term;
    char uuid[GR_STATE_UUID_BYTES];
    char run_hash[GR_SHA256_HEX_BYTES];
    int64_t unix_s; /* when it began */
    char kind[GR_TERM_TEXT_BYTES], host[GR_TERM_TEXT_BYTES];
    int64_t pid, world_size;
    int64_t fence_only; /* 1: a fence alone; 0: with the base that follows */
    char base[GR_CHECKPOINT_NAME_BYTES], base_hash[GR_SHA256_HEX_BYTES]; /* "": none */
    int64_t base_step;
};

void gr_term_write(struct gr_buffer *bytes, const struct gr_term *t);
/* Errors: ERR_NOT_FOUND, ERR_DATA with the reason, what the store refuses. */
gr_status gr_term_get(struct gr_term *t, const struct gr_access *a, int64_t term);
/* ERR_FENCED if there is a term after this one. */
gr_status gr_term_check_fence(const struct gr_access *a, int64_t term);

#endif
