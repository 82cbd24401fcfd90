/* Cases with every outcome a case can have; test_harness.sh runs them one by one and checks what
 * the harness makes of each.  No test of its own: most of them must fail. */
#include "kernels/base/status.h"
#include "tests/test.h"

#include <signal.h>
#include <stdlib.h>

TEST(passes)
{
    ASSERT(1 + 1 == 2);
    ASSERT_INT(2, 2);
    ASSERT_TEXT("a", "a");
    ASSERT_NEAR(1.0, 1.05, 0.1);
    ASSERT_OK(GR_OK);
}

TEST(passes_too)
{
    ASSERT(true);
}

TEST(fails_by_assert)
{
    ASSERT(1 + 1 == 3);
}

TEST(fails_by_int)
{
    ASSERT_INT(INT64_MIN, INT64_MAX);
}

TEST(fails_by_text)
{
    ASSERT_TEXT("found", "expected");
}

TEST(fails_by_near)
{
    ASSERT_NEAR(1.0, 1.2, 0.1);
}

TEST(fails_by_nan)
{
    ASSERT_NEAR(NAN, NAN, INFINITY);
}

TEST(fails_by_status)
{
    ASSERT_OK(gr_fail(GR_ERR_DATA, "file", NULL, "it is broken"));
}

TEST(fails_in_the_middle)
{
    ASSERT(true);
    ASSERT(false);
    printf("went on\n");
}

TEST(fails_without_assert)
{
    printf("did something\n");
}

TEST(skips)
{
    SKIP("there is no %s here", "GPU");
}

TEST(skips_after_an_assert)
{
    ASSERT(true);
    SKIP("the rest needs a GPU");
}

TEST(crashes)
{
    ASSERT(true);
    signal(SIGABRT, SIG_DFL);
    abort();
}

TEST(ends_itself)
{
    ASSERT(true);
    exit(3);
}
