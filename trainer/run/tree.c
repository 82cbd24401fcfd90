/* Carries out the plan of the tree: leaves are handed out, added on the device, and traded between
 * ranks in pieces, so that no message needs memory of a gradient's size: from device to device
 * where they are joined (kernels/peers.h), else through two planned host buffers.  Which additions
 * there are, in which order, is decided by tree_plan.c.  Called by the loop. */
#include "trainer/run/tree.h"

#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "kernels/peers.h"

enum { PIECE_ELEMENTS = 1 << 20 }; /* of a trade: 4 MiB, what one message of comm_mpi.c takes */

static const char phase[] = "gradients";

struct gr_tree {
    struct gr_device *dev;
    struct gr_comm *comm;
    struct gr_tree_plan plan;
    int64_t next; /* move to carry out next */
    int64_t elements, piece;
    gr_tensor *slots;          /* [plan.slots] (elements) f32 */
    gr_tensor landing;         /* (piece) f32: received, not added yet */
    float *host_in, *host_out; /* [piece] */
};

int64_t gr_tree_block_begin(int64_t micro_batches, int size, int rank)
{
    return gr_mul(rank, micro_batches) / size;
}

/* The rank p with floor(pM/P) <= m < floor((p+1)M/P). */
int gr_tree_owner(int64_t micro_batches, int size, int64_t m)
{
    return (int)((gr_mul(m + 1, size) - 1) / micro_batches);
}

int64_t gr_tree_buffer_count(int64_t micro_batches, int size, int rank, enum gr_reduce reduce)
{
    struct gr_tree_plan plan;
    int64_t slots;

    gr_tree_plan_init(&plan, micro_batches, size, rank, 0, reduce);
    slots = plan.slots;
    gr_tree_plan_release(&plan);
    return slots;
}

/* NCCL cuts what it is given itself. */
static int64_t piece_elements(int64_t elements, enum gr_reduce reduce)
{
    if (reduce == GR_REDUCE_ALL)
        return 0;
    return elements < PIECE_ELEMENTS ? elements : PIECE_ELEMENTS;
}

int64_t gr_tree_state_bytes(int64_t micro_batches, int size, int64_t elements,
                            enum gr_reduce reduce)
{
    int64_t most = 0;

    for (int rank = 0; rank < size; rank++) {
        struct gr_arena measured = {.name = "tree"};
        struct gr_tree tree = {.elements = elements, .piece = piece_elements(elements, reduce)};

        tree.plan.slots = (int)gr_tree_buffer_count(micro_batches, size, rank, reduce);
        tree.slots = GR_NEW_ARRAY(gr_tensor, tree.plan.slots);
        gr_tree_layout(&tree, &measured);
        most = measured.used > most ? measured.used : most;
        gr_free(tree.slots);
    }
    return most;
}

struct gr_tree *gr_tree_create(struct gr_device *dev, struct gr_comm *comm, int64_t micro_batches,
                               int64_t elements, enum gr_reduce reduce)
{
    int size = gr_comm_size(comm), rank = gr_comm_rank(comm);
    struct gr_tree *t = GR_NEW(struct gr_tree);

    t->dev = dev;
    t->comm = comm;
    t->elements = elements;
    t->piece = piece_elements(elements, reduce);
    gr_tree_plan_init(&t->plan, micro_batches, size, rank, elements, reduce);
    t->slots = GR_NEW_ARRAY(gr_tensor, t->plan.slots);
    t->host_in = GR_NEW_ARRAY(float, t->piece);
    t->host_out = GR_NEW_ARRAY(float, t->piece);
    return t;
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
    gr_free(tree);
}

static void add_slots(struct gr_tree *tree, const struct gr_tree_move *move)
{
    gr_tensor to = tree->slots[move->slot];

    gr_add(tree->dev, to, to, tree->slots[move->other]);
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

/* Queues the received piece on the device. */
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

static void trade_directly(struct gr_tree *tree, const struct gr_tree_move *move)
{
    int64_t in_count = piece_count(tree, move->in), out_count = piece_count(tree, move->out);

    for (int64_t i = 0; i < in_count || i < out_count; i++) {
        gr_tensor in = piece_of(tree, move->in, i), out = piece_of(tree, move->out, i);
        gr_tensor landing = gr_tensor_rows(tree->landing, 0, in.dim[0]);

        gr_peers_exchange(tree->dev, move->peer, move->adds ? landing : in, out);
        if (move->adds && i < in_count)
            gr_add(tree->dev, in, in, landing);
    }
}

static gr_status trade_through_host(struct gr_tree *tree, const struct gr_tree_move *move)
{
    int64_t in_count = piece_count(tree, move->in), out_count = piece_count(tree, move->out);
    gr_status status = GR_OK;

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

static gr_status broadcast_through_host(struct gr_tree *tree, const struct gr_tree_move *move)
{
    struct gr_tree_part whole = {.slot = move->slot, .begin = 0, .end = tree->elements};
    bool sends = gr_comm_rank(tree->comm) == move->peer;
    int64_t count = piece_count(tree, whole);
    gr_status status = GR_OK;

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

gr_tensor gr_tree_leaf(struct gr_tree *tree, int64_t m)
{
    const struct gr_tree_move *move;

    if (tree->next == tree->plan.count)
        tree->next = 0;
    GR_CHECK(tree->next < tree->plan.join_begin, "leaf %lld after the last", (long long)m);
    move = next_move(tree);
    GR_CHECK(move->kind == GR_TREE_LEAF && move->leaf == m, "leaf %lld, expected %lld",
             (long long)m, (long long)move->leaf);
    return tree->slots[move->slot];
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

/* The device's word for it becomes that of a lost rank; our own: one of them. */
static gr_status name_lost(struct gr_tree *tree, gr_status status, int lost)
{
    return status == GR_ERR_RETRY ? gr_comm_lose(tree->comm, lost, phase) : status;
}

static gr_status carry_out(struct gr_tree *tree, const struct gr_tree_move *move)
{
    bool is_joined = gr_peers_are_joined(tree->dev);
    int peer = move->kind == GR_TREE_SUM ? gr_comm_rank(tree->comm) : move->peer;

    if (move->kind == GR_TREE_ADD)
        add_slots(tree, move);
    else if (move->kind == GR_TREE_SUM)
        gr_peers_sum(tree->dev, tree->slots[move->slot]);
    else if (!is_joined && move->kind == GR_TREE_TRADE)
        return trade_through_host(tree, move);
    else if (!is_joined)
        return broadcast_through_host(tree, move);
    else if (move->kind == GR_TREE_TRADE)
        trade_directly(tree, move);
    else
        gr_peers_broadcast(tree->dev, move->peer, tree->slots[move->slot]);
    return name_lost(tree, gr_device_status(tree->dev), peer);
}

gr_status gr_tree_root(struct gr_tree *tree, gr_tensor *gradient)
{
    gr_status status = GR_OK;

    GR_CHECK(tree->next == tree->plan.join_begin, "a leaf is missing: move %lld, expected %lld",
             (long long)tree->next, (long long)tree->plan.join_begin);
    GR_TRY(gr_failpoint(GR_FAILPOINT_GRADIENTS));
    for (; tree->next < tree->plan.count; tree->next++)
        GR_TRY(carry_out(tree, next_move(tree)));
    *gradient = tree->slots[tree->plan.root_slot];
out:
    return status;
}

gr_status gr_tree_wait(struct gr_tree *tree)
{
    gr_status status = GR_OK;
    int lost = gr_comm_rank(tree->comm);

    if (gr_peers_are_joined(tree->dev))
        status = gr_peers_wait(tree->dev, &lost, gr_comm_timeout_seconds(tree->comm));
    GR_TRY(name_lost(tree, status, lost));
    GR_TRY(gr_device_sync(tree->dev)); /* nothing to wait for where devices are joined */
out:
    return status;
}
