/* The sum of a step's micro-batches in a fixed binary tree, within a rank and between ranks, so
 * that its bits do not depend on who computed what:
 *   T(lo,hi) = T(lo,mid) + T(mid,hi),  mid = lo + ceil((hi-lo)/2)
 * over micro-batch numbers.  Rank p of P owns [floor(pM/P), floor((p+1)M/P)); a node belongs to the
 * owner of its first leaf.  A node is a flat f32 gradient (all trials one behind the other) and
 * the sums of each trial. */
#ifndef GR_TRAINER_TREE_H
#define GR_TRAINER_TREE_H

#include "kernels/ops.h"
#include "trainer/run/comm.h"

struct gr_sums {
    double loss;        /* sum of row losses */
    int64_t supervised; /* labels */
    int64_t tokens;     /* tokens inside documents */
};

struct gr_tree;

/* micro_batches owned by a rank. */
int64_t gr_tree_block_begin(int64_t micro_batches, int size, int rank);

/* Gradient buffers a rank needs at once, from a simulation of the order of work: the memory plan.
 */
int64_t gr_tree_buffer_count(int64_t micro_batches, int size, int rank);

/* What gr_tree_layout takes on the rank that takes most, of a job of `size` ranks. */
int64_t gr_tree_state_bytes(int64_t micro_batches, int size, int64_t elements);

/* elements: of one node's gradient, carved from `state`; trials: of sums per node.
 * size <= micro_batches. */
gr_status gr_tree_create(struct gr_tree **tree, struct gr_device *dev, struct gr_comm *comm,
                         int64_t micro_batches, int64_t elements, int trials);
/* Carves the buffers; called twice, as layout code is. */
void gr_tree_layout(struct gr_tree *tree, struct gr_arena *state);
void gr_tree_destroy(struct gr_tree *tree);

/* For each micro-batch m of the block, ascending: take the leaf, write the whole gradient and the
 * sums [trials] into it (a missing micro-batch writes +0), push it. */
void gr_tree_leaf(struct gr_tree *tree, int64_t m, gr_tensor *gradient, struct gr_sums **sums);
void gr_tree_push(struct gr_tree *tree, int64_t m);
/* Joins with the other ranks.  *gradient (elements) and *sums [trials] are then the root's on every
 * rank, until the next step's first leaf. */
gr_status gr_tree_root(struct gr_tree *tree, gr_tensor *gradient, struct gr_sums **sums);

#endif
