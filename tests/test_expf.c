/* The inline exp of the CPU backend against libm's, over all exponents. */
#include "kernels/cpu/expf.h"
#include "tests/test.h"

#include <float.h>

/* Units in the last place of an f32 of this size. */
static double ulp_of(double x)
{
    return x < (double)FLT_MIN ? 0x1p-149 : ldexp(1, ilogb(x) - 23);
}

/* Every 61st bit pattern, which meets every exponent; all 2^32 gave 0.910. */
TEST(expf_all_exponents_within_0_91_ulp)
{
    double worst = 0;
    float worst_x = 0;

    for (uint64_t u = 0; u <= UINT32_MAX; u += 61) {
        uint32_t bits = (uint32_t)u;
        float x, found;
        double expected, error;

        memcpy(&x, &bits, sizeof x);
        if (!(x > -110 && x < 95) || fabsf(x) < 1e-9f)
            continue;
        found = gr_expf(x);
        expected = exp((double)x);
        if (expected > (double)FLT_MAX) {
            if (!isinf(found))
                ASSERT_MSG(false, "exp(%a) is %a, expected inf", (double)x, (double)found);
            continue;
        }
        error = fabs((double)found - expected) / ulp_of(expected);
        if (!(error <= worst)) {
            worst = error;
            worst_x = x;
        }
    }
    ASSERT_MSG(worst <= 0.91, "exp(%a) is off by %g ulp", (double)worst_x, worst);
}

TEST(expf_special_values_exact)
{
    ASSERT(gr_expf(-INFINITY) == 0);
    ASSERT(gr_expf(-FLT_MAX) == 0);
    ASSERT(gr_expf(INFINITY) == INFINITY);
    ASSERT(gr_expf(FLT_MAX) == INFINITY);
    ASSERT(gr_expf(0.0f) == 1);
    ASSERT(gr_expf(-0.0f) == 1);
    ASSERT(gr_expf(FLT_TRUE_MIN) == 1);
    ASSERT(isnan(gr_expf(NAN)));
    ASSERT(isnan(gr_expf(-NAN)));
    ASSERT(gr_expf(-103.97f) == FLT_TRUE_MIN);
    ASSERT(gr_expf(-104.0f) == 0);
}
