/* main of every test program: runs its cases, each in a child process, and counts.
 * Exit status: 0 all passed, 1 any failed, 77 all skipped. */
#include "tests/test.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_SKIPPED = 77 };

static struct gr_test_case *cases;
static int assertions;

void gr_test_register(struct gr_test_case *test_case)
{
    struct gr_test_case **end = &cases;

    while (*end != NULL)
        end = &(*end)->next;
    *end = test_case;
}

void gr_test_count(void)
{
    assertions++;
}

void gr_test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    printf("%s:%d: ", file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(NULL);
    _exit(1);
}

void gr_test_skip(const char *format, ...)
{
    va_list args;

    printf("skipped: ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(NULL);
    _exit(EXIT_SKIPPED);
}

static void run_here(const struct gr_test_case *test_case)
{
    assertions = 0;
    test_case->run();
    if (assertions == 0)
        gr_test_fail(test_case->name, 0, "the case made no assertion");
}

static int run_in_child(const struct gr_test_case *test_case)
{
    int wait_status = 0;
    pid_t child;

    fflush(NULL);
    child = fork();
    if (child == 0) {
        run_here(test_case);
        fflush(NULL);
        exit(0); /* not _exit: leak checkers run at exit */
    }
    if (child < 0 || waitpid(child, &wait_status, 0) != child)
        return 1;
    if (WIFSIGNALED(wait_status))
        printf("ended by signal %d\n", WTERMSIG(wait_status));
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 1;
}

int main(int argc, char **argv)
{
    bool in_child = true;
    const char *only = NULL;
    int passed = 0, failed = 0, skipped = 0;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--no-fork") == 0)
            in_child = false;
        else
            only = argv[i];
    }
    for (struct gr_test_case *c = cases; c != NULL; c = c->next) {
        int result = 0;

        if (only != NULL && strcmp(only, c->name) != 0)
            continue;
        if (in_child)
            result = run_in_child(c);
        else
            run_here(c);
        printf("%s %s\n", result == 0 ? "ok  " : result == EXIT_SKIPPED ? "skip" : "FAIL", c->name);
        passed += result == 0;
        skipped += result == EXIT_SKIPPED;
        failed += result != 0 && result != EXIT_SKIPPED;
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    if (failed > 0 || passed + skipped == 0)
        return 1;
    return passed == 0 ? EXIT_SKIPPED : 0;
}
