/* f32 from the narrower types files hold: exact, subnormals, infinities and NaN included; and the
 * way back, rounded to the nearest, ties to even. */
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

static inline uint32_t gr_float_to_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline uint16_t gr_float_to_bf16(float value)
{
    uint32_t bits = gr_float_to_bits(value);

    if ((bits & 0x7fffffffu) > 0x7f800000u) /* NaN stays one: rounding could make it infinite */
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline uint16_t gr_float_to_f16(float value)
{
    uint32_t bits = gr_float_to_bits(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);

    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return sign | 0x7e00u;
    if (bits >= 0x477ff000u) /* from halfway between the largest f16 and what would be next */
        return sign | 0x7c00u;
    if (bits <
        0x38800000u) { /* below 2^-14: adding 0.5 leaves multiples of 2^-24 in the mantissa */
        float shifted = gr_float_from_bits(bits) + 0.5f;

        return sign | (uint16_t)(gr_float_to_bits(shifted) - 0x3f000000u);
    }
    bits += 0xfffu + (bits >> 13 & 1u);
    return sign | (uint16_t)((bits - (112u << 23)) >> 13);
}

/* to[0..count) <- from, of f32, f16 or bf16 elements, at any address: files align nothing.
 * false: of another dtype. */
bool gr_widen(float *to, const void *from, enum gr_dtype dtype, int64_t count);
/* The way back, into f32, f16 or bf16 elements at any address.  false: another dtype. */
bool gr_narrow(void *to, const float *from, enum gr_dtype dtype, int64_t count);

#endif
