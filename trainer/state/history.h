/* What a listing tells of a run: its terms, its manifests, verdicts and pins, and which manifests
 * are live.  Reads as few terms as the question needs. */
#ifndef GR_TRAINER_STATE_HISTORY_H
#define GR_TRAINER_STATE_HISTORY_H

#include "trainer/state/access.h"
#include "trainer/state/names.h"

struct gr_history_manifest {
    char name[GR_CHECKPOINT_NAME_BYTES];
    int64_t step, term;
    bool is_bad, is_pinned;
};
struct gr_history_term {
    int64_t term;
    int64_t base_step; /* -1: not read yet; INT64_MAX: it bounds nothing */
};
struct gr_history {
    const struct gr_access *access;
    struct gr_history_manifest *manifest; /* newest first: by step, then by term */
    int64_t manifest_count;
    struct gr_history_term *term; /* ascending */
    int64_t term_count;
};

/* *h is empty on failure.  Errors, here and below: ERR_RETRY, what the store refuses. */
gr_status gr_history_read(struct gr_history *h, const struct gr_access *a);
void gr_history_release(struct gr_history *h);

int64_t gr_history_newest_term(const struct gr_history *h); /* 0: none */
/* The lowest base of all terms after this one: INT64_MAX if there is none. */
gr_status gr_history_bound(int64_t *bound, struct gr_history *h, int64_t term);
gr_status gr_history_is_live(bool *is_live, struct gr_history *h,
                             const struct gr_history_manifest *m);
/* NULL if there is none of this name. */
const struct gr_history_manifest *gr_history_find(const struct gr_history *h, const char *name);
/* The pins again, as they are now. */
gr_status gr_history_read_pins(struct gr_history *h);

#endif
