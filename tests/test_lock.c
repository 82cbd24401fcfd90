/* The lock of a run directory, between real processes. */
#include "trainer/state/lock.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "tests/files.h"
#include "tests/test.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NS_PER_MS = 1000 * 1000 };

/* A child that holds the lock for `held_ms`; it has it on return. */
static pid_t start_holder(int held_ms)
{
    int ready[2];
    char byte = 0;
    pid_t child;

    ASSERT(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        struct gr_run_lock *lock = NULL;

        if (gr_run_lock_take(&lock, ".", false, 0) != GR_OK || lock == NULL ||
            write(ready[1], "x", 1) != 1)
            _exit(1);
        gr_sleep_ns((int64_t)held_ms * NS_PER_MS);
        gr_run_lock_release(lock);
        _exit(0);
    }
    close(ready[1]);
    ASSERT(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return child;
}

static void kill_holder(pid_t child)
{
    ASSERT(kill(child, SIGKILL) == 0);
    ASSERT(waitpid(child, NULL, 0) == child);
}

static void assert_taken(bool takeover)
{
    struct gr_run_lock *lock = NULL;

    ASSERT_OK(gr_run_lock_take(&lock, ".", takeover, 0));
    ASSERT(lock != NULL);
    gr_run_lock_release(lock);
}

static void assert_refused(const char *message, double patience_s)
{
    struct gr_run_lock *lock = NULL;

    ASSERT_INT(gr_run_lock_take(&lock, ".", false, patience_s), GR_ERR_FENCED);
    ASSERT(lock == NULL);
    ASSERT_TEXT(gr_error_message(), message);
    ASSERT_TEXT(gr_error_hint(), "wait for it to end, or start with --takeover to fence it off");
    gr_error_clear();
}

TEST(lock_of_a_live_process_is_refused_with_its_name)
{
    char host[256] = "";
    char *message = NULL;
    int64_t begin_ns = gr_clock_ns();
    pid_t child;

    gr_test_enter_folder();
    ASSERT(gethostname(host, sizeof host - 1) == 0);
    child = start_holder(60000);
    message = gr_format(".: run in use by %d on %s", (int)child, host);
    assert_refused(message, 0.3);
    ASSERT_MSG(gr_clock_ns() - begin_ns >= 300 * NS_PER_MS, "it did not wait");
    assert_refused(message, 0);
    kill_holder(child);
    gr_free(message);
}

TEST(lock_is_freed_by_sigkill)
{
    struct gr_run_lock *lock = NULL;
    pid_t child;

    gr_test_enter_folder();
    child = start_holder(60000);
    ASSERT_INT(gr_run_lock_take(&lock, ".", false, 0), GR_ERR_FENCED);
    gr_error_clear();
    kill_holder(child);
    assert_taken(false);
}

TEST(lock_waits_for_a_holder_that_ends)
{
    struct gr_run_lock *lock = NULL;
    pid_t child;

    gr_test_enter_folder();
    child = start_holder(300);
    ASSERT_OK(gr_run_lock_take(&lock, ".", false, 30));
    ASSERT(lock != NULL);
    gr_run_lock_release(lock);
    ASSERT(waitpid(child, NULL, 0) == child);
}

TEST(lock_takeover_goes_on_without_it_until_it_is_free)
{
    struct gr_run_lock *lock = NULL, *third = NULL;
    struct stat before, after;
    pid_t child;

    gr_test_enter_folder();
    child = start_holder(60000);
    ASSERT(stat(".lock", &before) == 0);
    ASSERT_OK(gr_run_lock_take(&lock, ".", true, 30));
    gr_run_lock_retry(lock);            /* not yet */
    ASSERT(stat(".lock", &after) == 0); /* it still names the holder */
    ASSERT(before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
           before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    kill_holder(child);
    gr_run_lock_retry(lock);
    ASSERT_INT(gr_run_lock_take(&third, ".", false, 0), GR_ERR_FENCED);
    gr_error_clear();
    gr_run_lock_release(lock);
    assert_taken(true);
}

/* The lock hangs on the open file, not on the process: a second start inside one process counts. */
TEST(lock_is_held_until_released)
{
    struct gr_run_lock *first = NULL, *second = NULL;

    gr_test_enter_folder();
    ASSERT_OK(gr_run_lock_take(&first, ".", false, 0));
    ASSERT_INT(gr_run_lock_take(&second, ".", false, 0), GR_ERR_FENCED);
    gr_error_clear();
    gr_run_lock_release(first);
    assert_taken(false);
    gr_run_lock_release(NULL);
}

TEST(lock_content_of_a_stranger_is_no_message)
{
    static const char *const contents[] = {"", "{", "[]", "{\"pid\": 1}", "{\"host\": 3}"};
    struct gr_run_lock *lock = NULL;

    gr_test_enter_folder();
    ASSERT_OK(gr_run_lock_take(&lock, ".", false, 0));
    for (int64_t i = 0; i < GR_COUNT(contents); i++) {
        gr_test_write_text(".lock", contents[i]);
        assert_refused(".: run in use", 0);
    }
    gr_test_write_text(".lock", "{\"pid\": 5, \"host\": \"a\\nb\"}");
    assert_refused(".: run in use by 5 on a?b", 0);
    gr_run_lock_release(lock);
}

TEST(lock_without_a_folder_is_refused)
{
    struct gr_run_lock *lock = NULL;

    gr_test_enter_folder();
    gr_test_write_text("file", "");
    ASSERT_INT(gr_run_lock_take(&lock, "file", false, 0), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(), "file/.lock: cannot be opened: the path leads through a file "
                                    "(found a file, expected a folder)");
    gr_error_clear();
}

TEST(lock_without_locks_warns_and_goes_on)
{
    struct gr_run_lock *lock = NULL;
    char text[512] = "";
    FILE *file = NULL;

    gr_test_enter_folder();
    ASSERT(freopen("stderr.txt", "w", stderr) != NULL);
    gr_test_forbid(SYS_fcntl, ENOLCK);
    ASSERT_OK(gr_run_lock_take(&lock, ".", false, 30));
    ASSERT(lock == NULL);
    fflush(stderr);
    file = fopen("stderr.txt", "r");
    ASSERT(file != NULL && fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    ASSERT_TEXT(text, "graft: warning: ./.lock: the file system has no locks (No locks available): "
                      "start this run only once at a time\n");
}
