/* A place beside PATH for a result in the making: PATH.partial.XXXXXX/new, to be renamed to PATH
 * when it is whole.  The folder has a name nobody guesses and a locked file in it while its maker
 * lives: what makers that died left is told from what others write or users keep.  For results too
 * large for one buffer; objects that share a folder with others are the store's (data/store/). */
#ifndef GR_DATA_STAGING_H
#define GR_DATA_STAGING_H

#include "kernels/base/status.h"

struct gr_staging;

/* Sweeps what dead makers of `path` left, makes the folders that `path` goes through, and the
 * place. is_new: `path` must not exist.  Errors: ERR_USAGE (it exists; the place cannot be written
 * to), ERR_RETRY (the disk). */
gr_status gr_staging_create(struct gr_staging **staging, const char *path, bool is_new);
/* PATH.partial.XXXXXX/new: not there yet, the caller makes a file or a folder of files. */
const char *gr_staging_path(const struct gr_staging *staging);
/* Renames it to PATH, over an older file; is_new: over nothing; and makes the name durable.  The
 * caller has synced what is in it.  Errors: ERR_USAGE when something is there meanwhile, else as
 * above. */
gr_status gr_staging_commit(struct gr_staging *staging);
/* Removes the place, and in it what was not committed.  NULL is fine. */
void gr_staging_destroy(struct gr_staging *staging);

#endif
