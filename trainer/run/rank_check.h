/* Are the ranks what they should be: as many as expected, and all about to do the same? */
#ifndef GR_TRAINER_RANK_CHECK_H
#define GR_TRAINER_RANK_CHECK_H

#include "trainer/run/engine.h"
#include "trainer/run/inputs.h"

/* expect_ranks 0: any number.  Errors: ERR_USAGE, also when there are more ranks than
 * micro-batches. */
gr_status gr_rank_check_count(int size, int64_t expect_ranks, int64_t micro_batches);

/* Compares program, libraries, instruction set, configuration, inputs, model and adapter with rank
 * 0's.  engine: its model is loaded.  adapter_hash: of one that every rank has read for itself, or
 * NULL.  Errors: ERR_USAGE naming the first rank that differs and in what; every rank gets it. */
gr_status gr_rank_check_same(const struct gr_engine *engine, const struct gr_inputs *inputs,
                             const char *adapter_hash);

#endif
