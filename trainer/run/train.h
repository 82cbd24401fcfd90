/* Training, from a configuration to a finished adapter.  Called by `graft train`. */
#ifndef GR_TRAINER_TRAIN_H
#define GR_TRAINER_TRAIN_H

#include "trainer/config.h"
#include "trainer/run/comm.h"

struct gr_train_options {
    int64_t expect_ranks;         /* 0: any */
    int terminal;                 /* on which stderr is seen: progress bar, colours; -1: none */
    const char *program;          /* who writes the report: "graft 0.1.0" */
    bool profiles;                /* print where the time of the steps went */
    bool takeover;                /* fence whoever else works in the output */
    bool (*stop_requested)(void); /* a signal asked this process to stop after the step */
};

/* All ranks call it together and return the same status; a run that is finished has left comm.
 * Where a rank was lost (gr_comm_is_broken) the message is printed already, and the device is not
 * given back, which may wait for that rank: end the job.  Errors: every exit code of the contract.
 */
gr_status gr_train(struct gr_comm *comm, const struct gr_config *config,
                   const struct gr_train_options *options);

#endif
