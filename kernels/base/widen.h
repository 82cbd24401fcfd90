/* f32 from the narrower types files hold: exact, subnormals, infinities and NaN included. */
#ifndef GR_BASE_WIDEN_H
#define GR_BASE_WIDEN_H

#include "kernels/base/dtype.h"

#include <stdbool.h>
#include <string.h>

static inline float gr_float_from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float gr_float_from_bf16(uint16_t bits)
{
    return gr_float_from_bits((uint32_t)bits << 16);
}

static inline float gr_float_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t exponent = bits >> 10 & 0x1fu, mantissa = bits & 0x3ffu;

    if (exponent == 0x1f)
        return gr_float_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 is exact in f32 */
        float magnitude = (float)mantissa * 0x1p-24f;

        return sign != 0 ? -magnitude : magnitude;
    }
    return gr_float_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* to[0..count) <- from, of f32, f16 or bf16 elements, at any address: files align nothing.
 * false: of another dtype. */
bool gr_widen(float *to, const void *from, enum gr_dtype dtype, int64_t count);

#endif
