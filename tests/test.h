/* The test harness.  A test program is a file of TEST(...) cases linked with test_main.c; each case
 * runs in a process of its own.  A case that asserts nothing fails; SKIP says why.
 * Run one case:  ./test_x unit_condition_result;  in this process, for a debugger: --no-fork. */
#ifndef GR_TEST_H
#define GR_TEST_H

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct gr_test_case {
    const char *name;
    void (*run)(void);
    struct gr_test_case *next;
};
void gr_test_register(struct gr_test_case *test_case);
void gr_test_count(void); /* an assertion was evaluated */
_Noreturn void gr_test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void gr_test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define TEST(name)                                                                                 \
    static void test_##name(void);                                                                 \
    __attribute__((constructor)) static void register_##name(void)                                 \
    {                                                                                              \
        static struct gr_test_case test_case = {#name, test_##name, NULL};                         \
        gr_test_register(&test_case);                                                              \
    }                                                                                              \
    static void test_##name(void)

#define SKIP(...) gr_test_skip(__VA_ARGS__)

#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        gr_test_count();                                                                           \
        if (!(condition))                                                                          \
            gr_test_fail(__FILE__, __LINE__, "%s does not hold", #condition);                      \
    } while (0)
#define ASSERT_MSG(condition, ...)                                                                 \
    do {                                                                                           \
        gr_test_count();                                                                           \
        if (!(condition))                                                                          \
            gr_test_fail(__FILE__, __LINE__, __VA_ARGS__);                                         \
    } while (0)
#define ASSERT_INT(found, expected)                                                                \
    do {                                                                                           \
        int64_t found_ = (int64_t)(found), expected_ = (int64_t)(expected);                        \
        ASSERT_MSG(found_ == expected_, "%s is %" PRId64 ", expected %" PRId64, #found, found_,    \
                   expected_);                                                                     \
    } while (0)
#define ASSERT_TEXT(found, expected)                                                               \
    do {                                                                                           \
        const char *found_ = (found), *expected_ = (expected);                                     \
        ASSERT_MSG(strcmp(found_, expected_) == 0, "%s is\n  \"%s\", expected\n  \"%s\"", #found,  \
                   found_, expected_);                                                             \
    } while (0)
/* |found - expected| <= tolerance; NaN fails. */
#define ASSERT_NEAR(found, expected, tolerance)                                                    \
    do {                                                                                           \
        double found_ = (double)(found), expected_ = (double)(expected);                           \
        double tolerance_ = (double)(tolerance);                                                   \
        ASSERT_MSG(fabs(found_ - expected_) <= tolerance_,                                         \
                   "%s is %.17g, expected %.17g within %g (off by %g)", #found, found_, expected_, \
                   tolerance_, fabs(found_ - expected_));                                          \
    } while (0)
/* A gr_status that must be OK; prints the message otherwise. */
#define ASSERT_OK(call)                                                                            \
    do {                                                                                           \
        int status_ = (int)(call);                                                                 \
        ASSERT_MSG(status_ == 0, "%s failed: %s", #call, gr_error_message());                      \
    } while (0)

#endif
