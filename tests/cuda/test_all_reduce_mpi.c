/* dist.reduce: all_reduce on emulated GPUs with the double of NCCL: the sum is that of all ranks,
 * the same bits on each, near those of the tree, and a silent peer is given up in time.  1 to 3
 * ranks. */
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/peers.h"
#include "tests/engine_rig.h"
#include "tests/test.h"

#include <stdlib.h>

enum { ELEMENTS = 70001 /* more than the double's ring holds */, STEPS = 4 };

static const char *const tree[] = {"device.dtype=bf16",  "train.micro_batches=3",
                                   "data.packing=false", "train.max_steps=4",
                                   "dist.reduce=tree",   NULL};
static const char *const all_reduce[] = {"device.dtype=bf16",      "train.micro_batches=3",
                                         "data.packing=false",     "train.max_steps=4",
                                         "dist.reduce=all_reduce", NULL};

/* ---- the sum ---- */

static float value_of(int rank, int64_t i)
{
    uint32_t x = (uint32_t)i * 2654435761u + (uint32_t)rank * 40503u;

    x ^= x >> 15;
    x *= 2246822519u;
    return ldexpf((float)(int32_t)(x | 1), (int)(x % 17) - 40);
}

static double exact_sum(int size, int64_t i, double *magnitude)
{
    double sum = 0;

    *magnitude = 0;
    for (int rank = 0; rank < size; rank++) {
        sum += (double)value_of(rank, i);
        *magnitude += fabs((double)value_of(rank, i));
    }
    return sum;
}

/* Every rank has the bytes that rank 0 has. */
static void assert_same_everywhere(struct gr_comm *comm, const float *found, int64_t count)
{
    float *first = GR_NEW_ARRAY(float, count);

    memcpy(first, found, (size_t)count * sizeof *first);
    ASSERT_OK(gr_comm_broadcast(comm, 0, first, count * (int64_t)sizeof *first, "test"));
    ASSERT(memcmp(first, found, (size_t)count * sizeof *first) == 0);
    gr_free(first);
}

/* Of 3 ranks the double adds in another order: else the rest would prove nothing. */
static void check_sum(struct gr_comm *comm, const float *found)
{
    int size = gr_comm_size(comm);
    int64_t other_bits = 0;

    for (int64_t i = 0; i < ELEMENTS; i++) {
        double magnitude, exact = exact_sum(size, i, &magnitude);
        float in_order = 0;

        for (int rank = 0; rank < size; rank++)
            in_order += value_of(rank, i);
        other_bits += memcmp(&in_order, &found[i], sizeof in_order) != 0;
        ASSERT_MSG(fabs((double)found[i] - exact) <= size * 0x1p-24 * magnitude,
                   "element %" PRId64 " is %g, expected %g", i, (double)found[i], exact);
    }
    ASSERT_MSG((other_bits > ELEMENTS / 100) == (size > 2), "%" PRId64 " have other bits",
               other_bits);
    assert_same_everywhere(comm, found, ELEMENTS);
}

TEST(all_reduce_mpi_sum_is_that_of_all_ranks)
{
    struct engine_rig r;
    struct gr_arena arena;
    float *values = GR_NEW_ARRAY(float, ELEMENTS);
    gr_tensor t;
    int lost = -1;

    engine_rig_open(&r, "cuda", all_reduce);
    ASSERT_OK(gr_engine_join(&r.engine));
    ASSERT_OK(gr_device_arena_create(r.dev, &arena, "test", ELEMENTS * 4 + 256));
    t = gr_arena_tensor_1d(&arena, GR_F32, ELEMENTS);
    for (int64_t i = 0; i < ELEMENTS; i++)
        values[i] = value_of(gr_comm_rank(r.comm), i);
    gr_device_upload(r.dev, t, values);
    if (gr_comm_size(r.comm) > 1)
        gr_peers_sum(r.dev, t);
    gr_device_download(r.dev, values, t);
    ASSERT_OK(gr_peers_are_joined(r.dev) ? gr_peers_wait(r.dev, &lost, 30) : GR_OK);
    ASSERT_OK(gr_device_sync(r.dev));
    check_sum(r.comm, values);
    gr_device_arena_release(r.dev, &arena);
    gr_free(values);
    engine_rig_close(&r);
}

/* ---- whole steps ---- */

/* The adapter after all steps, for the caller to free; of one that has moved by `moved` (norm). */
static float *train(const char *const *assignments, int64_t *elements, double *moved, int *ranks)
{
    struct engine_rig r;
    float *before, *after;

    engine_rig_open(&r, "cuda", assignments);
    engine_rig_prepare(&r, 1);
    ASSERT_INT(gr_peers_are_joined(r.dev), gr_comm_size(r.comm) > 1);
    *elements = r.trial[0].adapter->elements;
    *ranks = gr_comm_size(r.comm);
    before = engine_rig_state(&r, 0);
    for (int64_t step = 1; step <= STEPS; step++) {
        struct gr_update update;

        engine_rig_step(&r, &update, step);
    }
    after = engine_rig_state(&r, 0);
    *moved = 0;
    for (int64_t i = 0; i < *elements; i++)
        *moved += pow((double)after[i] - (double)before[i], 2);
    *moved = sqrt(*moved);
    assert_same_everywhere(r.comm, after, 3 * *elements);
    engine_rig_close(&r);
    gr_free(before);
    return after;
}

/* AdamW turns a gradient whose sign is rounding's into a whole step, so the adapters are held
 * together by their distance over the way they have gone. */
TEST(all_reduce_mpi_steps_are_near_the_tree_s)
{
    const double tolerance = 1e-5;
    double moved, moved_too, apart = 0;
    int64_t elements;
    int ranks;
    float *expected = train(tree, &elements, &moved, &ranks);
    float *found = train(all_reduce, &elements, &moved_too, &ranks);

    for (int64_t i = 0; i < elements; i++)
        apart += pow((double)found[i] - (double)expected[i], 2);
    apart = sqrt(apart) / moved;
    printf("adapters apart: %.1e of the way of %.2g\n", apart, moved);
    ASSERT_MSG(moved > 0 && apart < tolerance, "apart %g of the way %g", apart, moved);
    if (ranks == 1)
        ASSERT(memcmp(found, expected, (size_t)elements * sizeof *found) == 0);
    gr_free(expected);
    gr_free(found);
}

/* The last case: nothing can be exchanged after it.  With whom the sum was cannot be told. */
TEST(all_reduce_mpi_silent_peer_is_given_up_in_time)
{
    struct engine_rig r;
    struct gr_arena arena;
    gr_tensor t;
    int64_t begin_ns;
    int lost = 77;

    engine_rig_open(&r, "cuda", all_reduce);
    if (gr_comm_size(r.comm) == 1) { /* nobody to be silent */
        engine_rig_close(&r);
        return;
    }
    ASSERT_OK(gr_engine_join(&r.engine));
    ASSERT_OK(gr_device_arena_create(r.dev, &arena, "test", ELEMENTS * 4 + 256));
    t = gr_arena_tensor_1d(&arena, GR_F32, ELEMENTS);
    gr_zero(r.dev, t);
    gr_peers_sum(r.dev, t); /* connects them */
    ASSERT_OK(gr_peers_wait(r.dev, &lost, 30));
    if (gr_comm_rank(r.comm) == 1)
        gr_sleep_ns(5000000000);
    begin_ns = gr_clock_ns();
    gr_peers_sum(r.dev, t);
    ASSERT_INT(gr_peers_wait(r.dev, &lost, 0.5), GR_ERR_RETRY);
    ASSERT_INT(lost, 77);
    ASSERT((double)(gr_clock_ns() - begin_ns) * 1e-9 < 4);
    gr_error_clear(); /* and nothing is given back: the device would wait for what never comes */
}
