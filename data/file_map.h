/* A whole file in memory, read-only, with the identity of what was mapped.  Used where bytes are
 * looked at more than once: weights, hashes.  A file that somebody cuts short while it is mapped
 * ends the process with SIGBUS: inputs are not to be written to during a run. */
#ifndef GR_DATA_FILE_MAP_H
#define GR_DATA_FILE_MAP_H

#include "kernels/base/status.h"

#include <stdint.h>

/* A file whose identity is unchanged has unchanged bytes: what the verdicts on files are kept by.
 */
struct gr_file_identity {
    uint64_t device;
    uint64_t inode;
    int64_t bytes;
    int64_t mtime_ns;
    int64_t ctime_ns;
};

struct gr_file_map {
    const unsigned char *data; /* NULL when the file is empty */
    struct gr_file_identity identity;
};

/* Errors: ERR_NOT_FOUND; ERR_DATA when it is not a regular file or cannot be read. */
gr_status gr_file_map_open(struct gr_file_map *map, const char *path);
void gr_file_map_close(struct gr_file_map *map); /* a zeroed one is fine */
/* Bytes [begin, end) were used: their pages no longer count as this process's memory.  They can be
 * used again all the same. */
void gr_file_map_forget(const struct gr_file_map *map, int64_t begin, int64_t end);
/* Bytes [begin, end) will be read soon: the disk begins to fetch what is not in memory, all of it
 * at once, while the caller does something else.  Pages that are read without it come a few at a
 * time.
 */
void gr_file_map_expect(const struct gr_file_map *map, int64_t begin, int64_t end);

/* The identity of what `path` names now.  Errors as above. */
gr_status gr_file_identity(struct gr_file_identity *identity, const char *path);
bool gr_file_identity_equal(const struct gr_file_identity *a, const struct gr_file_identity *b);

/* The failure of a call on an input file, from errno; `verb` as in "opened".
 * ERR_NOT_FOUND when there is none, else ERR_DATA. */
gr_status gr_file_fail(const char *path, const char *verb);

#endif
