/* A store with patience: a request that ends with ERR_RETRY is sent again, with growing pauses, for
 * so long after it first failed: how long requests take that succeed, large uploads before all, is
 * no matter.  What one call of the protocol asks of the store goes through here; whether sending
 * again is right is for the caller (everything here may be sent twice). */
#ifndef GR_TRAINER_STATE_ACCESS_H
#define GR_TRAINER_STATE_ACCESS_H

#include "trainer/state/state.h"

/* Wrong bytes are read again, this often in all, before they are believed. */
enum { GR_ACCESS_READS = 3 };

struct gr_access {
    struct gr_store *store;
    const struct gr_state_clock *clock; /* NULL: no patience */
    double patience_s;
};

/* One request, for gr_access_again; zeroed before it is sent for the first time. */
struct gr_access_tries {
    double until_s; /* monotonic, from its first failure on */
    double pause_s; /* the last one; 0: it has not failed yet */
};
/* Whether to send a request again that ended with `status`; if so the message is cleared and a
 * pause made. */
bool gr_access_again(const struct gr_access *a, gr_status status, struct gr_access_tries *tries);
/* Whether to read again what was wrong (ERR_DATA) at the reading `*reads`, which counts from 0. */
bool gr_access_reread(const struct gr_access *a, gr_status status, int *reads);

/* As in gr_store_ops, with the errors of these; ERR_RETRY only when the patience is over. */
gr_status gr_access_list(const struct gr_access *a, struct gr_store_list *list, const char *prefix);
/* At most `count` bytes from the beginning. */
gr_status gr_access_get(const struct gr_access *a, struct gr_buffer *bytes, const char *key,
                        int64_t count);
gr_status gr_access_put(const struct gr_access *a, const char *key, const void *bytes,
                        int64_t count);
gr_status gr_access_put_if_absent(const struct gr_access *a, const char *key, const void *bytes,
                                  int64_t count);
/* Whether there is an object of this key; a read error is none. */
gr_status gr_access_exists(const struct gr_access *a, bool *exists, const char *key);

/* "URL/KEY" for messages; the caller frees it. */
char *gr_access_place(const struct gr_access *a, const char *key);

#endif
