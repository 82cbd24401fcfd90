/* How fast this machine multiplies: a short measurement, for an estimate of time. */
#ifndef GR_TRAINER_SPEED_H
#define GR_TRAINER_SPEED_H

#include "trainer/run/dry_run.h"

struct gr_speed {
    double flop_per_s; /* of a linear with its adapter, both passes, all threads or GPUs together */
    int threads;       /* 0: GPUs, one for each rank */
};
/* At the run's dtype and, up to a limit, its shapes; with the threads of all `ranks` together, no
 * more than there are cores.  By processor time (of a GPU: by the clock), the best of some
 * repetitions: what else runs here is hardly counted.  Takes a second.  Errors: ERR_DEVICE. */
gr_status gr_speed_measure(struct gr_speed *speed, const struct gr_dry_run *run, int ranks);

/* Seconds, all ranks working; a rank with more micro-batches than another sets the pace.  Products
 * and attention are what is counted and measured; GR_SPEED_SHARE is the part of the time they take.
 */
#define GR_SPEED_SHARE 0.8
struct gr_run_time {
    double step_s, eval_s, run_s;
    int64_t evals;
};
void gr_run_time_estimate(struct gr_run_time *time, const struct gr_speed *speed,
                          struct gr_dry_run *run, int ranks);

#endif
