/* The sum of a step's micro-batches in a fixed binary tree, within a rank and between ranks, so
 * that its bits do not depend on who computed what:
 *   T(lo,hi) = T(lo,mid) + T(mid,hi),  mid = lo + ceil((hi-lo)/2)
 * over micro-batch numbers.  Rank p of P owns [floor(pM/P), floor((p+1)M/P)); a node belongs to the
 * owner of its first leaf.  A node is a flat f32 gradient, all trials one behind the other.
 * With GR_REDUCE_ALL that holds within a rank's block alone: NCCL sums the ranks' blocks, every
 * rank gets the same bits, and with another number of ranks they are others. */
#ifndef GR_TRAINER_TREE_H
#define GR_TRAINER_TREE_H

#include "kernels/ops.h"
#include "trainer/run/comm.h"
#include "trainer/run/tree_plan.h"

struct gr_tree;

/* The first micro-batch of a rank's block; that of rank `size` is the end of the last block. */
int64_t gr_tree_block_begin(int64_t micro_batches, int size, int rank);

/* The rank whose block micro-batch m is in. */
int gr_tree_owner(int64_t micro_batches, int size, int64_t m);

/* Gradient buffers a rank needs at once, from a simulation of the order of work: the memory plan.
 */
int64_t gr_tree_buffer_count(int64_t micro_batches, int size, int rank, enum gr_reduce reduce);

/* What gr_tree_layout takes on the rank that takes most, of a job of `size` ranks. */
int64_t gr_tree_state_bytes(int64_t micro_batches, int size, int64_t elements,
                            enum gr_reduce reduce);

/* elements: of one node's gradient, carved from `state`.  size <= micro_batches.  GR_REDUCE_ALL
 * needs devices that are joined, or one rank. */
struct gr_tree *gr_tree_create(struct gr_device *dev, struct gr_comm *comm, int64_t micro_batches,
                               int64_t elements, enum gr_reduce reduce);
/* Carves the buffers; called twice, as layout code is. */
void gr_tree_layout(struct gr_tree *tree, struct gr_arena *state);
void gr_tree_destroy(struct gr_tree *tree);

/* For each micro-batch m of the block, ascending: take the leaf, write the whole gradient into it
 * (a missing micro-batch writes +0), push it. */
gr_tensor gr_tree_leaf(struct gr_tree *tree, int64_t m);
void gr_tree_push(struct gr_tree *tree, int64_t m);
/* Joins with the other ranks.  *gradient (elements) is then the root's on every rank, until the
 * next step's first leaf.  Where devices are joined (kernels/peers.h) all of it is queued; else
 * what goes through the host is waited for.  Errors: ERR_RETRY (a lost peer), those of the device.
 */
gr_status gr_tree_root(struct gr_tree *tree, gr_tensor *gradient);
/* Waits for all that is queued on the device, downloads too, and for peers no longer than the
 * comm's timeout.  Errors: as above. */
gr_status gr_tree_wait(struct gr_tree *tree);

#endif
