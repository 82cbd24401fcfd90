/* Plans the tree: which slot each micro-batch is written to, which slots are added, and what goes
 * between ranks in which order.  See tree_plan.h; the association is decided here and nowhere else.
 *
 * Within a rank: post-order over the nodes whose micro-batches all are in its block.
 * Between ranks, P = 2^k dividing M: every block is a whole subtree, so T's upper k levels pair the
 * ranks by bit 0, then bit 1, ...: reduce-scatter by halving vectors while distances double, then
 * all-gather backwards.  Other P: the nodes that span ranks, in post-order of the whole tree; the
 * right child travels to the owner of the left one, which is the node's owner; rank 0 ends with
 * the root and broadcasts it.  All ranks walk the same order, so the pairs never wait in a ring.
 * With GR_REDUCE_ALL each block is a tree of its own, and one sum over all ranks follows. */
#include "trainer/run/tree_plan.h"

#include "kernels/base/alloc.h"
#include "kernels/base/status.h"
#include "trainer/run/tree.h"

#include <string.h>

enum { SPLIT_MULTIPLE = 64 }; /* elements: halves begin where an arena would put a tensor */

struct planner {
    struct gr_tree_plan *plan;
    int64_t micro_batches, elements, begin, end; /* begin, end: this rank's block */
    int size, rank;
    int *slot_of;  /* [end - begin] slot of the live node whose first leaf this is */
    bool *is_used; /* [slots] */
};

static struct gr_tree_move *add_move(struct planner *p, enum gr_tree_move_kind kind)
{
    struct gr_tree_plan *plan = p->plan;
    struct gr_tree_move *move;

    if (plan->count == plan->capacity) {
        plan->capacity = plan->capacity == 0 ? 16 : 2 * plan->capacity;
        plan->moves = gr_realloc(plan->moves, plan->capacity, sizeof *plan->moves);
    }
    move = &plan->moves[plan->count++];
    memset(move, 0, sizeof *move);
    move->kind = kind;
    move->in.slot = move->out.slot = -1;
    return move;
}

static int take_slot(struct planner *p)
{
    int slot = 0;

    while (slot < p->plan->slots && p->is_used[slot])
        slot++;
    if (slot == p->plan->slots) {
        p->plan->slots++;
        p->is_used = gr_realloc(p->is_used, p->plan->slots, sizeof *p->is_used);
    }
    p->is_used[slot] = true;
    return slot;
}

static int *slot_of(struct planner *p, int64_t first_leaf)
{
    GR_CHECK(first_leaf >= p->begin && first_leaf < p->end, "leaf %lld of rank %d",
             (long long)first_leaf, p->rank);
    return &p->slot_of[first_leaf - p->begin];
}

/* T(lo,hi) <- T(lo,mid) + T(mid,hi), both here. */
static void plan_add(struct planner *p, int64_t lo, int64_t mid)
{
    struct gr_tree_move *move = add_move(p, GR_TREE_ADD);

    move->slot = *slot_of(p, lo);
    move->other = *slot_of(p, mid);
    p->is_used[move->other] = false;
}

static void plan_compute(struct planner *p, int64_t lo, int64_t hi)
{
    int64_t mid = gr_tree_mid(lo, hi);
    struct gr_tree_move *move;

    if (hi <= p->begin || lo >= p->end)
        return;
    if (hi - lo == 1) {
        move = add_move(p, GR_TREE_LEAF);
        move->leaf = lo;
        move->slot = *slot_of(p, lo) = take_slot(p);
        return;
    }
    plan_compute(p, lo, mid);
    plan_compute(p, mid, hi);
    if (lo >= p->begin && hi <= p->end)
        plan_add(p, lo, mid);
}

static int owner_of(const struct planner *p, int64_t leaf)
{
    return gr_tree_owner(p->micro_batches, p->size, leaf);
}

static struct gr_tree_part whole(const struct planner *p, int slot)
{
    return (struct gr_tree_part){.slot = slot, .begin = 0, .end = p->elements};
}

static void plan_join(struct planner *p, int64_t lo, int64_t hi)
{
    int64_t mid = gr_tree_mid(lo, hi);
    int owner = owner_of(p, lo), from;
    struct gr_tree_move *move;

    if (owner == owner_of(p, hi - 1))
        return; /* within one rank: done while computing */
    plan_join(p, lo, mid);
    plan_join(p, mid, hi);
    from = owner_of(p, mid);
    if (p->rank != owner && p->rank != from)
        return;
    if (owner == from) {
        plan_add(p, lo, mid);
        return;
    }
    move = add_move(p, GR_TREE_TRADE);
    move->adds = true;
    if (p->rank == owner) {
        move->peer = from;
        move->in = whole(p, *slot_of(p, lo));
    } else {
        move->peer = owner;
        move->out = whole(p, *slot_of(p, mid));
        p->is_used[move->out.slot] = false;
    }
}

static void plan_broadcast(struct planner *p)
{
    struct gr_tree_move *move = add_move(p, GR_TREE_BROADCAST);

    move->peer = 0; /* owner of leaf 0, so of the root */
    move->slot = p->rank == 0 ? *slot_of(p, 0) : take_slot(p);
    p->plan->root_slot = move->slot;
}

static void plan_halving(struct planner *p)
{
    struct gr_tree_part mine = whole(p, *slot_of(p, p->begin));
    struct gr_tree_move *move;
    int64_t reduce_begin = p->plan->count, reduce_end;

    for (int bit = 1; bit < p->size; bit *= 2) {
        int64_t half = (mine.end - mine.begin + 1) / 2;
        int64_t mid = mine.begin + (half + SPLIT_MULTIPLE - 1) / SPLIT_MULTIPLE * SPLIT_MULTIPLE;
        struct gr_tree_part low = mine, high = mine;

        low.end = high.begin = mid < mine.end ? mid : mine.end;
        mine = (p->rank & bit) == 0 ? low : high;
        move = add_move(p, GR_TREE_TRADE);
        move->peer = p->rank ^ bit;
        move->in = mine;
        move->out = (p->rank & bit) == 0 ? high : low;
        move->adds = true;
    }
    reduce_end = p->plan->count;
    for (int64_t i = reduce_end - 1; i >= reduce_begin; i--) {
        struct gr_tree_move back = p->plan->moves[i];

        move = add_move(p, GR_TREE_TRADE);
        move->peer = back.peer;
        move->in = back.out;
        move->out = back.in;
    }
    p->plan->root_slot = mine.slot;
}

static void plan_sum(struct planner *p)
{
    int slot = *slot_of(p, p->begin);

    if (p->size > 1)
        add_move(p, GR_TREE_SUM)->slot = slot;
    p->plan->root_slot = slot;
}

void gr_tree_plan_init(struct gr_tree_plan *plan, int64_t micro_batches, int size, int rank,
                       int64_t elements, enum gr_reduce reduce)
{
    struct planner p = {.plan = plan,
                        .micro_batches = micro_batches,
                        .elements = elements,
                        .begin = gr_tree_block_begin(micro_batches, size, rank),
                        .end = gr_tree_block_begin(micro_batches, size, rank + 1),
                        .size = size,
                        .rank = rank};

    GR_CHECK(size >= 1 && size <= micro_batches && rank >= 0 && rank < size && elements >= 0,
             "%lld micro-batches, rank %d of %d", (long long)micro_batches, rank, size);
    memset(plan, 0, sizeof *plan);
    p.slot_of = GR_NEW_ARRAY(int, p.end - p.begin);
    if (reduce == GR_REDUCE_ALL)
        plan_compute(&p, p.begin, p.end);
    else
        plan_compute(&p, 0, micro_batches);
    plan->join_begin = plan->count;
    if (reduce == GR_REDUCE_ALL) {
        plan_sum(&p);
    } else if ((size & (size - 1)) == 0 && micro_batches % size == 0) {
        plan_halving(&p);
    } else {
        plan_join(&p, 0, micro_batches);
        plan_broadcast(&p);
    }
    gr_free(p.slot_of);
    gr_free(p.is_used);
}

void gr_tree_plan_release(struct gr_tree_plan *plan)
{
    gr_free(plan->moves);
    memset(plan, 0, sizeof *plan);
}
