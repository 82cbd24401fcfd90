/* A real store with somebody in front of it, who at certain requests lets something happen first,
 * drops the request, loses the answer or tears what was read. */
#ifndef GR_TESTS_WATCHED_STORE_H
#define GR_TESTS_WATCHED_STORE_H

#include "data/store/store.h"

struct gr_watched_store {
    struct gr_store base; /* first: hand this one out */
    struct gr_store *real;
    /* Which requests: the first `times` of this kind ("get", "put", "put_if_absent", "remove",
     * "list"; NULL: any) for a key with this prefix. */
    const char *kind, *prefix;
    int64_t times, seen;
    /* What happens at them. */
    void (*before)(struct gr_watched_store *w);
    bool drops, loses, tears;
    void *context;
};
void gr_watched_store_init(struct gr_watched_store *w, struct gr_store *real);

#endif
