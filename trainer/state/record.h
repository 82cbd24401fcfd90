/* Small JSON objects that vouch for themselves: manifests and terms.  The last member is the
 * SHA-256 of every byte before it, so one wrong bit anywhere is noticed.  Read as hostile input: a
 * cap on the size, no unknown or missing member, every value in its range.  A table of fields
 * drives both ways.  Whether a record belongs to this run, or to its name, is for manifest.c and
 * term.c. */
#ifndef GR_TRAINER_STATE_RECORD_H
#define GR_TRAINER_STATE_RECORD_H

#include "data/hash.h"
#include "kernels/base/buffer.h"
#include "kernels/base/status.h"

#include <jansson.h>

enum { GR_RECORD_BYTES_MOST = 1 << 20 };

enum gr_record_kind {
    GR_RECORD_INT,  /* int64_t in [least, most] */
    GR_RECORD_REAL, /* double, finite */
    GR_RECORD_HASH, /* char[GR_SHA256_HEX_BYTES] */
    GR_RECORD_UUID, /* char[GR_STATE_UUID_BYTES] */
    GR_RECORD_NAME, /* char[GR_CHECKPOINT_NAME_BYTES], a checkpoint's */
    GR_RECORD_FILE, /* char[GR_STATE_NAME_BYTES], an object's */
    GR_RECORD_TEXT, /* char[most], printable ASCII; others are written as '?' */
};
struct gr_record_field {
    const char *name;
    enum gr_record_kind kind;
    size_t offset;       /* of the member in the record's struct */
    int64_t least, most; /* of text: least 0 lets it be empty */
};

void gr_record_write(json_t *object, const void *record, const struct gr_record_field *fields,
                     int64_t count);
/* Errors: ERR_DATA naming `place`, the member, what was found and expected. */
gr_status gr_record_read(void *record, const char *place, const json_t *object,
                         const struct gr_record_field *fields, int64_t count);

/* The bytes of the object with its hash; *bytes is replaced, `hash` receives the hash. */
void gr_record_seal(struct gr_buffer *bytes, char hash[GR_SHA256_HEX_BYTES], const json_t *object);
/* The object in sealed bytes, without its hash; the caller decrefs it.  NULL on failure.  Errors:
 * ERR_DATA at `place`. */
gr_status gr_record_open(json_t **object, char hash[GR_SHA256_HEX_BYTES], const char *place,
                         const struct gr_buffer *bytes);

#endif
