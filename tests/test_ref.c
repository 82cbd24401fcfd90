/* The f64 twins: each backward against central differences of its forward. */
#include "tests/ref/gradient.h"
#include "tests/ref/ref.h"

enum { N = 3, C = 10 };

static double x[N * C], dy[N * C], y[N * C], w[C], up[N * C];

static double rmsnorm_loss(void)
{
    double rstd[N];

    ref_rmsnorm_forward(y, rstd, x, w, 1e-3, N, C);
    return ref_dot(dy, y, N * C);
}

TEST(ref_rmsnorm_backward_is_gradient)
{
    double dx[N * C];

    ref_fill(x, N * C, 1);
    ref_fill(w, C, 2);
    ref_fill(dy, N * C, 3);
    ref_rmsnorm_backward(dx, dy, x, w, 1e-3, N, C);
    ref_assert_gradient("dx", rmsnorm_loss, x, dx, N * C);
}

static double swiglu_loss(void)
{
    ref_swiglu_forward(y, x, up, N * C);
    return ref_dot(dy, y, N * C);
}

TEST(ref_swiglu_backward_is_gradient)
{
    double dgate[N * C], dup[N * C];

    ref_fill(x, N * C, 1);
    ref_fill(up, N * C, 2);
    ref_fill(dy, N * C, 3);
    ref_swiglu_backward(dgate, dup, dy, x, up, N * C);
    ref_assert_gradient("dgate", swiglu_loss, x, dgate, N * C);
    ref_assert_gradient("dup", swiglu_loss, up, dup, N * C);
}

static double cosines[4 * C / 2], sines[4 * C / 2];
static const int32_t positions[N] = {3, 0, 1};

static double rope_loss(void)
{
    memcpy(y, x, sizeof y);
    ref_rope(y, cosines, sines, positions, 1, N, 1, C);
    return ref_dot(dy, y, N * C);
}

/* direction -1 is the transpose: what the backward applies to dy. */
TEST(ref_rope_backwards_is_gradient)
{
    double dx[N * C];

    ref_fill(x, N * C, 1);
    ref_fill(dy, N * C, 2);
    ref_fill(cosines, 4 * C / 2, 3);
    ref_fill(sines, 4 * C / 2, 4);
    memcpy(dx, dy, sizeof dx);
    ref_rope(dx, cosines, sines, positions, -1, N, 1, C);
    ref_assert_gradient("dx", rope_loss, x, dx, N * C);
}

/* On complex numbers, a + ib is multiplied by cos + i sin. */
TEST(ref_rope_quarter_turn_swaps_halves)
{
    double head[4] = {1, 2, 3, 4}, c[2] = {0, 0}, s[2] = {1, 1};
    const int32_t zero = 0;

    ref_rope(head, c, s, &zero, 1, 1, 1, 4);
    ASSERT_NEAR(head[0], -3, 0);
    ASSERT_NEAR(head[1], -4, 0);
    ASSERT_NEAR(head[2], 1, 0);
    ASSERT_NEAR(head[3], 2, 0);
}

TEST(ref_rmsnorm_known_row_normalised)
{
    double row[2] = {3, 4}, weight[2] = {1, 10}, out[2], rstd;

    ref_rmsnorm_forward(out, &rstd, row, weight, 3.5, 1, 2);
    ASSERT_NEAR(rstd, 0.25, 1e-15); /* mean of the squares: 12.5 */
    ASSERT_NEAR(out[0], 0.75, 1e-15);
    ASSERT_NEAR(out[1], 10, 1e-14);
}
