/* Parts of garbage collection that `graft checkpoints rm` shares. */
#ifndef GR_TRAINER_STATE_COLLECT_H
#define GR_TRAINER_STATE_COLLECT_H

#include "trainer/state/history.h"

/* needed[i]: manifest i is pinned, the best, or among the `limit` newest good ones. */
gr_status gr_collect_is_needed(bool *needed, struct gr_history *h, int64_t limit,
                               int64_t best_step);
/* Deletes the manifest, then its data and its verdict; *was_pinned: a pin came in between, so that
 * it stays.  `term`: of the writer, whose fence is asked; 0: somebody else, no fence. */
gr_status gr_collect_checkpoint(bool *was_pinned, struct gr_history *h, const char *name,
                                int64_t term);

#endif
