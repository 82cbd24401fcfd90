/* Checking a twin's backward against central differences of its forward. */
#ifndef GR_TESTS_REF_GRADIENT_H
#define GR_TESTS_REF_GRADIENT_H

#include "kernels/base/philox.h"
#include "tests/test.h"

/* Random numbers in [-2, 2); the same for the same stream. */
static inline void ref_fill(double *x, int64_t n, uint32_t stream)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = 4 * (double)gr_uniform(gr_philox(stream, (uint32_t)i, 0, 0, 0).word[0]) - 2;
}

static inline double ref_dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* dx against (L(x + h) - L(x - h)) / 2h for each element; loss() computes L from what x is part of,
 * usually dy . forward(inputs). */
static inline void ref_assert_gradient(const char *what, double (*loss)(void), double *x,
                                       const double *dx, int64_t n)
{
    const double h = 1e-5;

    for (int64_t i = 0; i < n; i++) {
        double x_i = x[i], above, below, slope;

        x[i] = x_i + h;
        above = loss();
        x[i] = x_i - h;
        below = loss();
        x[i] = x_i;
        slope = (above - below) / (2 * h);
        ASSERT_MSG(fabs(slope - dx[i]) <= 1e-8 * (1 + fabs(slope)),
                   "%s[%" PRId64 "] is %.12g, the difference quotient is %.12g", what, i, dx[i],
                   slope);
    }
}

#endif
