/* The collectives and the exchange between real processes; run by mpirun with several rank counts.
 */
#include "kernels/base/alloc.h"
#include "tests/ranks.h"
#include "tests/test.h"

static struct gr_comm *comm;

static unsigned char pattern(int from, int64_t i)
{
    return (unsigned char)(from * 37 + i % 251);
}

TEST(comm_mpi_ranks_know_their_host)
{
    comm = ranks_join();
    ASSERT_TEXT(gr_comm_kind(comm), "mpi");
    ASSERT_INT(gr_comm_local_size(comm), gr_comm_size(comm));
    ASSERT_INT(gr_comm_local_rank(comm), gr_comm_rank(comm));
    ASSERT_INT(gr_comm_io_rank(comm), 0);
}

TEST(comm_mpi_broadcast_from_every_root)
{
    comm = ranks_join();
    for (int root = 0; root < gr_comm_size(comm); root++) {
        int64_t value = gr_comm_rank(comm) == root ? 1000 + root : -1;

        ASSERT_OK(gr_comm_broadcast(comm, root, &value, sizeof value, "test"));
        ASSERT_INT(value, 1000 + root);
    }
}

TEST(comm_mpi_all_gather_orders_by_rank)
{
    int64_t all[64] = {0}, mine[2];

    comm = ranks_join();
    mine[0] = gr_comm_rank(comm);
    mine[1] = -gr_comm_rank(comm);
    ASSERT_OK(gr_comm_all_gather(comm, all, mine, sizeof mine, "test"));
    for (int rank = 0; rank < gr_comm_size(comm); rank++) {
        ASSERT_INT(all[2 * rank], rank);
        ASSERT_INT(all[2 * rank + 1], -rank);
    }
}

TEST(comm_mpi_agree_ors_flags)
{
    uint64_t flags;

    comm = ranks_join();
    flags = UINT64_C(1) << gr_comm_rank(comm);
    ASSERT_OK(gr_comm_agree(comm, &flags, "test"));
    ASSERT_INT(flags, (UINT64_C(1) << gr_comm_size(comm)) - 1);
}

/* Unequal sizes both ways, over several chunks, one of them of 0 bytes. */
TEST(comm_mpi_exchange_of_unequal_sizes)
{
    static const int64_t sizes[][2] = {{1, 0}, {0, 3}, {(4 << 20) + 1, 5}, {9 << 20, 10 << 20}};
    int rank, peer;

    comm = ranks_join();
    rank = gr_comm_rank(comm);
    peer = rank ^ 1;
    for (int64_t s = 0; s < GR_COUNT(sizes) && peer < gr_comm_size(comm); s++) {
        int64_t send_bytes = sizes[s][rank & 1], receive_bytes = sizes[s][peer & 1];
        unsigned char *sent = gr_alloc(send_bytes, 1), *received = gr_alloc(receive_bytes, 1);
        int64_t wrong = 0;

        for (int64_t i = 0; i < send_bytes; i++)
            sent[i] = pattern(rank, i);
        ASSERT_OK(gr_comm_exchange(comm, peer, received, receive_bytes, sent, send_bytes, "test"));
        for (int64_t i = 0; i < receive_bytes; i++)
            wrong += received[i] != pattern(peer, i);
        ASSERT_INT(wrong, 0);
        gr_free(sent);
        gr_free(received);
    }
    ASSERT(true);
}

TEST(comm_mpi_agree_status_of_no_failure_is_ok)
{
    comm = ranks_join();
    ASSERT_OK(gr_comm_agree_status(comm, GR_OK, "test"));
    ASSERT(!gr_error_is_set());
}

/* The two highest ranks fail, differently; everybody gets the lower one's message. */
TEST(comm_mpi_agree_status_is_the_lowest_failing_rank)
{
    gr_status mine = GR_OK;
    int rank, lowest;
    char expected[64];

    comm = ranks_join();
    rank = gr_comm_rank(comm);
    lowest = gr_comm_size(comm) > 1 ? gr_comm_size(comm) - 2 : 0;
    if (rank >= lowest) {
        mine = rank == lowest ? GR_ERR_DATA : GR_ERR_DEVICE;
        gr_fail(mine, "place", "a hint", "rank %d broke", rank);
    }
    ASSERT_INT(gr_comm_agree_status(comm, mine, "test"), GR_ERR_DATA);
    snprintf(expected, sizeof expected, "place: rank %d broke", lowest);
    ASSERT_TEXT(gr_error_message(), expected);
    ASSERT_TEXT(gr_error_hint(), "a hint");
    gr_error_clear();
}
