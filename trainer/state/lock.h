/* The lock of a run directory: an open-file-description lock on output/.lock, freed by the death of
 * its holder.  It spares people two starts of one run on one disk; what keeps a run's files safe is
 * the term's fence, with or without it.  Only the I/O rank takes it. */
#ifndef GR_TRAINER_LOCK_H
#define GR_TRAINER_LOCK_H

#include "kernels/base/status.h"

struct gr_run_lock;

/* How long a start waits for the holder: the one it replaces may still be dying. */
#define GR_RUN_LOCK_PATIENCE_S 10.0

/* Takes the lock of the run in `folder`, which exists.  `takeover`: if somebody has it, goes on
 * without it for now; gr_run_lock_retry takes it once it is free.  Where the file system has no
 * locks: one warning, and *lock is NULL. Errors: ERR_FENCED after patience_s, ERR_USAGE and
 * ERR_RETRY when the file cannot be opened. */
gr_status gr_run_lock_take(struct gr_run_lock **lock, const char *folder, bool takeover,
                           double patience_s);
void gr_run_lock_retry(struct gr_run_lock *lock);   /* NULL, or held already: nothing */
void gr_run_lock_release(struct gr_run_lock *lock); /* NULL is fine */

#endif
