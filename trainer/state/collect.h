/* Parts of garbage collection that `graft checkpoints rm` shares. */
#ifndef GR_TRAINER_STATE_COLLECT_H
#define GR_TRAINER_STATE_COLLECT_H

#include "trainer/state/history.h"

enum gr_collect_reason {
    GR_COLLECT_NOT_NEEDED,
    GR_COLLECT_PINNED,
    GR_COLLECT_BEST,   /* as one of the newest tells it: a resume may come to begin from any */
    GR_COLLECT_NEWEST, /* among the `limit` newest good ones */
};
/* reason[manifest_count]: why each manifest stays.  Errors, here and below:
 * ERR_RETRY, what the store refuses. */
gr_status gr_collect_reasons(enum gr_collect_reason *reason, struct gr_history *h, int64_t limit);
/* Deletes the manifest, then its data and its verdict; *was_pinned: a pin came in between, so that
 * it stays.  `term`: of the writer, whose fence is asked (ERR_FENCED); 0: somebody else, no fence.
 */
gr_status gr_collect_checkpoint(bool *was_pinned, struct gr_history *h, const char *name,
                                int64_t term);

#endif
