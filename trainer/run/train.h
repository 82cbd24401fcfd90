/* Training, from a configuration to a finished adapter.  Called by `graft train`. */
#ifndef GR_TRAINER_TRAIN_H
#define GR_TRAINER_TRAIN_H

#include "trainer/config.h"
#include "trainer/run/comm.h"

struct gr_train_options {
    int64_t expect_ranks;         /* 0: any */
    bool is_terminal;             /* stderr is one: progress bar, colours */
    bool takeover;                /* fence whoever else works in the output */
    bool (*stop_requested)(void); /* a signal asked this process to stop after the step */
};

/* All ranks call it together and return the same status.  Errors: every exit code of the contract.
 */
gr_status gr_train(struct gr_comm *comm, const struct gr_config *config,
                   const struct gr_train_options *options);

#endif
