/* Vectors of the instruction set a file is compiled for, for the files of kernels/cpu that multiply
 * matrices.  A multiply-add is one rounding where the CPU has one (v3, v4) and two elsewhere. */
#ifndef GR_CPU_VECTOR_H
#define GR_CPU_VECTOR_H

#include "kernels/base/widen.h"

#include <stdbool.h>
#include <stdint.h>

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 gr_vector;
enum { GR_VECTOR = 16 /* floats */, GR_KERNEL_ROWS = 8 /* of c, held in registers */ };
#define GR_VECTOR_OP(name) _mm512_##name
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256 gr_vector;
enum { GR_VECTOR = 8, GR_KERNEL_ROWS = 4 };
#define GR_VECTOR_OP(name) _mm256_##name
#else
typedef float gr_vector __attribute__((vector_size(16)));
enum { GR_VECTOR = 4, GR_KERNEL_ROWS = 4 };
#endif

/* Whether this instruction set multiplies pairs of bf16. */
#if defined(__AVX512BF16__)
enum { GR_HAS_PAIRS = 1 };
#else
enum { GR_HAS_PAIRS = 0 };
#endif

/* Whether it multiplies them by tiles, 16 rows of 16 words. */
enum { GR_TILE_SIDE = 16 };
#if defined(__AMX_BF16__)
enum { GR_HAS_TILES = 1 };
#else
enum { GR_HAS_TILES = 0 };
#endif

#ifdef GR_VECTOR_OP
static inline gr_vector gr_vector_load(const void *from)
{
    return GR_VECTOR_OP(loadu_ps)((const float *)from);
}

static inline void gr_vector_store(float *to, gr_vector x)
{
    GR_VECTOR_OP(storeu_ps)(to, x);
}

static inline gr_vector gr_vector_all(float x)
{
    return GR_VECTOR_OP(set1_ps)(x);
}

/* a b + c */
static inline gr_vector gr_vector_multiply_add(gr_vector a, gr_vector b, gr_vector c)
{
    return GR_VECTOR_OP(fmadd_ps)(a, b, c);
}
#else
static inline gr_vector gr_vector_load(const void *from)
{
    gr_vector x;

    __builtin_memcpy(&x, from, sizeof x);
    return x;
}

static inline void gr_vector_store(float *to, gr_vector x)
{
    __builtin_memcpy(to, &x, sizeof x);
}

static inline gr_vector gr_vector_all(float x)
{
    return (gr_vector){x, x, x, x};
}

static inline gr_vector gr_vector_multiply_add(gr_vector a, gr_vector b, gr_vector c)
{
    return a * b + c;
}
#endif

/* to[0..16) <- from as bf16, to the nearest, ties to even (what is below 2^-126 may become 0) */
static inline void gr_round_16(uint16_t *to, const float *from)
{
#if defined(__AVX512BF16__)
    __m256bh x = _mm512_cvtneps_pbh(_mm512_loadu_ps(from));

    __builtin_memcpy(to, &x, sizeof x);
#else
    for (int i = 0; i < 16; i++)
        to[i] = gr_float_to_bf16(from[i]);
#endif
}

/* c + a0 b0 + a1 b1 per lane, where a word is a pair of bf16: the even element in its low half. */
static inline gr_vector gr_vector_multiply_add_pairs(uint32_t a, gr_vector b, gr_vector c)
{
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_set1_epi32((int)a),
                            (__m512bh)_mm512_castps_si512(b));
#else
    (void)a;
    (void)b;
    return c;
#endif
}

#endif
