/* A folder that appears whole or not at all: its files are written beside the place it gets
 * (staging.h), synced, and renamed into it together. */
#ifndef GR_DATA_STAGED_FOLDER_H
#define GR_DATA_STAGED_FOLDER_H

#include "kernels/base/status.h"

#include <stdint.h>

struct gr_staged_folder;

/* Begins it; what interrupted earlier tries left goes, what others are writing for the same path
 * does not.  Errors: ERR_USAGE when `path` exists or cannot be made there. */
gr_status gr_staged_folder_create(struct gr_staged_folder **folder, const char *path);
/* Ends the file before, if any, and begins `name` (no slash). */
gr_status gr_staged_folder_begin(struct gr_staged_folder *folder, const char *name);
/* Appends to the file begun last.  Errors of all: ERR_RETRY (disk full, input/output error),
 * ERR_USAGE (permission). */
gr_status gr_staged_folder_write(struct gr_staged_folder *folder, const void *bytes, int64_t count);
/* Everything durable, then in its place.  Errors also: ERR_USAGE when somebody else made `path`. */
gr_status gr_staged_folder_commit(struct gr_staged_folder *folder);
/* Removes what was not committed.  NULL is fine. */
void gr_staged_folder_destroy(struct gr_staged_folder *folder);

#endif
