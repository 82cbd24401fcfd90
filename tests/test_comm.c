/* Processes without mpirun: one rank that is everything, and the choice of the I/O rank. */
#include "tests/test.h"
#include "trainer/run/comm.h"
#include "trainer/run/comm_backend.h"

#include <sys/wait.h>
#include <unistd.h>

TEST(comm_without_mpirun_is_self)
{
    struct gr_comm *comm = NULL;
    char text[8] = "here", all[8] = "";
    uint64_t flags = 5;

    ASSERT_OK(gr_comm_create(&comm, 1.0));
    ASSERT_TEXT(gr_comm_kind(comm), "self");
    ASSERT_INT(gr_comm_rank(comm), 0);
    ASSERT_INT(gr_comm_size(comm), 1);
    ASSERT_INT(gr_comm_local_rank(comm), 0);
    ASSERT_INT(gr_comm_local_size(comm), 1);
    ASSERT_INT(gr_comm_io_rank(comm), 0);
    ASSERT_OK(gr_comm_broadcast(comm, 0, text, sizeof text, "test"));
    ASSERT_OK(gr_comm_all_gather(comm, all, text, sizeof text, "test"));
    ASSERT_TEXT(all, "here");
    ASSERT_OK(gr_comm_agree(comm, &flags, "test"));
    ASSERT_INT(flags, 5);
    gr_comm_destroy(comm);
    gr_comm_destroy(NULL);
}

TEST(comm_exchange_with_itself_copies)
{
    struct gr_comm *comm = NULL;
    int received = 0, sent = 7;

    ASSERT_OK(gr_comm_create(&comm, 1.0));
    ASSERT_OK(gr_comm_exchange(comm, 0, &received, sizeof received, &sent, sizeof sent, "test"));
    ASSERT_INT(received, 7);
    gr_comm_destroy(comm);
}

TEST(comm_agree_status_alone_keeps_the_failure)
{
    struct gr_comm *comm = NULL;

    ASSERT_OK(gr_comm_create(&comm, 1.0));
    ASSERT_OK(gr_comm_agree_status(comm, GR_OK, "test"));
    gr_fail(GR_ERR_DATA, "a.json", "mend it", "broken");
    ASSERT_INT(gr_comm_agree_status(comm, GR_ERR_DATA, "test"), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "a.json: broken");
    ASSERT_TEXT(gr_error_hint(), "mend it");
    gr_comm_destroy(comm);
}

TEST(comm_abort_alone_ends_with_the_code)
{
    struct gr_comm *comm = NULL;
    int wait_status = 0;
    pid_t child;

    ASSERT_OK(gr_comm_create(&comm, 1.0));
    child = fork();
    if (child == 0)
        gr_comm_abort(comm, 138);
    ASSERT(waitpid(child, &wait_status, 0) == child);
    ASSERT(WIFEXITED(wait_status));
    ASSERT_INT(WEXITSTATUS(wait_status), 138);
    gr_comm_destroy(comm);
}

TEST(comm_io_rank_is_lowest_with_hostfile)
{
    struct gr_comm_hello hellos[4] = {0};

    ASSERT_INT(gr_comm_elect_io_rank(hellos, 4), 0);
    hellos[3].has_hostfile = true;
    ASSERT_INT(gr_comm_elect_io_rank(hellos, 4), 3);
    hellos[2].has_hostfile = true;
    ASSERT_INT(gr_comm_elect_io_rank(hellos, 4), 2);
}
