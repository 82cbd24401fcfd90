/* train.init_from: a new run whose adapter starts as another's. */
#ifndef GR_TRAINER_PARENT_H
#define GR_TRAINER_PARENT_H

#include "trainer/model/lora.h"

/* values (elements) <- the adapter that `from` names: a PEFT adapter directory, a run directory
 * (its newest good checkpoint), or RUN@CHECKPOINT (a name or a step).  It must have the linears,
 * ranks and scales of `adapter`.  Errors: ERR_NOT_FOUND, ERR_DATA, ERR_USAGE. */
gr_status gr_parent_read(float *values, const struct gr_adapter *adapter,
                         const struct gr_model_config *model, const char *from);

#endif
