/* What the host learns of a step.
 *
 * The ops of a step leave losses and norms in one tensor on the device, which is read once, at the
 * step's end: nothing else of a step waits.  On the host every rank then knows what each
 * micro-batch of all ranks counted.  Called by the engine. */
#ifndef GR_TRAINER_STEP_RESULTS_H
#define GR_TRAINER_STEP_RESULTS_H

#include "kernels/device.h"
#include "trainer/run/comm.h"
#include "trainer/run/sums.h"

struct gr_step_results {
    struct gr_comm *comm;
    int64_t micro_batches;
    int trials;
    gr_tensor device; /* ((2 * micro_batches + 1) * trials) f64 */
    double *host;     /* the same, as it was last read */
    /* [micro_batches][trials] of a step, and room for gr_step_results_share */
    struct gr_sums *leaf;
};

void gr_step_results_init(struct gr_step_results *results, struct gr_comm *comm,
                          int64_t micro_batches, int trials);
void gr_step_results_layout(struct gr_step_results *results, struct gr_arena *state);
void gr_step_results_release(struct gr_step_results *results); /* zeros are fine */

/* Where the ops write, on the device: the losses of micro-batch m (trials), the square sum of a
 * trial's gradient in it (1), that of the whole step's gradient (1). */
gr_tensor gr_step_results_losses(const struct gr_step_results *results, int64_t m);
gr_tensor gr_step_results_leaf_square(const struct gr_step_results *results, int64_t m, int trial);
gr_tensor gr_step_results_root_square(const struct gr_step_results *results, int trial);

/* What micro-batch m of a trial counted; its owner writes the counts. */
struct gr_sums *gr_step_results_leaf(const struct gr_step_results *results, int64_t m, int trial);
/* Queues the reading; after the wait, take gives this rank's leaves their losses and squares. */
void gr_step_results_read(struct gr_step_results *results, struct gr_device *dev);
void gr_step_results_take(struct gr_step_results *results);
/* Each rank's leaves to all ranks.  Errors: ERR_RETRY (a lost peer). */
gr_status gr_step_results_share(struct gr_step_results *results);

/* Over all micro-batches, in the tree's order; the norm as it was last read. */
struct gr_sums gr_step_results_sum(const struct gr_step_results *results, int trial);
double gr_step_results_norm(const struct gr_step_results *results, int trial);

#endif
