/* Keys of the configuration that this version reads but does not act on: refused rather than
 * ignored when they ask for something. */
#ifndef GR_TRAINER_NOT_YET_H
#define GR_TRAINER_NOT_YET_H

#include "trainer/config.h"

/* Errors: ERR_USAGE naming the first such key. */
gr_status gr_refuse_not_yet(const struct gr_config *config);

#endif
