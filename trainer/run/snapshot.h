/* A snapshot: everything an adapter's training is, at a step boundary, in host memory; and the same
 * as the objects of a checkpoint.  No randomness and no data cursor beyond the step number: both
 * are functions of it. */
#ifndef GR_TRAINER_SNAPSHOT_H
#define GR_TRAINER_SNAPSHOT_H

#include "trainer/model/lora.h"
#include "trainer/state/state.h"

struct gr_snapshot {
    int64_t step; /* updates done */
    int64_t epoch, epoch_first_step;
    int64_t best_step, evals_since_best;
    double best_loss;
    int64_t elements;
    float *param, *moment1, *moment2; /* [elements] the flat buffers */
};

void gr_snapshot_init(struct gr_snapshot *snapshot, int64_t elements);
void gr_snapshot_release(struct gr_snapshot *snapshot);

/* Fills *c with adapter_model.safetensors, adapter_config.json and optimizer.safetensors; buffers
 * of an earlier use are used again. */
void gr_snapshot_pack(struct gr_checkpoint *c, const struct gr_snapshot *snapshot,
                      const struct gr_adapter *adapter, const char *base_model);
/* The way back.  Errors: ERR_DATA when an object is not what the adapter needs. */
gr_status gr_snapshot_unpack(struct gr_snapshot *snapshot, const struct gr_checkpoint *c,
                             const struct gr_adapter *adapter);
/* The same for the checkpoint of this name in a run's store.  Errors: also those of gr_state_load.
 */
gr_status gr_snapshot_load(struct gr_snapshot *snapshot, struct gr_store *store, const char *name,
                           const struct gr_adapter *adapter);

#endif
