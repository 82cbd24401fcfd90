/* SHA-256 of buffers and files, and the check that weights are finite, which rides along.
 * Verdicts on files are kept in the cache by the file's identity, so that a start with a large
 * model reads it once only.  Used for the identity of a run and for checkpoints. */
#ifndef GR_DATA_HASH_H
#define GR_DATA_HASH_H

#include "data/safetensors.h"
#include "kernels/base/buffer.h"

enum {
    GR_SHA256_BYTES = 32,
    GR_SHA256_HEX_BYTES = 2 * GR_SHA256_BYTES + 1, /* with the NUL */
    GR_HASH_CHUNK_BYTES = 8 << 20,
};

/* The SHA-256 of bytes, in hexadecimal. */
void gr_sha256_hex(char hex[GR_SHA256_HEX_BYTES], const void *bytes, int64_t count);

/* The plain SHA-256 of a file, as sha256sum prints it; reads it once, in small pieces.
 * Errors: as gr_file_fail. */
gr_status gr_sha256_file(char hex[GR_SHA256_HEX_BYTES], const char *path);

struct gr_hash_options {
    const char *cache_dir; /* verdicts are kept in its folder "hashes"; NULL: nowhere */
    int threads;           /* >= 1 */
};

/* The hash of a file: SHA-256 over the SHA-256s of its chunks of 8 MiB (the last may be shorter; an
 * empty file has none).  Errors: as gr_file_map_open; ERR_DATA when the file changes meanwhile. */
gr_status gr_hash_file(char hex[GR_SHA256_HEX_BYTES], const char *path,
                       const struct gr_hash_options *options);
/* The same hash of an open safetensors file; ERR_DATA too when a tensor of F32, F16, BF16 or F64
 * holds a NaN or an infinity, naming the first in the order of the file. */
gr_status gr_hash_weights(char hex[GR_SHA256_HEX_BYTES], const struct gr_safetensors *file,
                          const struct gr_hash_options *options);

/* The hash of several files is that of a list with a line for each: its hash and its name.  An
 * empty name leaves it to the order which file is which.  Errors: those of gr_hash_file. */
void gr_hash_list_add(struct gr_buffer *list, const char *name, const char *hex);
gr_status gr_hash_list_add_file(struct gr_buffer *list, const char *name, const char *path,
                                const struct gr_hash_options *options);

#endif
