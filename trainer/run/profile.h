/* What the time of a run's steps went to: `graft train --profile`.  Times of this process; with
 * several ranks the I/O rank's are printed.
 *
 * Rates.  TF/s of a group of ops: its arithmetic (flop.h), with what it computes again, by its
 * time. TB/s of ops that pass over memory: their operands, each once.  MFU: the arithmetic of
 * forward and backward of the steps, nothing computed again, by the time of the steps and by the
 * device's peak, which is that of dense bf16 at the GPU's highest clock (gr_device_peak). */
#ifndef GR_TRAINER_PROFILE_H
#define GR_TRAINER_PROFILE_H

#include "trainer/run/engine.h"

/* The parts of a step as the loop sees them. */
#define GR_PHASES(X)                                                                               \
    X(compute, "forward and backward")                                                             \
    X(update, "gradients of all ranks, update")                                                    \
    X(evaluate, "evaluation")                                                                      \
    X(save, "saving and logging")

#define X(name, text) GR_PHASE_##name,
enum gr_phase { GR_PHASES(X) GR_PHASE_COUNT };
#undef X

/* Off while `ops` is NULL: then every call does nothing. */
struct gr_step_profile {
    struct gr_profile *ops;
    const struct gr_engine *engine;
    struct gr_work work_before;      /* the engine's, when counting began */
    int64_t steps, skipped, warm_up; /* counted, not counted, not to be counted */
};

/* The first two of more steps warm up and are not counted. */
void gr_step_profile_start(struct gr_step_profile *p, const struct gr_engine *engine,
                           int64_t steps);
/* What happened since the last call was this phase.  A step ends with GR_PHASE_save. */
void gr_step_profile_lap(struct gr_step_profile *p, enum gr_phase phase);
/* The table, on stderr. */
void gr_step_profile_print(const struct gr_step_profile *p);

#endif
