/* What really happened in a simulated world, and the invariants of the commit protocol over it.
 *
 * The judge is told of every save, start and pin, and watches every effect in the bucket.  It keeps
 * the tree of all checkpoints that were ever attempted: each knows its parent, so "the same line"
 * is a matter of fact, not of the product's opinion.  It calls no code of the protocol. */
#ifndef GR_TESTS_SIM_JUDGE_H
#define GR_TESTS_SIM_JUDGE_H

#include "tests/sim/mem_store.h"
#include "trainer/state/state.h"

#define SIM_ADAPTER   "adapter_model.safetensors"
#define SIM_OPTIMIZER "optimizer.safetensors"

enum { SIM_NO_NODE = -1 };

struct sim_judge;

struct sim_judge *sim_judge_create(struct sim_world *world, struct sim_bucket *bucket);
void sim_judge_destroy(struct sim_judge *judge);

/* The bytes of an object of the fake training: a pure function of name, step and history. */
void sim_blob(struct gr_buffer *bytes, const char *name, int64_t step, uint64_t history);

/* A save is about to be tried: a node of the tree below `parent`. */
int64_t sim_judge_save_begins(struct sim_judge *judge, int64_t term, const struct gr_checkpoint *c,
                              uint64_t history, int64_t parent);
void sim_judge_save_ends(struct sim_judge *judge, int64_t node, gr_status status);

/* A start began at `began_ns` and ended OK: the node it goes on from, or SIM_NO_NODE. */
int64_t sim_judge_started(struct sim_judge *judge, int64_t term, const struct gr_checkpoint *found,
                          int64_t began_ns);
uint64_t sim_judge_history(const struct sim_judge *judge, int64_t node); /* SIM_NO_NODE: 0 */

void sim_judge_pinned(struct sim_judge *judge, const char *name);
/* A load by name ended with `status`. */
void sim_judge_loaded(struct sim_judge *judge, const char *name, const struct gr_checkpoint *c,
                      gr_status status);
/* Somebody calls a live checkpoint bad. */
void sim_judge_called_bad(struct sim_judge *judge, const char *name, const char *reason);

/* Hostile: damages the newest checkpoint if enough good ones are left and it is before `last_step`,
 * whose loss would be one of the finished state.  Whether it did. */
bool sim_judge_damage_newest(struct sim_judge *judge, int64_t last_step);

/* After the end, a day later, one more start and GC: what must and what must not be there. */
void sim_judge_end(struct sim_judge *judge, int64_t final_node, int64_t save_total_limit);

#endif
