/* Devices joined by NCCL: exchanges of unlike sizes and types, broadcasts, and the watchdog.  Two
 * ranks of the emulated GPU with the double of NCCL; the tree is test_tree_mpi.c. */
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/peers.h"
#include "tests/ranks.h"
#include "tests/test.h"
#include "trainer/run/device_peers.h"

#include <stdlib.h>

enum { MOST = 70000 }; /* elements: more than the double's ring holds */

static struct gr_comm *comm;
static struct gr_device *dev;
static struct gr_arena arena;
static int rank, peer, lost = -1;
static bool is_over;

static void leave(void)
{
    if (is_over) /* the device would wait for what never comes */
        return;
    ASSERT_OK(gr_peers_leave(dev));
    gr_device_arena_release(dev, &arena);
    gr_device_destroy(dev);
}

static void join(void)
{
    char path[GR_GRADIENT_PATH_BYTES];

    if (comm != NULL)
        return;
    comm = ranks_join();
    ASSERT_INT(gr_comm_size(comm), 2);
    rank = gr_comm_rank(comm);
    peer = 1 - rank;
    ASSERT_OK(gr_device_create(&dev, "cuda", 1, NULL));
    ASSERT_OK(gr_device_arena_create(dev, &arena, "test", 4 << 20));
    atexit(leave);
    ASSERT_OK(gr_device_join_peers(dev, comm, "auto", path));
    ASSERT(gr_peers_are_joined(dev));
}

/* count bytes that only this seed gives. */
static void fill(unsigned char *bytes, int64_t count, int seed)
{
    for (int64_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 251 + seed * 50);
}

static gr_tensor filled(enum gr_dtype dtype, int64_t count, int seed)
{
    gr_tensor t = gr_arena_tensor_1d(&arena, dtype, count);
    unsigned char *bytes = GR_NEW_ARRAY(unsigned char, count * 4 + 1);

    fill(bytes, count * gr_dtype_bytes(dtype), seed);
    if (count > 0)
        gr_device_upload(dev, t, bytes);
    ASSERT_OK(gr_device_sync(dev));
    gr_free(bytes);
    return t;
}

static void assert_filled(gr_tensor t, int seed)
{
    int64_t count = t.dim[0] * gr_dtype_bytes(t.dtype);
    unsigned char *found = GR_NEW_ARRAY(unsigned char, count + 1);
    unsigned char *expected = GR_NEW_ARRAY(unsigned char, count + 1);

    fill(expected, count, seed);
    if (count > 0)
        gr_device_download(dev, found, t);
    ASSERT_OK(gr_device_sync(dev));
    ASSERT(memcmp(found, expected, (size_t)count) == 0);
    gr_free(found);
    gr_free(expected);
}

/* Rank 0 sends `first` elements, rank 1 `second`. */
static void exchange(enum gr_dtype dtype, int64_t first, int64_t second)
{
    int64_t mark = arena.used;
    gr_tensor sent = filled(dtype, rank == 0 ? first : second, rank);
    gr_tensor received = filled(dtype, rank == 0 ? second : first, 3);

    gr_peers_exchange(dev, peer, received, sent);
    ASSERT_OK(gr_peers_wait(dev, &lost, 30.0));
    assert_filled(sent, rank);
    assert_filled(received, received.dim[0] == 0 ? 3 : peer);
    gr_arena_reset(&arena, mark);
}

TEST(nccl_mpi_exchanges_arrive_whole)
{
    join();
    exchange(GR_F32, 1, 1);
    exchange(GR_F32, MOST, 33);
    exchange(GR_F32, 0, MOST);
    exchange(GR_BF16, 31, 0);
    exchange(GR_BF16, MOST, MOST);
}

TEST(nccl_mpi_broadcast_is_the_root_s)
{
    join();
    for (int root = 0; root < 2; root++) {
        gr_tensor data = filled(GR_F32, MOST, rank);

        gr_peers_broadcast(dev, root, data);
        ASSERT_OK(gr_peers_wait(dev, &lost, 30.0));
        assert_filled(data, root);
    }
}

/* The last case: nothing can be exchanged after it. */
TEST(nccl_mpi_silent_peer_is_given_up_in_time)
{
    gr_tensor data;
    struct gr_error error;
    int64_t begin_ns;

    join();
    data = filled(GR_F32, MOST, rank);
    is_over = true;
    if (rank == 1)
        gr_sleep_ns(5000000000);
    begin_ns = gr_clock_ns();
    gr_peers_exchange(dev, peer, rank == 0 ? data : gr_tensor_1d(NULL, GR_F32, 0),
                      rank == 1 ? data : gr_tensor_1d(NULL, GR_F32, 0));
    ASSERT_INT(gr_peers_wait(dev, &lost, 0.5), GR_ERR_RETRY);
    ASSERT_INT(lost, peer);
    ASSERT((double)(gr_clock_ns() - begin_ns) * 1e-9 < 4);
    error = gr_error_take();
    ASSERT(strstr(error.message, "nothing came") != NULL);
}
