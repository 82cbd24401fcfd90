/* The manifest, a checkpoint's commit record: what it holds, with sizes and hashes, where training
 * stands, and the manifest before it.  Where its objects lie follows from its name and uuid alone,
 * so a hostile one cannot point elsewhere. */
#ifndef GR_TRAINER_STATE_MANIFEST_H
#define GR_TRAINER_STATE_MANIFEST_H

#include "trainer/state/access.h"
#include "trainer/state/names.h"

struct gr_manifest_object {
    char name[GR_STATE_NAME_BYTES];
    int64_t bytes;
    char hash[GR_SHA256_HEX_BYTES];
};
struct gr_manifest {
    struct gr_checkpoint at; /* everything but the objects */
    int64_t term;
    char uuid[GR_STATE_UUID_BYTES]; /* of the attempt */
    char run_hash[GR_SHA256_HEX_BYTES];
    int64_t base_step; /* of the term's base */
    int64_t unix_s;
    char previous[GR_CHECKPOINT_NAME_BYTES], previous_hash[GR_SHA256_HEX_BYTES]; /* "": none */
    int64_t object_count;
    struct gr_manifest_object object[GR_STATE_OBJECTS];
    char name[GR_CHECKPOINT_NAME_BYTES], hash[GR_SHA256_HEX_BYTES]; /* its own */
};

/* Its bytes; sets name and hash. */
void gr_manifest_write(struct gr_buffer *bytes, struct gr_manifest *m);
/* Bytes that should be the manifest called `name`.  Errors: ERR_DATA with the reason;
 * ERR_USAGE for one of another version's format. */
gr_status gr_manifest_read(struct gr_manifest *m, const struct gr_buffer *bytes, const char *name,
                           const char *place);
/* Reads it from the store.  Errors: as above, ERR_NOT_FOUND, what the store refuses. */
gr_status gr_manifest_get(struct gr_manifest *m, const struct gr_access *a, const char *name);

/* Loads and checks all objects.  *c is empty on failure.  Errors: ERR_DATA for what is wrong or
 * missing, what the store refuses. */
gr_status gr_manifest_load(struct gr_checkpoint *c, const struct gr_access *a,
                           const struct gr_manifest *m);
/* The store lists every object at its full size.  Errors: ERR_NOT_FOUND naming one. */
gr_status gr_manifest_check_objects(const struct gr_manifest *m, const struct gr_access *a);
/* ERR_DATA if it is of another run, or follows a manifest that is there but another. */
gr_status gr_manifest_check_place(const struct gr_manifest *m, const struct gr_access *a,
                                  const char *run_hash);

#endif
