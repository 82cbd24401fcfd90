/* Training, from a configuration to a finished adapter.  Called by `graft train`. */
#ifndef GR_TRAINER_TRAIN_H
#define GR_TRAINER_TRAIN_H

#include "trainer/config.h"
#include "trainer/run/comm.h"

struct gr_train_options {
    int64_t expect_ranks; /* 0: any */
    bool is_terminal;     /* stderr is one: progress bar, colours */
    const char *isa;      /* NULL: the best this CPU has */
};

/* All ranks call it together and return the same status.  Errors: every exit code of the contract.
 */
gr_status gr_train(struct gr_comm *comm, const struct gr_config *config,
                   const struct gr_train_options *options);

#endif
