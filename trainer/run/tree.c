/* Carries out the plan of the tree: leaves are handed out, added on the device, and traded between
 * ranks in pieces through two planned host buffers, so that no message needs memory of a gradient's
 * size.  Which additions there are, in which order, is decided by tree_plan.c.  Called by the loop.
 */
#include "trainer/run/tree.h"

#include "kernels/base/alloc.h"
#include "trainer/run/tree_plan.h"

enum { PIECE_ELEMENTS = 1 << 20 }; /* of a trade: 4 MiB, what one message of comm_mpi.c takes */

static const char phase[] = "gradients";

struct gr_tree {
    struct gr_device *dev;
    struct gr_comm *comm;
    struct gr_tree_plan plan;
    int64_t next; /* move to carry out next */
    int64_t elements, piece;
    int trials;
    gr_tensor *slots;          /* [plan.slots] (elements) f32 */
    gr_tensor landing;         /* (piece) f32: received, not added yet */
    float *host_in, *host_out; /* [piece] */
    struct gr_sums *sums;      /* [plan.slots][trials] */
    struct gr_sums *sums_in;   /* [trials] */
};

int64_t gr_tree_block_begin(int64_t micro_batches, int size, int rank)
{
    return gr_mul(rank, micro_batches) / size;
}

int64_t gr_tree_buffer_count(int64_t micro_batches, int size, int rank)
{
    struct gr_tree_plan plan;
    int64_t slots;

    gr_tree_plan_init(&plan, micro_batches, size, rank, 0);
    slots = plan.slots;
    gr_tree_plan_release(&plan);
    return slots;
}

static int64_t piece_elements(int64_t elements)
{
    return elements < PIECE_ELEMENTS ? elements : PIECE_ELEMENTS;
}

int64_t gr_tree_state_bytes(int64_t micro_batches, int size, int64_t elements)
{
    int64_t most = 0;

    for (int rank = 0; rank < size; rank++) {
        struct gr_arena measured = {.name = "tree"};
        struct gr_tree tree = {.elements = elements, .piece = piece_elements(elements)};

        tree.plan.slots = (int)gr_tree_buffer_count(micro_batches, size, rank);
        tree.slots = GR_NEW_ARRAY(gr_tensor, tree.plan.slots);
        gr_tree_layout(&tree, &measured);
        most = measured.used > most ? measured.used : most;
        gr_free(tree.slots);
    }
    return most;
}

gr_status gr_tree_create(struct gr_tree **tree, struct gr_device *dev, struct gr_comm *comm,
                         int64_t micro_batches, int64_t elements, int trials)
{
    int size = gr_comm_size(comm), rank = gr_comm_rank(comm);
    struct gr_tree *t;

    *tree = NULL;
    t = GR_NEW(struct gr_tree);
    t->dev = dev;
    t->comm = comm;
    t->elements = elements;
    t->piece = piece_elements(elements);
    t->trials = trials;
    gr_tree_plan_init(&t->plan, micro_batches, size, rank, elements);
    t->slots = GR_NEW_ARRAY(gr_tensor, t->plan.slots);
    t->host_in = GR_NEW_ARRAY(float, t->piece);
    t->host_out = GR_NEW_ARRAY(float, t->piece);
    t->sums = GR_NEW_ARRAY(struct gr_sums, gr_mul(t->plan.slots, trials));
    t->sums_in = GR_NEW_ARRAY(struct gr_sums, trials);
    *tree = t;
    return GR_OK;
}

void gr_tree_layout(struct gr_tree *tree, struct gr_arena *state)
{
    for (int i = 0; i < tree->plan.slots; i++)
        tree->slots[i] = gr_arena_tensor_1d(state, GR_F32, tree->elements);
    tree->landing = gr_arena_tensor_1d(state, GR_F32, tree->piece);
}

void gr_tree_destroy(struct gr_tree *tree)
{
    if (tree == NULL)
        return;
    gr_tree_plan_release(&tree->plan);
    gr_free(tree->slots);
    gr_free(tree->host_in);
    gr_free(tree->host_out);
    gr_free(tree->sums);
    gr_free(tree->sums_in);
    gr_free(tree);
}

static struct gr_sums *sums_of(struct gr_tree *tree, int slot)
{
    return tree->sums + slot * tree->trials;
}

static void add_sums(struct gr_tree *tree, struct gr_sums *to, const struct gr_sums *from)
{
    for (int i = 0; i < tree->trials; i++) {
        to[i].loss += from[i].loss;
        to[i].supervised += from[i].supervised;
        to[i].tokens += from[i].tokens;
    }
}

static void add_slots(struct gr_tree *tree, const struct gr_tree_move *move)
{
    gr_tensor to = tree->slots[move->slot];

    gr_add(tree->dev, to, to, tree->slots[move->other]);
    add_sums(tree, sums_of(tree, move->slot), sums_of(tree, move->other));
}

/* Part of `part` that lies in its piece number i; of 0 elements where there is none. */
static gr_tensor piece_of(struct gr_tree *tree, struct gr_tree_part part, int64_t i)
{
    int64_t begin = part.begin + i * tree->piece;
    int64_t end = begin + tree->piece < part.end ? begin + tree->piece : part.end;

    if (part.slot < 0 || begin >= end)
        return gr_tensor_1d(NULL, GR_F32, 0);
    return gr_tensor_rows(tree->slots[part.slot], begin, end);
}

static int64_t piece_count(struct gr_tree *tree, struct gr_tree_part part)
{
    if (part.slot < 0 || part.begin == part.end)
        return 0;
    return (part.end - part.begin + tree->piece - 1) / tree->piece;
}

/* Queues the received piece on the device; host_in is free again after the next sync. */
static void land(struct gr_tree *tree, gr_tensor in, bool adds)
{
    gr_tensor landing = tree->landing;

    if (adds) {
        landing = gr_tensor_rows(landing, 0, in.dim[0]);
        gr_device_upload(tree->dev, landing, tree->host_in);
        gr_add(tree->dev, in, in, landing);
    } else {
        gr_device_upload(tree->dev, in, tree->host_in);
    }
}

static gr_status trade(struct gr_tree *tree, const struct gr_tree_move *move)
{
    int64_t in_count = piece_count(tree, move->in), out_count = piece_count(tree, move->out);
    int64_t sum_bytes = tree->trials * (int64_t)sizeof(struct gr_sums);
    gr_status status = GR_OK;

    if (move->adds) {
        bool receives = move->in.slot >= 0, sends = move->out.slot >= 0;

        GR_TRY(gr_comm_exchange(tree->comm, move->peer, tree->sums_in, receives ? sum_bytes : 0,
                                sends ? sums_of(tree, move->out.slot) : NULL, sends ? sum_bytes : 0,
                                phase));
        if (receives)
            add_sums(tree, sums_of(tree, move->in.slot), tree->sums_in);
    }
    for (int64_t i = 0; i < in_count || i < out_count; i++) {
        gr_tensor in = piece_of(tree, move->in, i), out = piece_of(tree, move->out, i);

        if (i < out_count)
            gr_device_download(tree->dev, tree->host_out, out);
        GR_TRY(gr_device_sync(tree->dev));
        GR_TRY(gr_comm_exchange(tree->comm, move->peer, tree->host_in, in.dim[0] * 4,
                                tree->host_out, out.dim[0] * 4, phase));
        if (i < in_count)
            land(tree, in, move->adds);
    }
out:
    return status;
}

static gr_status broadcast(struct gr_tree *tree, const struct gr_tree_move *move)
{
    struct gr_tree_part whole = {.slot = move->slot, .begin = 0, .end = tree->elements};
    bool sends = gr_comm_rank(tree->comm) == move->peer;
    int64_t count = piece_count(tree, whole);
    gr_status status = GR_OK;

    GR_TRY(gr_comm_broadcast(tree->comm, move->peer, sums_of(tree, move->slot),
                             tree->trials * (int64_t)sizeof(struct gr_sums), phase));
    for (int64_t i = 0; i < count; i++) {
        gr_tensor part = piece_of(tree, whole, i);

        if (sends)
            gr_device_download(tree->dev, tree->host_in, part);
        GR_TRY(gr_device_sync(tree->dev));
        GR_TRY(gr_comm_broadcast(tree->comm, move->peer, tree->host_in, part.dim[0] * 4, phase));
        if (!sends)
            land(tree, part, false);
    }
out:
    return status;
}

static const struct gr_tree_move *next_move(struct gr_tree *tree)
{
    return &tree->plan.moves[tree->next];
}

void gr_tree_leaf(struct gr_tree *tree, int64_t m, gr_tensor *gradient, struct gr_sums **sums)
{
    const struct gr_tree_move *move;

    if (tree->next == tree->plan.count)
        tree->next = 0;
    GR_CHECK(tree->next < tree->plan.join_begin, "leaf %lld after the last", (long long)m);
    move = next_move(tree);
    GR_CHECK(move->kind == GR_TREE_LEAF && move->leaf == m, "leaf %lld, expected %lld",
             (long long)m, (long long)move->leaf);
    *gradient = tree->slots[move->slot];
    *sums = sums_of(tree, move->slot);
}

void gr_tree_push(struct gr_tree *tree, int64_t m)
{
    GR_CHECK(next_move(tree)->kind == GR_TREE_LEAF && next_move(tree)->leaf == m, "leaf %lld",
             (long long)m);
    tree->next++;
    while (tree->next < tree->plan.join_begin && next_move(tree)->kind == GR_TREE_ADD) {
        add_slots(tree, next_move(tree));
        tree->next++;
    }
}

gr_status gr_tree_root(struct gr_tree *tree, gr_tensor *gradient, struct gr_sums **sums)
{
    gr_status status = GR_OK;

    GR_CHECK(tree->next == tree->plan.join_begin, "a leaf is missing: move %lld, expected %lld",
             (long long)tree->next, (long long)tree->plan.join_begin);
    for (; tree->next < tree->plan.count; tree->next++) {
        const struct gr_tree_move *move = next_move(tree);

        if (move->kind == GR_TREE_ADD)
            add_slots(tree, move);
        else if (move->kind == GR_TREE_TRADE)
            GR_TRY(trade(tree, move));
        else
            GR_TRY(broadcast(tree, move));
    }
    *gradient = tree->slots[tree->plan.root_slot];
    *sums = sums_of(tree, tree->plan.root_slot);
    GR_TRY(gr_device_sync(tree->dev));
    status = gr_device_status(tree->dev);
out:
    return status;
}
