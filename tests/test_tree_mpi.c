/* The tree between real processes, on the CPU device: for each number of micro-batches the bits of
 * a recursive T(0,M) written down here, whatever number of ranks mpirun started. */
#include "kernels/base/alloc.h"
#include "tests/test.h"
#include "trainer/run/comm.h"
#include "trainer/run/tree.h"

#include <stdlib.h>

enum { MICRO_BATCHES = 17, TRIALS = 2 };

static struct gr_comm *comm;
static struct gr_device *dev;

static void leave(void)
{
    gr_device_destroy(dev);
    gr_comm_destroy(comm);
}

static void join(void)
{
    if (comm != NULL)
        return;
    ASSERT_OK(gr_comm_create(&comm, 30.0));
    ASSERT_OK(gr_device_create(&dev, "cpu", 1, NULL));
    atexit(leave);
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
    struct gr_sums *sums;

    for (int64_t m = gr_tree_block_begin(micro_batches, size, rank); m < end; m++) {
        gr_tree_leaf(tree, m, &gradient, &sums);
        for (int64_t i = 0; i < elements; i++)
            host[i] = (float)noise(step, m, i);
        gr_device_upload(dev, gradient, host);
        ASSERT_OK(gr_device_sync(dev));
        for (int trial = 0; trial < TRIALS; trial++)
            sums[trial] = leaf_sums(step, m, trial);
        gr_tree_push(tree, m);
    }
    ASSERT_OK(gr_tree_root(tree, &gradient, &sums));
    gr_device_download(dev, host, gradient);
    ASSERT_OK(gr_device_sync(dev));
    for (int64_t i = 0; i < elements; i++) {
        float expected = reference(step, 0, micro_batches, i);

        wrong += memcmp(&host[i], &expected, sizeof expected) != 0;
    }
    ASSERT_MSG(wrong == 0, "M %d P %d rank %d: %d of %d elements have other bits",
               (int)micro_batches, size, rank, (int)wrong, (int)elements);
    for (int trial = 0; trial < TRIALS; trial++) {
        struct gr_sums expected = reference_sums(step, 0, micro_batches, trial);

        ASSERT_INT(memcmp(&sums[trial], &expected, sizeof expected), 0);
    }
    gr_free(host);
}

/* Two steps, so that the second starts from used buffers. */
static void check(int64_t micro_batches, int64_t elements)
{
    struct gr_arena state = {.name = "state"};
    struct gr_tree *tree = NULL;

    ASSERT_OK(gr_tree_create(&tree, dev, comm, micro_batches, elements, TRIALS));
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
