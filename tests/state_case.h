/* A run in a scratch folder for tests of trainer/state: the real file store, a clock that only
 * moves when it is told to, and starts and saves of one line. */
#ifndef GR_TESTS_STATE_CASE_H
#define GR_TESTS_STATE_CASE_H

#include "trainer/state/state.h"

struct gr_state_case {
    struct gr_store *store; /* the folder "run" of a scratch folder */
    struct gr_state_options options;
    char run_hash[GR_SHA256_HEX_BYTES];
    double unix_s, monotonic_s;
    int64_t uuid_count;
};
void gr_state_case_init(struct gr_state_case *sc);
void gr_state_case_release(struct gr_state_case *sc);

/* A start that must succeed, from `step`; the objects it found must be those of that step. */
struct gr_state *gr_state_case_start(struct gr_state_case *sc, int64_t step);
/* A start that must fail like this, with `words` in the message. */
void gr_state_case_start_fails(struct gr_state_case *sc, gr_status expected, const char *words);
/* Two objects whose bytes follow from the step; best_step 0: none. */
gr_status gr_state_case_save(struct gr_state *state, int64_t step, int64_t best_step);
/* A start, saves at 10, 20, ... up to `last`, and the end of that writer. */
void gr_state_case_run_to(struct gr_state_case *sc, int64_t last);

/* The keys under a prefix, without it, each followed by a space. */
void gr_state_case_keys(struct gr_state_case *sc, const char *prefix, const char *expected);
bool gr_state_case_has(struct gr_state_case *sc, const char *key);
int64_t gr_state_case_count(struct gr_state_case *sc, const char *prefix);
/* The path "run/objects/NAME-UUID/OBJECT"; the caller frees it. */
char *gr_state_case_object_path(struct gr_state_case *sc, const char *name, const char *object);
/* Flips a bit of a file at `offset` from its start, or, if negative, from its end. */
void gr_state_case_flip(const char *path, long offset);

#endif
