/* The tree between real processes, and the sums beside it: for each number of micro-batches the
 * bits of a recursive T(0,M) written down here, whatever number of ranks mpirun started.  On the
 * CPU device, through the host; with GRAFT_TEST_DEVICE=cuda on that one, whose NCCL then joins the
 * ranks. */
#include "kernels/base/alloc.h"
#include "kernels/peers.h"
#include "tests/ranks.h"
#include "tests/test.h"
#include "trainer/run/device_peers.h"
#include "trainer/run/step_results.h"
#include "trainer/run/tree.h"

#include <stdlib.h>

enum { MICRO_BATCHES = 17, TRIALS = 2 };

static struct gr_comm *comm;
static struct gr_device *dev;

static void leave(void)
{
    gr_peers_leave(dev);
    gr_device_destroy(dev);
}

static void join(void)
{
    const char *device = getenv("GRAFT_TEST_DEVICE");
    char path[GR_GRADIENT_PATH_BYTES];

    if (comm != NULL)
        return;
    comm = ranks_join();
    ASSERT_OK(gr_device_create(&dev, device == NULL ? "cpu" : device, 1, NULL));
    atexit(leave);
    ASSERT_OK(gr_device_join_peers(dev, comm, device == NULL ? "auto" : "nccl", path));
    ASSERT_INT(gr_peers_are_joined(dev), device != NULL && gr_comm_size(comm) > 1);
}

/* Signed, of magnitudes from 2^-20 to 2^20, all 52 bits of the mantissa random: another association
 * changes bits.  The mixing is splitmix64's. */
static double noise(int64_t step, int64_t m, int64_t i)
{
    uint64_t x = (uint64_t)(step * 1000 + m) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)i;
    double mantissa;

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    mantissa = 1.0 + (double)(x >> 12) * 0x1p-52;
    return ldexp(x & 1 ? mantissa : -mantissa, (int)((x >> 1) % 41) - 20);
}

static struct gr_sums leaf_sums(int64_t step, int64_t m, int trial)
{
    return (struct gr_sums){.loss = noise(step, m, -1 - trial),
                            .squares = noise(step, m, -10 - trial),
                            .supervised = m * 1000 + trial,
                            .tokens = step + (m << 33)};
}

static float reference(int64_t step, int64_t lo, int64_t hi, int64_t i)
{
    int64_t mid = lo + (hi - lo + 1) / 2;

    if (hi - lo == 1)
        return (float)noise(step, lo, i);
    return reference(step, lo, mid, i) + reference(step, mid, hi, i);
}

static struct gr_sums reference_sums(int64_t step, int64_t lo, int64_t hi, int trial)
{
    int64_t mid = lo + (hi - lo + 1) / 2;
    struct gr_sums left, right;

    if (hi - lo == 1)
        return leaf_sums(step, lo, trial);
    left = reference_sums(step, lo, mid, trial);
    right = reference_sums(step, mid, hi, trial);
    left.loss += right.loss;
    left.squares += right.squares;
    left.supervised += right.supervised;
    left.tokens += right.tokens;
    return left;
}

static float left_to_right(int64_t micro_batches, int64_t i)
{
    float sum = (float)noise(0, 0, i);

    for (int64_t m = 1; m < micro_batches; m++)
        sum += (float)noise(0, m, i);
    return sum;
}

static void one_step(struct gr_tree *tree, int64_t micro_batches, int64_t elements, int64_t step)
{
    int size = gr_comm_size(comm), rank = gr_comm_rank(comm);
    int64_t end = gr_tree_block_begin(micro_batches, size, rank + 1), wrong = 0;
    float *host = GR_NEW_ARRAY(float, elements);
    gr_tensor gradient;

    for (int64_t m = gr_tree_block_begin(micro_batches, size, rank); m < end; m++) {
        gradient = gr_tree_leaf(tree, m);
        for (int64_t i = 0; i < elements; i++)
            host[i] = (float)noise(step, m, i);
        gr_device_upload(dev, gradient, host);
        gr_tree_push(tree, m);
    }
    ASSERT_OK(gr_tree_root(tree, &gradient));
    gr_device_download(dev, host, gradient);
    ASSERT_OK(gr_tree_wait(tree));
    for (int64_t i = 0; i < elements; i++) {
        float expected = reference(step, 0, micro_batches, i);

        wrong += memcmp(&host[i], &expected, sizeof expected) != 0;
    }
    ASSERT_MSG(wrong == 0, "M %d P %d rank %d: %d of %d elements have other bits",
               (int)micro_batches, size, rank, (int)wrong, (int)elements);
    gr_free(host);
}

/* Two steps, so that the second starts from used buffers. */
static void check(int64_t micro_batches, int64_t elements)
{
    struct gr_arena state = {.name = "state"};
    struct gr_tree *tree = NULL;

    tree = gr_tree_create(dev, comm, micro_batches, elements, GR_REDUCE_TREE);
    gr_tree_layout(tree, &state);
    ASSERT_OK(gr_device_arena_create(dev, &state, "state", state.used));
    gr_tree_layout(tree, &state);
    one_step(tree, micro_batches, elements, 0);
    one_step(tree, micro_batches, elements, 1);
    gr_tree_destroy(tree);
    gr_device_arena_release(dev, &state);
}

TEST(tree_mpi_bits_are_those_of_the_reference)
{
    static const int64_t element_counts[] = {1, 64, 1003};

    join();
    for (int64_t m = gr_comm_size(comm); m <= MICRO_BATCHES; m++) {
        for (int64_t e = 0; e < GR_COUNT(element_counts); e++)
            check(m, element_counts[e]);
    }
}

/* As the engine does: what is counted on the host first, then what comes from the device. */
static void share_sums(struct gr_step_results *results, int64_t micro_batches, int64_t step)
{
    int size = gr_comm_size(comm), rank = gr_comm_rank(comm);
    int64_t end = gr_tree_block_begin(micro_batches, size, rank + 1);

    for (int64_t m = gr_tree_block_begin(micro_batches, size, rank); m < end; m++) {
        for (int trial = 0; trial < TRIALS; trial++) {
            struct gr_sums sums = leaf_sums(step, m, trial);

            results->host[m * TRIALS + trial] = sums.loss;
            results->host[(micro_batches + m) * TRIALS + trial] = sums.squares;
            sums.loss = sums.squares = 0;
            *gr_step_results_leaf(results, m, trial) = sums;
        }
    }
    ASSERT_OK(gr_step_results_share(results));
    for (int trial = 0; trial < TRIALS; trial++)
        ASSERT_INT(gr_step_results_sum(results, trial).supervised,
                   reference_sums(step, 0, micro_batches, trial).supervised);
    gr_step_results_take(results);
    ASSERT_OK(gr_step_results_share(results));
}

TEST(tree_mpi_sums_are_those_of_all_micro_batches)
{
    join();
    for (int64_t micro_batches = gr_comm_size(comm); micro_batches <= MICRO_BATCHES;
         micro_batches++) {
        struct gr_step_results results;

        gr_step_results_init(&results, comm, micro_batches, TRIALS);
        for (int64_t step = 0; step < 2; step++) {
            share_sums(&results, micro_batches, step);
            for (int trial = 0; trial < TRIALS; trial++) {
                struct gr_sums found = gr_step_results_sum(&results, trial);
                struct gr_sums expected = reference_sums(step, 0, micro_batches, trial);

                ASSERT_INT(memcmp(&found, &expected, sizeof expected), 0);
                for (int64_t m = 0; m < micro_batches; m++) {
                    expected = leaf_sums(step, m, trial);
                    ASSERT_INT(memcmp(gr_step_results_leaf(&results, m, trial), &expected,
                                      sizeof expected),
                               0);
                }
            }
        }
        gr_step_results_release(&results);
    }
}

/* Halves of more than one message, of different sizes. */
TEST(tree_mpi_large_gradients_travel_in_pieces)
{
    join();
    check(gr_comm_size(comm), gr_comm_size(comm) < 5 ? (2 << 20) + 77 : 77);
}

/* The test above would be worth nothing if the order did not show in the bits. */
TEST(tree_mpi_noise_tells_associations_apart)
{
    int64_t different = 0;

    join();
    for (int64_t i = 0; i < 1003; i++)
        different += left_to_right(8, i) != reference(0, 0, 8, i);
    ASSERT(different > 100);
}
