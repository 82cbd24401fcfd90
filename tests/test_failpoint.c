/* GRAFT_FAIL: what a specification means, what is refused, and that each action does what it says.
 */
#include "kernels/base/failpoint.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "tests/test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* "ok" and "fail" by letter for the first eight times the point is reached. */
static void assert_reached(const char *specification, int rank, const char *expected)
{
    char found[9] = "";

    ASSERT_OK(gr_failpoints_init(specification, rank));
    for (int i = 0; i < 8; i++) {
        found[i] = gr_failpoint(GR_FAILPOINT_SAVE_BEGIN) == GR_OK ? '.' : 'F';
        gr_error_clear();
    }
    ASSERT_TEXT(found, expected);
}

TEST(failpoint_acts_at_its_count_and_rank)
{
    assert_reached(NULL, 0, "........");
    assert_reached("save.begin:0:fail", 0, "F.......");
    assert_reached("save.begin:0:fail", 1, "........");
    assert_reached("save.begin@3:*:fail", 7, "..F.....");
    assert_reached("save.begin@*:2:fail", 2, "FFFFFFFF");
    assert_reached("save.fence@*:0:fail", 0, "........");
    assert_reached("save.begin@2:0:fail,save.begin@5:*:fail,save.begin@6:1:fail", 0, ".F..F...");
    assert_reached("save.begin:0:delay=0,save.begin@2:0:fail", 0, ".F......");
}

TEST(failpoint_fail_has_status_and_message)
{
    ASSERT_OK(gr_failpoints_init("done.before@*:0:fail", 0));
    ASSERT_INT(gr_failpoint(GR_FAILPOINT_DONE_BEFORE), GR_ERR_RETRY);
    ASSERT_TEXT(gr_error_message(), "failpoint done.before");
    ASSERT(gr_error_hint()[0] != '\0');
    gr_error_clear();
    ASSERT(gr_failpoint_fails(GR_FAILPOINT_DONE_BEFORE));
    ASSERT(!gr_failpoint_fails(GR_FAILPOINT_DONE_AFTER));
    ASSERT(!gr_error_is_set());
}

TEST(failpoint_delay_waits)
{
    int64_t begin_ns = gr_clock_ns();

    ASSERT_OK(gr_failpoints_init("micro_batch@2:0:delay=30", 0));
    ASSERT_OK(gr_failpoint(GR_FAILPOINT_MICRO_BATCH));
    ASSERT_OK(gr_failpoint(GR_FAILPOINT_MICRO_BATCH));
    ASSERT(gr_clock_ns() - begin_ns >= 30 * 1000000);
}

TEST(failpoint_kill_and_stop_signal_the_process)
{
    int wait_status = 0;
    pid_t child = fork();

    if (child == 0) {
        gr_failpoints_init("term.before:0:stop,term.after:0:kill", 0);
        gr_failpoint(GR_FAILPOINT_TERM_BEFORE);
        gr_failpoint(GR_FAILPOINT_TERM_AFTER);
        _exit(0);
    }
    ASSERT(waitpid(child, &wait_status, WUNTRACED) == child);
    ASSERT(WIFSTOPPED(wait_status) && WSTOPSIG(wait_status) == SIGSTOP);
    ASSERT(kill(child, SIGCONT) == 0);
    ASSERT(waitpid(child, &wait_status, 0) == child);
    ASSERT(WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL);
}

static const struct refused {
    const char *specification, *message;
} refused[] = {
    {"", "GRAFT_FAIL: bad rule (found \"\", expected NAME[@K]:RANK:ACTION)"},
    {"store.op", "GRAFT_FAIL: bad rule (found \"store.op\", expected NAME[@K]:RANK:ACTION)"},
    {"store.op:0", "GRAFT_FAIL: bad rule (found \"store.op:0\", expected NAME[@K]:RANK:ACTION)"},
    {"store.op:0:fail,", "GRAFT_FAIL: bad rule (found \"\", expected NAME[@K]:RANK:ACTION)"},
    {"store.ops:0:fail", "GRAFT_FAIL: unknown failpoint store.ops"},
    {"store.op@0:0:fail", "GRAFT_FAIL: bad count (found \"0\", expected a number from 1 or *)"},
    {"store.op@:0:fail", "GRAFT_FAIL: bad count (found \"\", expected a number from 1 or *)"},
    {"store.op@99999999999999999999:0:fail",
     "GRAFT_FAIL: bad count (found \"99999999999999999999\", expected a number from 1 or *)"},
    {"store.op:-1:fail", "GRAFT_FAIL: bad rank (found \"-1\", expected a number from 0 or *)"},
    {"store.op:0x:fail", "GRAFT_FAIL: bad rank (found \"0x\", expected a number from 0 or *)"},
    {"store.op:0:die",
     "GRAFT_FAIL: unknown action (found \"die\", expected kill, stop, fail or delay=MS)"},
    {"store.op:0:kill=1",
     "GRAFT_FAIL: unknown action (found \"kill=1\", expected kill, stop, fail or delay=MS)"},
    {"store.op:0:delay",
     "GRAFT_FAIL: unknown action (found \"delay\", expected kill, stop, fail or delay=MS)"},
    {"store.op:0:delay=*",
     "GRAFT_FAIL: bad delay (found \"*\", expected milliseconds in [0, 3600000])"},
    {"store.op:0:delay=3600001",
     "GRAFT_FAIL: bad delay (found \"3600001\", expected milliseconds in [0, 3600000])"},
};

TEST(failpoint_bad_specification_is_refused)
{
    for (int64_t i = 0; i < GR_COUNT(refused); i++) {
        ASSERT_INT(gr_failpoints_init(refused[i].specification, 0), GR_ERR_USAGE);
        ASSERT_TEXT(gr_error_message(), refused[i].message);
        ASSERT(gr_error_hint()[0] != '\0');
        gr_error_clear();
        ASSERT(!gr_failpoint_fails(GR_FAILPOINT_STORE_OP)); /* nothing of it stays */
    }
}
