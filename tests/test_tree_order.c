/* The plan of the tree, all ranks interpreted in one process.  A value is a hash of the expression
 * that made it, so that a result equals T(0,M) only if it was associated as T is.  A trade happens
 * when both ranks stand at it and a broadcast when all do: what would wait in a ring fails here. */
#include "kernels/base/alloc.h"
#include "tests/test.h"
#include "trainer/run/comm.h"
#include "trainer/run/tree.h"
#include "trainer/run/tree_plan.h"

#include <stdlib.h>

enum { RANKS = 8, MICRO_BATCHES = 17, SLOTS = 8, ELEMENTS = 3 * 64 + 7 };

struct value {
    uint64_t expression; /* 0: nothing */
    int64_t first_leaf;
};

struct process {
    struct gr_tree_plan plan;
    int64_t next;
    struct value slot[SLOTS][ELEMENTS];
};

static struct value leaf_value(int64_t m)
{
    return (struct value){.expression = 1000003u * (uint64_t)(m + 1), .first_leaf = m};
}

/* Addition is commutative to the bit, not associative: the operands are put in order first. */
static struct value add(struct value a, struct value b)
{
    struct value left = a.first_leaf < b.first_leaf ? a : b;
    struct value right = a.first_leaf < b.first_leaf ? b : a;
    uint64_t hash = left.expression * UINT64_C(0x9e3779b97f4a7c15) + 1;

    ASSERT(a.expression != 0 && b.expression != 0);
    hash ^= hash >> 29;
    hash = (hash + right.expression) * UINT64_C(0xbf58476d1ce4e5b9);
    left.expression = hash ^ (hash >> 32);
    return left;
}

static struct value reference(int64_t lo, int64_t hi)
{
    int64_t mid = lo + (hi - lo + 1) / 2;

    return hi - lo == 1 ? leaf_value(lo) : add(reference(lo, mid), reference(mid, hi));
}

static void move_part(struct process *to, struct gr_tree_part in, const struct process *from,
                      struct gr_tree_part out, bool adds)
{
    if (in.slot < 0 && out.slot < 0)
        return;
    ASSERT(in.slot >= 0 && out.slot >= 0);
    ASSERT_INT(in.begin, out.begin);
    ASSERT_INT(in.end, out.end);
    for (int64_t i = in.begin; i < in.end; i++) {
        struct value *value = &to->slot[in.slot][i];

        *value = adds ? add(*value, from->slot[out.slot][i]) : from->slot[out.slot][i];
    }
}

static void trade(struct process *a, struct process *b)
{
    static struct process old;
    const struct gr_tree_move *of_a = &a->plan.moves[a->next++];
    const struct gr_tree_move *of_b = &b->plan.moves[b->next++];

    old = *a; /* both directions at once */
    ASSERT_INT(of_a->adds, of_b->adds);
    move_part(a, of_a->in, b, of_b->out, of_a->adds);
    move_part(b, of_b->in, &old, of_a->out, of_a->adds);
}

/* Leaves and adds need nobody else. */
static void run_alone(struct process *process)
{
    for (; process->next < process->plan.count; process->next++) {
        const struct gr_tree_move *move = &process->plan.moves[process->next];

        if (move->kind != GR_TREE_LEAF && move->kind != GR_TREE_ADD)
            return;
        for (int64_t i = 0; i < ELEMENTS; i++) {
            struct value *value = &process->slot[move->slot][i];

            if (move->kind == GR_TREE_LEAF) {
                ASSERT_INT(value->expression, 0); /* the slot is free */
                *value = leaf_value(move->leaf);
            } else {
                *value = add(*value, process->slot[move->other][i]);
                process->slot[move->other][i].expression = 0;
            }
        }
    }
}

static const struct gr_tree_move *stands_at(const struct process *process)
{
    return process->next < process->plan.count ? &process->plan.moves[process->next] : NULL;
}

static bool broadcast_if_all_are_there(struct process *processes, int size)
{
    for (int r = 0; r < size; r++) {
        const struct gr_tree_move *move = stands_at(&processes[r]);

        if (move == NULL || move->kind != GR_TREE_BROADCAST || move->peer != 0)
            return false;
    }
    for (int r = 1; r < size; r++)
        memcpy(processes[r].slot[stands_at(&processes[r])->slot],
               processes[0].slot[stands_at(&processes[0])->slot], sizeof processes[0].slot[0]);
    for (int r = 0; r < size; r++)
        processes[r].next++;
    return true;
}

/* One thing that can happen between ranks; false: nothing can. */
static bool run_together(struct process *processes, int size)
{
    for (int r = 0; r < size; r++) {
        const struct gr_tree_move *mine = stands_at(&processes[r]), *other;

        if (mine == NULL || mine->kind != GR_TREE_TRADE)
            continue;
        other = stands_at(&processes[mine->peer]);
        if (other == NULL || other->kind != GR_TREE_TRADE || other->peer != r)
            continue;
        trade(&processes[r], &processes[mine->peer]);
        return true;
    }
    return broadcast_if_all_are_there(processes, size);
}

static void check(int64_t micro_batches, int size)
{
    struct process *processes = GR_NEW_ARRAY(struct process, size);
    uint64_t expected = reference(0, micro_batches).expression;

    for (int r = 0; r < size; r++) {
        gr_tree_plan_init(&processes[r].plan, micro_batches, size, r, ELEMENTS, GR_REDUCE_TREE);
        ASSERT(processes[r].plan.slots <= SLOTS);
    }
    do {
        for (int r = 0; r < size; r++)
            run_alone(&processes[r]);
    } while (run_together(processes, size));
    for (int r = 0; r < size; r++) {
        struct process *process = &processes[r];

        ASSERT_MSG(process->next == process->plan.count, "M %d P %d: rank %d waits for ever",
                   (int)micro_batches, size, r);
        for (int64_t i = 0; i < ELEMENTS; i++)
            ASSERT_MSG(process->slot[process->plan.root_slot][i].expression == expected,
                       "M %d P %d rank %d element %d: another association", (int)micro_batches,
                       size, r, (int)i);
        gr_tree_plan_release(&process->plan);
    }
    gr_free(processes);
}

TEST(tree_association_is_that_of_one_rank_for_any_ranks)
{
    for (int64_t m = 1; m <= MICRO_BATCHES; m++) {
        for (int size = 1; size <= m && size <= RANKS; size++)
            check(m, size);
    }
}

/* Each block is a tree of its own; then comes the one sum over the ranks. */
TEST(tree_all_reduce_sums_blocks_that_are_trees)
{
    struct process *process = GR_NEW(struct process);

    for (int64_t m = 1; m <= MICRO_BATCHES; m++) {
        for (int size = 1; size <= m; size++) {
            for (int r = 0; r < size; r++) {
                int64_t begin = gr_tree_block_begin(m, size, r);
                int64_t end = gr_tree_block_begin(m, size, r + 1);

                memset(process, 0, sizeof *process);
                gr_tree_plan_init(&process->plan, m, size, r, ELEMENTS, GR_REDUCE_ALL);
                run_alone(process);
                ASSERT_INT(process->next, process->plan.join_begin);
                ASSERT_INT(process->plan.count, process->plan.join_begin + (size > 1));
                if (size > 1) {
                    ASSERT(stands_at(process)->kind == GR_TREE_SUM);
                    ASSERT_INT(stands_at(process)->slot, process->plan.root_slot);
                }
                ASSERT(process->slot[process->plan.root_slot][0].expression ==
                       reference(begin, end).expression);
                gr_tree_plan_release(&process->plan);
            }
        }
    }
    gr_free(process);
    ASSERT_INT(gr_tree_state_bytes(8, 2, 64, GR_REDUCE_ALL), 3 * 256); /* nothing lands */
}

TEST(tree_blocks_cover_the_micro_batches_in_order)
{
    for (int64_t m = 1; m <= MICRO_BATCHES; m++) {
        for (int size = 1; size <= m; size++) {
            int64_t next = 0;

            for (int r = 0; r < size; r++) {
                struct gr_tree_plan plan;

                ASSERT_INT(gr_tree_block_begin(m, size, r), next);
                ASSERT_INT(gr_tree_owner(m, size, next), r);
                ASSERT_INT(gr_tree_owner(m, size, gr_tree_block_begin(m, size, r + 1) - 1), r);
                gr_tree_plan_init(&plan, m, size, r, 5, GR_REDUCE_TREE);
                for (int64_t i = 0; i < plan.count; i++) {
                    ASSERT(plan.moves[i].kind != GR_TREE_LEAF || i < plan.join_begin);
                    if (plan.moves[i].kind == GR_TREE_LEAF)
                        ASSERT_INT(plan.moves[i].leaf, next++);
                }
                ASSERT_INT(gr_tree_block_begin(m, size, r + 1), next);
                gr_tree_plan_release(&plan);
            }
            ASSERT_INT(next, m);
        }
    }
}

TEST(tree_buffers_grow_as_the_logarithm)
{
    int64_t bound = 1; /* ceil(log2 M) + 1 */

    for (int64_t m = 1; m <= 1024; m++) {
        while ((INT64_C(1) << (bound - 1)) < m)
            bound++;
        ASSERT(gr_tree_buffer_count(m, 1, 0, GR_REDUCE_TREE) <= bound);
    }
    ASSERT_INT(gr_tree_buffer_count(1, 1, 0, GR_REDUCE_TREE), 1);
    ASSERT_INT(gr_tree_buffer_count(8, 1, 0, GR_REDUCE_TREE), 4);
    ASSERT_INT(gr_tree_buffer_count(8, 4, 3, GR_REDUCE_TREE), 2);
    ASSERT_INT(gr_tree_buffer_count(4, 4, 1, GR_REDUCE_TREE), 1);
    ASSERT_INT(gr_tree_buffer_count(1024, 1, 0, GR_REDUCE_TREE), 11);
    ASSERT(gr_tree_buffer_count(1000, 7, 3, GR_REDUCE_TREE) <= 11);
}

/* Slots and the landing place, each a multiple of 256 bytes here; of the rank that takes most. */
TEST(tree_state_bytes_are_those_of_the_largest_rank)
{
    int64_t most = 0;

    ASSERT_INT(gr_tree_state_bytes(8, 1, 64, GR_REDUCE_TREE), (4 + 1) * 256);
    for (int rank = 0; rank < 3; rank++) {
        int64_t slots = gr_tree_buffer_count(8, 3, rank, GR_REDUCE_TREE);

        most = slots > most ? slots : most;
    }
    ASSERT_INT(gr_tree_state_bytes(8, 3, 64, GR_REDUCE_TREE), (most + 1) * 256);
}
