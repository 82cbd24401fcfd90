/* The program's signals: requests instead of deaths, and failing writes instead of deaths. */
#include "launch/signals.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void assert_request(int signal_number)
{
    gr_signals_hold_stop();
    ASSERT(!gr_stop_requested());
    ASSERT(raise(signal_number) == 0);
    ASSERT(gr_stop_requested());
    ASSERT(raise(SIGTERM) == 0 && raise(SIGUSR1) == 0 && raise(signal_number) == 0);
    ASSERT(gr_stop_requested());
}

TEST(signals_usr1_is_a_request_any_number_of_times)
{
    assert_request(SIGUSR1);
}

TEST(signals_term_is_a_request_any_number_of_times)
{
    assert_request(SIGTERM);
}

/* A read that waits goes on after the signal: nobody has to look for EINTR. */
TEST(signals_interrupt_no_read)
{
    int to_child[2], wait_status = 0;
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    pid_t child;

    ASSERT(pipe(to_child) == 0);
    gr_signals_hold_stop();
    child = fork();
    if (child == 0) {
        char byte = 0;
        bool is_read = read(to_child[0], &byte, 1) == 1;

        _exit(is_read && gr_stop_requested() ? 0 : 1);
    }
    for (int i = 0; i < 5; i++) {
        nanosleep(&pause, NULL);
        ASSERT(kill(child, i % 2 == 0 ? SIGUSR1 : SIGTERM) == 0);
    }
    nanosleep(&pause, NULL);
    ASSERT(write(to_child[1], "x", 1) == 1);
    ASSERT(waitpid(child, &wait_status, 0) == child);
    ASSERT(WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0);
}

TEST(signals_release_lets_sigterm_end_the_process)
{
    int wait_status = 0;
    pid_t child;

    gr_signals_hold_stop();
    child = fork();
    if (child == 0) {
        raise(SIGTERM);
        raise(SIGUSR1);
        gr_signals_release_stop();
        _exit(1);
    }
    ASSERT(waitpid(child, &wait_status, 0) == child);
    ASSERT(WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGTERM);
}

TEST(signals_a_closed_pipe_fails_the_write)
{
    int ends[2];

    gr_signals_hold_stop();
    ASSERT(pipe(ends) == 0 && close(ends[0]) == 0);
    ASSERT(write(ends[1], "x", 1) == -1 && errno == EPIPE);
}

TEST(signals_a_file_beyond_the_limit_fails_the_write)
{
    struct rlimit limit = {.rlim_cur = 1, .rlim_max = 1};
    int file;

    gr_test_enter_folder();
    gr_signals_init();
    file = open("x", O_WRONLY | O_CREAT, 0666);
    ASSERT(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    ASSERT(write(file, "xy", 2) == 1);
    ASSERT(write(file, "y", 1) == -1 && errno == EFBIG);
    close(file);
}
