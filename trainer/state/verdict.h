/* bad/NAME.json: the bytes of a checkpoint are wrong or missing, and why.  A start looks at it
 * again only when nothing else is left.  Errors of all: ERR_RETRY, what the store refuses. */
#ifndef GR_TRAINER_STATE_VERDICT_H
#define GR_TRAINER_STATE_VERDICT_H

#include "trainer/state/access.h"

gr_status gr_verdict_put(const struct gr_access *a, const char *name, const char *reason);
/* It turned out to be good. */
gr_status gr_verdict_lift(const struct gr_access *a, const char *name);
/* The reason; the caller frees it.  A verdict that cannot be read is one all the same. */
gr_status gr_verdict_get(char **reason, const struct gr_access *a, const char *name);

#endif
