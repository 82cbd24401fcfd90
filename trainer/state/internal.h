/* The state of a writer, shared by state.c, start.c, save.c and collect.c; nobody else looks
 * inside.
 */
#ifndef GR_TRAINER_STATE_INTERNAL_H
#define GR_TRAINER_STATE_INTERNAL_H

#include "trainer/state/access.h"
#include "trainer/state/manifest.h"
#include "trainer/state/term.h"

/* The manifest that the next one follows. */
struct gr_state_link {
    int64_t step;
    char name[GR_CHECKPOINT_NAME_BYTES], hash[GR_SHA256_HEX_BYTES]; /* "": none */
};
struct gr_state {
    struct gr_store *store;
    struct gr_state_options options;
    struct gr_term term;       /* ours */
    struct gr_state_link last; /* the base, then what this term committed last */
    char kind_before[GR_TERM_TEXT_BYTES];
    struct gr_buffer record; /* the manifest or term being put */
};

/* The store, as patient as the options say. */
struct gr_access gr_state_access(const struct gr_state *s);
struct gr_state_link gr_state_link_of(const struct gr_manifest *m);

#endif
