/* A run without its memory and its output: everything `graft train` reads and refuses before step
 * 1, the steps it would make, what they would take.  For `graft estimate` and `graft init`. */
#ifndef GR_TRAINER_DRY_RUN_H
#define GR_TRAINER_DRY_RUN_H

#include "trainer/run/engine.h"
#include "trainer/run/eval.h"
#include "trainer/run/inputs.h"

struct gr_dry_run {
    const struct gr_config *config; /* borrowed */
    struct gr_comm *comm;
    struct gr_device *dev;
    struct gr_engine engine;
    struct gr_inputs inputs;
    struct gr_trial trial;
    bool has_eval;
    struct gr_evaluator evaluator;
    int64_t total_steps;
    struct gr_memory_plan plan;
};

/* Looks at the model and reads the data.  ranks: processes of the job, all on this host, which
 * share its cores.  reads_weights: every value too, for the refusals of train that need it.
 * Errors, here and below: those of the parts, in the words of train. */
gr_status gr_dry_run_load(struct gr_dry_run *run, const struct gr_config *config, int ranks,
                          bool reads_weights);
/* Makes what a run is of: steps, adapter, memory.  The caller may have cut the documents and
 * changed the configuration's keys of lora and train, and data.max_length, since. */
gr_status gr_dry_run_plan(struct gr_dry_run *run, int ranks);
void gr_dry_run_release(struct gr_dry_run *run);

/* Arithmetic (flop.h) of a full step, all ranks together, forward and backward, with what is
 * computed again.  What depends on the documents, head and attention, is the mean of an epoch. */
double gr_dry_run_step_flop(struct gr_dry_run *run);
/* Likewise of one evaluation, which is forward alone; 0 without documents for it. */
double gr_dry_run_eval_flop(struct gr_dry_run *run);

#endif
