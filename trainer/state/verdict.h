/* bad/NAME.json: the bytes of a checkpoint are wrong or missing, and why.  No start looks at it
 * again. */
#ifndef GR_TRAINER_STATE_VERDICT_H
#define GR_TRAINER_STATE_VERDICT_H

#include "trainer/state/access.h"

gr_status gr_verdict_put(const struct gr_access *a, const char *name, const char *reason);
/* The reason; the caller frees it.  A verdict that cannot be read is one all the same. */
gr_status gr_verdict_get(char **reason, const struct gr_access *a, const char *name);

#endif
