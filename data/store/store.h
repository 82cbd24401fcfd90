/* Objects by key, somewhere: a folder now ("file"), S3 later.  No rename, no overwrite guarantees,
 * no append: what the commit protocol may assume of any store is exactly this table. */
#ifndef GR_DATA_STORE_H
#define GR_DATA_STORE_H

#include "kernels/base/buffer.h"
#include "kernels/base/status.h"

struct gr_store;

struct gr_store_entry {
    char *key;
    int64_t bytes;
};
struct gr_store_list {
    struct gr_store_entry *entry; /* sorted by key, bytewise */
    int64_t count;
};

/* Errors of all: ERR_RETRY for what passes or somebody can mend (no space left, input/output error,
 * no answer), ERR_USAGE for a place that will not do (read-only, permission) and for a bad key:
 * keys are relative paths without empty parts, ".", ".." and parts that start with ".tmp-". */
struct gr_store_ops {
    /* Keys that begin with `prefix`. */
    gr_status (*list)(struct gr_store *, struct gr_store_list *list, const char *prefix);
    /* `count` bytes from `offset`; fewer at the end.  count < 0: all.  ERR_NOT_FOUND. */
    gr_status (*get)(struct gr_store *, struct gr_buffer *bytes, const char *key, int64_t offset,
                     int64_t count);
    /* Whole object, visible at once or not at all, durable on return; replaces an older one. */
    gr_status (*put)(struct gr_store *, const char *key, const void *bytes, int64_t count);
    /* The same, but ERR_EXISTS when the key is taken; never touches what is there.  OK when exactly
     * these bytes are there already: the answer to an earlier try may have been lost. */
    gr_status (*put_if_absent)(struct gr_store *, const char *key, const void *bytes,
                               int64_t count);
    /* A missing key is fine. */
    gr_status (*remove)(struct gr_store *, const char *key);
    void (*destroy)(struct gr_store *);
};
struct gr_store {
    const struct gr_store_ops *ops;
    const char *url; /* for messages: what the user wrote */
};

/* Opens the store a place names: a path or file://path (created if missing).  Errors: ERR_USAGE (no
 * such scheme, cannot be made).  A folder that may only be read opens; putting into it fails. */
gr_status gr_store_open(struct gr_store **store, const char *url);
void gr_store_close(struct gr_store *store); /* NULL is fine */
/* Whether opening it would find something rather than make it. */
bool gr_store_is_there(const char *url);
/* Puts one object given by its whole place: "folder/name", or "name" in the working folder.
 * is_new: only if absent.  Errors: those of opening, and of put or put_if_absent. */
gr_status gr_store_put_path(const char *path, const void *bytes, int64_t count, bool is_new);
void gr_store_list_release(struct gr_store_list *list);

#endif
