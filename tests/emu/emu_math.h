/* Functions of CUDA's device side that glibc does not have.  Included by emu.h alone.
 *
 * The fast ones (__expf) are the exact ones here: a GPU's differ in the last bits. */
#ifndef EMU_MATH_H
#define EMU_MATH_H

/* glibc declares these with C linkage, so they are macros */
#define __expf(x)    expf(x)
#define __exp10f(x)  exp10f(x)
#define __logf(x)    logf(x)
#define __log2f(x)   log2f(x)
#define __sinf(x)    sinf(x)
#define __cosf(x)    cosf(x)
#define __powf(x, y) powf(x, y)

inline float __fdividef(float a, float b)
{
    return a / b;
}

inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

inline double rsqrt(double x)
{
    return 1.0 / sqrt(x);
}

inline float __frsqrt_rn(float x)
{
    return (float)(1.0 / sqrt((double)x));
}

inline float __frcp_rn(float x)
{
    return 1.0f / x;
}

inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}

inline float __fadd_rn(float a, float b)
{
    return a + b;
}

inline float __fsub_rn(float a, float b)
{
    return a - b;
}

inline float __fmul_rn(float a, float b)
{
    return a * b;
}

inline float __fdiv_rn(float a, float b)
{
    return a / b;
}

inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

inline double __dadd_rn(double a, double b)
{
    return a + b;
}

inline double __dmul_rn(double a, double b)
{
    return a * b;
}

inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}

inline float __saturatef(float x)
{
    return fminf(fmaxf(x, 0.0f), 1.0f);
}

inline float __double2float_rn(double x)
{
    return (float)x;
}

inline int __float2int_rn(float x)
{
    return (int)rintf(x);
}

inline float __int2float_rn(int x)
{
    return (float)x;
}

inline float __uint2float_rn(unsigned x)
{
    return (float)x;
}

inline unsigned __float_as_uint(float x)
{
    unsigned bits;

    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits)
{
    float x;

    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

inline int __float_as_int(float x)
{
    return (int)__float_as_uint(x);
}

inline float __int_as_float(int bits)
{
    return __uint_as_float((unsigned)bits);
}

inline long long __double_as_longlong(double x)
{
    long long bits;

    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline double __longlong_as_double(long long bits)
{
    double x;

    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((unsigned long long)a * b >> 32);
}

inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}

inline int __ffs(int bits)
{
    return __builtin_ffs(bits);
}

inline int __clz(int bits)
{
    return bits != 0 ? __builtin_clz((unsigned)bits) : 32;
}

/* a * b + c with one rounding: the host's cuda_bf16.h has it not */
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c)
{
    float2 x = __bfloat1622float2(a), y = __bfloat1622float2(b), z = __bfloat1622float2(c);

    return __floats2bfloat162_rn(fmaf(x.x, y.x, z.x), fmaf(x.y, y.y, z.y));
}

/* CUDA's min and max, of one type or of the mixtures it allows */
template <class T> inline T min(T a, T b)
{
    return b < a ? b : a;
}

template <class T> inline T max(T a, T b)
{
    return a < b ? b : a;
}

#define EMU_MIN_MAX(left, right, common)                                                           \
    inline common min(left a, right b)                                                             \
    {                                                                                              \
        return min((common)a, (common)b);                                                          \
    }                                                                                              \
    inline common max(left a, right b)                                                             \
    {                                                                                              \
        return max((common)a, (common)b);                                                          \
    }
EMU_MIN_MAX(int, unsigned, unsigned)
EMU_MIN_MAX(unsigned, int, unsigned)
EMU_MIN_MAX(float, double, double)
EMU_MIN_MAX(double, float, double)
#undef EMU_MIN_MAX

#define __trap() emu::fail("trap", "__trap() at %s:%d", __FILE__, __LINE__)

#endif
