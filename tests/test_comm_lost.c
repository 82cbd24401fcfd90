/* A rank that is gone, hangs or went astray: the others end the job, saying who and when, in time.
 * Starts helper_lost_peer under mpirun, whose command line comes from CMake. */
#include "kernels/base/clock.h"
#include "tests/test.h"

#include <stdlib.h>
#include <sys/wait.h>

enum { LIMIT_S = 20 }; /* the helper's deadline is 2 s; mpirun takes up to 2 more to kill */

struct outcome {
    int exit_code;
    double seconds;
    char text[16384]; /* stdout and stderr */
};

static struct outcome run_helper(const char *how)
{
    struct outcome outcome = {0};
    char command[1024];
    int64_t begin_ns = gr_clock_ns();
    size_t length;
    int wait_status;
    FILE *pipe;

    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1); /* also when started by hand */
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    snprintf(command, sizeof command, "timeout -k 1 30 %s %s 2>&1", LOST_PEER_COMMAND, how);
    pipe = popen(command, "r");
    ASSERT(pipe != NULL);
    length = fread(outcome.text, 1, sizeof outcome.text - 1, pipe);
    outcome.text[length] = '\0';
    wait_status = pclose(pipe);
    outcome.seconds = (double)(gr_clock_ns() - begin_ns) * 1e-9;
    outcome.exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
    return outcome;
}

static void assert_says(const struct outcome *outcome, const char *words)
{
    ASSERT_MSG(strstr(outcome->text, words) != NULL, "\"%s\" is not in\n%s", words, outcome->text);
}

TEST(comm_lost_nobody_ends_well)
{
    struct outcome outcome = run_helper("all");

    ASSERT_MSG(outcome.exit_code == 0, "exit %d\n%s", outcome.exit_code, outcome.text);
    ASSERT_TEXT(outcome.text, "");
}

TEST(comm_lost_stopped_rank_is_named_in_time)
{
    struct outcome outcome = run_helper("stop");

    ASSERT_MSG(outcome.exit_code == 138, "exit %d\n%s", outcome.exit_code, outcome.text);
    ASSERT(outcome.seconds < LIMIT_S);
    assert_says(&outcome, "graft: error: dist: rank 1 on ");
    assert_says(&outcome, " lost during gradients (found 2 s without a byte");
}

/* mpirun may kill the survivor before it notices anything itself. */
TEST(comm_lost_killed_rank_ends_the_job)
{
    struct outcome outcome = run_helper("kill");

    ASSERT_MSG(outcome.exit_code == 137 || outcome.exit_code == 138, "exit %d\n%s",
               outcome.exit_code, outcome.text);
    ASSERT(outcome.seconds < LIMIT_S);
}

/* At once, without a deadline: mpirun ends the others. */
TEST(comm_lost_bug_in_a_rank_ends_the_job_with_its_code)
{
    struct outcome outcome = run_helper("bug");

    ASSERT_MSG(outcome.exit_code == 70, "exit %d\n%s", outcome.exit_code, outcome.text);
    assert_says(&outcome, "graft: bug: ");
    ASSERT_MSG(strstr(outcome.text, " lost during ") == NULL, "%s", outcome.text);
}

TEST(comm_lost_rank_in_another_phase_is_named_in_time)
{
    struct outcome outcome = run_helper("astray");

    ASSERT_MSG(outcome.exit_code == 138, "exit %d\n%s", outcome.exit_code, outcome.text);
    ASSERT(outcome.seconds < LIMIT_S);
    ASSERT(strstr(outcome.text, "rank 1 on ") != NULL ||
           strstr(outcome.text, "rank 0 on ") != NULL);
    assert_says(&outcome, " lost during ");
}
