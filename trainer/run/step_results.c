/* See step_results.h.  On the device: the losses of all micro-batches, the squares of all, the
 * squares of the step; of each as many as there are trials. */
#include "trainer/run/step_results.h"

#include "kernels/base/alloc.h"
#include "trainer/run/tree.h"

#include <math.h>
#include <string.h>

static const char phase[] = "gradients";

/* Micro-batches of the longest block. */
static int64_t longest_block(const struct gr_step_results *r)
{
    int64_t size = gr_comm_size(r->comm);

    return (r->micro_batches + size - 1) / size;
}

static int64_t count(const struct gr_step_results *r)
{
    return gr_mul(2 * r->micro_batches + 1, r->trials);
}

void gr_step_results_init(struct gr_step_results *r, struct gr_comm *comm, int64_t micro_batches,
                          int trials)
{
    *r = (struct gr_step_results){.comm = comm, .micro_batches = micro_batches, .trials = trials};
    r->host = GR_NEW_ARRAY(double, count(r));
    r->leaf = GR_NEW_ARRAY(struct gr_sums,
                           gr_mul(longest_block(r) * gr_comm_size(comm), (int64_t)trials));
}

void gr_step_results_layout(struct gr_step_results *r, struct gr_arena *state)
{
    r->device = gr_arena_tensor_1d(state, GR_F64, count(r));
}

void gr_step_results_release(struct gr_step_results *r)
{
    gr_free(r->host);
    gr_free(r->leaf);
    memset(r, 0, sizeof *r);
}

gr_tensor gr_step_results_losses(const struct gr_step_results *r, int64_t m)
{
    return gr_tensor_rows(r->device, m * r->trials, (m + 1) * r->trials);
}

static int64_t square_of(const struct gr_step_results *r, int64_t m, int trial)
{
    return (r->micro_batches + m) * r->trials + trial;
}

gr_tensor gr_step_results_leaf_square(const struct gr_step_results *r, int64_t m, int trial)
{
    int64_t place = square_of(r, m, trial);

    return gr_tensor_rows(r->device, place, place + 1);
}

gr_tensor gr_step_results_root_square(const struct gr_step_results *r, int trial)
{
    return gr_step_results_leaf_square(r, r->micro_batches, trial);
}

struct gr_sums *gr_step_results_leaf(const struct gr_step_results *r, int64_t m, int trial)
{
    return &r->leaf[m * r->trials + trial];
}

void gr_step_results_read(struct gr_step_results *r, struct gr_device *dev)
{
    gr_device_download(dev, r->host, r->device);
}

static int64_t block_begin(const struct gr_step_results *r, int rank)
{
    return gr_tree_block_begin(r->micro_batches, gr_comm_size(r->comm), rank);
}

void gr_step_results_take(struct gr_step_results *r)
{
    int rank = gr_comm_rank(r->comm);

    for (int64_t m = block_begin(r, rank); m < block_begin(r, rank + 1); m++) {
        for (int i = 0; i < r->trials; i++) {
            gr_step_results_leaf(r, m, i)->loss = r->host[m * r->trials + i];
            gr_step_results_leaf(r, m, i)->squares = r->host[square_of(r, m, i)];
        }
    }
}

gr_status gr_step_results_share(struct gr_step_results *r)
{
    int64_t one = r->trials * (int64_t)sizeof *r->leaf, block = longest_block(r);
    gr_status status = GR_OK;

    GR_TRY(gr_comm_all_gather(r->comm, r->leaf,
                              gr_step_results_leaf(r, block_begin(r, gr_comm_rank(r->comm)), 0),
                              block * one, phase));
    /* A shorter block's last place is nobody's: those behind it move up. */
    for (int rank = 0; rank < gr_comm_size(r->comm); rank++)
        memmove(gr_step_results_leaf(r, block_begin(r, rank), 0),
                gr_step_results_leaf(r, block * rank, 0),
                (size_t)((block_begin(r, rank + 1) - block_begin(r, rank)) * one));
out:
    return status;
}

struct gr_sums gr_step_results_sum(const struct gr_step_results *r, int trial)
{
    return gr_sums_tree(r->leaf + trial, r->trials, 0, r->micro_batches);
}

double gr_step_results_norm(const struct gr_step_results *r, int trial)
{
    return sqrt(r->host[square_of(r, r->micro_batches, trial)]);
}
