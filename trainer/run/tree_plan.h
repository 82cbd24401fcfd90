/* The order of work of the tree, as a list of moves per rank made once at the start.  tree.c
 * carries it out, the memory plan counts its slots, the tests interpret it: one code path decides
 * the association.  Pure arithmetic: no device, no communication. */
#ifndef GR_TRAINER_TREE_PLAN_H
#define GR_TRAINER_TREE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum gr_tree_move_kind {
    GR_TREE_LEAF,      /* a micro-batch is written into `slot` */
    GR_TREE_ADD,       /* slot <- slot + other */
    GR_TREE_TRADE,     /* with `peer`: `out` is sent and `in` received, both at once */
    GR_TREE_BROADCAST, /* slot of rank `peer` goes to everybody's slot */
    GR_TREE_SUM,       /* slot <- the sum of all ranks' slots, in NCCL's order */
};

/* Who sums between ranks: dist.reduce. */
enum gr_reduce {
    GR_REDUCE_TREE,
    GR_REDUCE_ALL, /* NCCL: a rank's block is a tree of its own, and what is above has no fixed
                      order */
};

/* A run of elements of a slot; slot < 0: nothing goes this way. */
struct gr_tree_part {
    int slot;
    int64_t begin, end;
};

struct gr_tree_move {
    enum gr_tree_move_kind kind;
    int64_t leaf;    /* LEAF: number of the micro-batch */
    int slot, other; /* LEAF, ADD, BROADCAST, SUM */
    int peer;        /* TRADE, BROADCAST */
    struct gr_tree_part in, out;
    bool adds; /* TRADE: in is added; else in is overwritten */
};

struct gr_tree_plan {
    struct gr_tree_move
        *moves; /* first the block's leaves and adds, then what goes between ranks */
    int64_t count, capacity;
    int64_t join_begin; /* first move after the compute */
    int slots;          /* gradient buffers needed at once */
    int root_slot;      /* where T(0,M) is in the end, on every rank */
};

/* The first micro-batch after the left half of T(lo,hi). */
static inline int64_t gr_tree_mid(int64_t lo, int64_t hi)
{
    return lo + (hi - lo + 1) / 2;
}

/* 1 <= size <= micro_batches; elements >= 0. */
void gr_tree_plan_init(struct gr_tree_plan *plan, int64_t micro_batches, int size, int rank,
                       int64_t elements, enum gr_reduce reduce);
void gr_tree_plan_release(struct gr_tree_plan *plan);

#endif
