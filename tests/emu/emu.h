/* CUDA's device side on the CPU: what kernels/cuda/ptx.h is under nvcc, with the same names.
 *
 * NVIDIA's own headers give types and prototypes, so these stay honest; what only nvcc knows is
 * here: launches, shared memory, barriers, shuffles, atomics, tensor core instructions.  A bare
 * __shared__ does not compile: GR_SHARED.  Included by kernels/cuda/cuda.h; the emulator itself
 * is emu_*.cpp.
 *
 * Settings: EMU_SEED=n the order of threads, blocks and streams (0: in order); EMU_PREEMPT=n lets
 * another thread run at one in n accesses (checked plug-in only); EMU_EAGER=1 runs what is queued
 * at once, so that a debugger sees the caller; EMU_ABORT=1 aborts at a finding; EMU_MEM_MB,
 * EMU_DEVICES; EMU_CAPABILITY 80 or another of the GPU; EMU_CLOCK=1: events have the host's time,
 * 2: random times by EMU_SEED, else all are 1 ms apart; EMU_PEER_TIMEOUT seconds an operation may
 * wait for another process. */
#ifndef EMU_H
#define EMU_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <functional>
#include <math.h>
#include <memory>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <tuple>
#include <type_traits>

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#undef __shared__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

/* Set whenever a thread begins to run. */
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

/* NVTX: counted (emu_count.h). */
int nvtxRangePushA(const char *name);
int nvtxRangePop();

namespace emu
{

/* Where a kernel calls something that other threads meet in. */
struct place {
    const char *file;
    int line;
};
#define EMU_HERE emu::place here = {__builtin_FILE(), __builtin_LINE()}

enum warp_op {
    SYNC,
    SHUFFLE,
    BALLOT,
    MATCH,
    REDUCE_ADD,
    REDUCE_MAX,
    REDUCE_MIN,
    REDUCE_AND,
    REDUCE_OR,
    LDMATRIX,
    LDMATRIX_TRANSPOSED,
    MMA
};

extern bool checking; /* the code was compiled so that every access is reported */

[[noreturn]] void fail(const char *kind, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void sync_threads(place at);
/* All lanes of the mask meet: up to 48 bytes from each, up to 32 to each.  parameter: the source
 * lane, or the number of matrices. */
void meet(warp_op op, unsigned mask, const void *in, int in_bytes, void *out, int out_bytes,
          int parameter, place at);
int lane();

size_t reserve_shared(size_t bytes, size_t alignment); /* once for a variable */
void *shared_at(size_t handle);                        /* this block's; fresh when the block is */
void *dynamic_shared();

void copy_async(void *shared, const void *global, int bytes, place at);
void commit_copies();
void wait_for_copies(int pending);

/* Accesses that the compiler does not report: atomics, and those of library calls. */
void atomic_access(const void *p, size_t bytes);
void *copy_bytes(void *to, const void *from, size_t bytes);
void *move_bytes(void *to, const void *from, size_t bytes);
void *set_bytes(void *to, int value, size_t bytes);

struct launch_of {
    const char *name;
    const void *function;
    dim3 grid, block;
    size_t shared_bytes, shared_limit; /* dynamic; with the static ones */
    std::shared_ptr<void> arguments;   /* a copy */
    size_t argument_bytes;
    void (*run)(const void *arguments);
};
cudaError_t queue_launch(launch_of &&launch, cudaStream_t stream, const void *const *pointers,
                         int pointer_count);

template <class T> const void *pointer_of(const T &value)
{
    if constexpr (std::is_pointer_v<T>)
        return (const void *)value;
    else
        return nullptr;
}

/* A kernel with the arguments it will be given: the tuple comes first, to be found by `run`. */
template <class... P> struct bound_kernel {
    std::tuple<P...> arguments;
    void (*function)(P...);
    static void run(const void *self)
    {
        const bound_kernel *k = (const bound_kernel *)self;

        std::apply(k->function, k->arguments);
    }
};

/* Inlined, so that a report names the line that launches. */
template <class... P, class... A>
__attribute__((always_inline)) inline cudaError_t launch(const char *name, void (*function)(P...),
                                                         dim3 grid, dim3 block, size_t shared_bytes,
                                                         cudaStream_t stream, A &&...given)
{
    static_assert(sizeof...(P) == sizeof...(A), "a kernel takes another number of arguments");
    typedef bound_kernel<P...> bound;
    auto kernel = std::make_shared<bound>(bound{{static_cast<P>(given)...}, function});
    const void *pointers[sizeof...(P) + 1] = {};
    int count = 0;

    std::apply([&](auto &...value) { ((pointers[count++] = pointer_of(value)), ...); },
               kernel->arguments);
    return queue_launch({name, (const void *)function, grid, block, shared_bytes, 0, kernel,
                         sizeof(bound), bound::run},
                        stream, pointers, count);
}

template <class T> T shuffle(unsigned mask, T value, int source, place here)
{
    static_assert(sizeof(T) <= 8, "a shuffle has at most 8 bytes");
    T result = value;

    meet(SHUFFLE, mask, &value, sizeof value, (void *)&result, sizeof result, source, here);
    return result;
}

template <class T> T reduce(warp_op op, unsigned mask, T value, place here)
{
    T result;

    meet(op, mask, &value, sizeof value, &result, sizeof result, std::is_signed_v<T>, here);
    return result;
}

} // namespace emu

#define GR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    emu::launch(#kernel, kernel, (grid), (block), (shared_bytes), (stream), __VA_ARGS__)

#define GR_SHARED(type, name, dimensions)                                                          \
    typedef type name##_type dimensions;                                                           \
    static const size_t name##_handle = emu::reserve_shared(sizeof(name##_type), alignof(type));   \
    name##_type &name = *reinterpret_cast<name##_type *>(emu::shared_at(name##_handle))

#define GR_DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(emu::dynamic_shared())

template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute,
                                        int value)
{
    return cudaFuncSetAttribute((const void *)kernel, attribute, value);
}

/* ---- barriers and warps ---- */

inline void __syncthreads(EMU_HERE)
{
    emu::sync_threads(here);
}

inline void __syncwarp(unsigned mask = ~0u, EMU_HERE)
{
    emu::meet(emu::SYNC, mask, nullptr, 0, nullptr, 0, 0, here);
}

inline void __threadfence()
{
}

inline void __threadfence_block()
{
}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_HERE)
{
    const int segment = emu::lane() & ~(width - 1);

    return emu::shuffle(mask, value, segment | (source & (width - 1)), here);
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_HERE)
{
    const int me = emu::lane(), source = me ^ bits, end = (me & ~(width - 1)) + width;

    return emu::shuffle(mask, value, source >= end ? me : source, here);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_HERE)
{
    const int me = emu::lane(), source = me + (int)delta, end = (me & ~(width - 1)) + width;

    return emu::shuffle(mask, value, source >= end ? me : source, here);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_HERE)
{
    const int me = emu::lane(), source = me - (int)delta;

    return emu::shuffle(mask, value, source < (me & ~(width - 1)) ? me : source, here);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_HERE)
{
    return emu::reduce(emu::BALLOT, mask, (unsigned)(predicate != 0), here);
}

inline int __any_sync(unsigned mask, int predicate, EMU_HERE)
{
    return __ballot_sync(mask, predicate, here) != 0;
}

inline int __all_sync(unsigned mask, int predicate, EMU_HERE)
{
    return __ballot_sync(mask, predicate, here) == mask;
}

inline unsigned __match_any_sync(unsigned mask, unsigned value, EMU_HERE)
{
    return emu::reduce(emu::MATCH, mask, value, here);
}

#define EMU_REDUCE(name, op, type)                                                                 \
    inline type name(unsigned mask, type value, EMU_HERE)                                          \
    {                                                                                              \
        return emu::reduce(emu::op, mask, value, here);                                            \
    }
EMU_REDUCE(__reduce_add_sync, REDUCE_ADD, unsigned)
EMU_REDUCE(__reduce_add_sync, REDUCE_ADD, int)
EMU_REDUCE(__reduce_max_sync, REDUCE_MAX, unsigned)
EMU_REDUCE(__reduce_max_sync, REDUCE_MAX, int)
EMU_REDUCE(__reduce_min_sync, REDUCE_MIN, unsigned)
EMU_REDUCE(__reduce_min_sync, REDUCE_MIN, int)
EMU_REDUCE(__reduce_and_sync, REDUCE_AND, unsigned)
EMU_REDUCE(__reduce_or_sync, REDUCE_OR, unsigned)
#undef EMU_REDUCE

/* ---- atomics ---- */

#define EMU_ATOMIC(name, type, result)                                                             \
    __attribute__((no_sanitize("thread"))) inline type name(type *p, type v)                       \
    {                                                                                              \
        emu::atomic_access(p, sizeof *p);                                                          \
        type old = *p;                                                                             \
        *p = (result);                                                                             \
        return old;                                                                                \
    }
EMU_ATOMIC(atomicAdd, float, old + v)
EMU_ATOMIC(atomicAdd, double, old + v)
EMU_ATOMIC(atomicAdd, int, old + v)
EMU_ATOMIC(atomicAdd, unsigned, old + v)
EMU_ATOMIC(atomicAdd, unsigned long long, old + v)
EMU_ATOMIC(atomicMax, int, old > v ? old : v)
EMU_ATOMIC(atomicMax, unsigned, old > v ? old : v)
EMU_ATOMIC(atomicMin, int, old < v ? old : v)
EMU_ATOMIC(atomicMin, unsigned, old < v ? old : v)
EMU_ATOMIC(atomicOr, int, old | v)
EMU_ATOMIC(atomicOr, unsigned, old | v)
EMU_ATOMIC(atomicAnd, unsigned, old &v)
EMU_ATOMIC(atomicExch, int, v)
EMU_ATOMIC(atomicExch, unsigned, v)
EMU_ATOMIC(atomicExch, float, v)
#undef EMU_ATOMIC

template <class T>
__attribute__((no_sanitize("thread"))) inline T atomicCAS(T *p, T expected, T desired)
{
    emu::atomic_access(p, sizeof *p);
    T old = *p;
    if (old == expected)
        *p = desired;
    return old;
}

/* ---- loads and stores with a hint ---- */

template <class T> inline T __ldg(const T *p)
{
    return *p;
}

template <class T> inline T __ldcs(const T *p)
{
    return *p;
}

template <class T> inline T __ldcg(const T *p)
{
    return *p;
}

template <class T> inline void __stcs(T *p, T value)
{
    *p = value;
}

template <class T> inline void __stwb(T *p, T value)
{
    *p = value;
}

template <class T> inline void __stcg(T *p, T value)
{
    *p = value;
}

#include "emu_math.h"

/* ---- tensor cores and asynchronous copies: the names of ptx.h ---- */

inline void gr_ldmatrix_x4(unsigned (&r)[4], const void *row, EMU_HERE)
{
    emu::meet(emu::LDMATRIX, ~0u, &row, sizeof row, r, sizeof r, 4, here);
}

inline void gr_ldmatrix_x4_transposed(unsigned (&r)[4], const void *row, EMU_HERE)
{
    emu::meet(emu::LDMATRIX_TRANSPOSED, ~0u, &row, sizeof row, r, sizeof r, 4, here);
}

inline void gr_ldmatrix_x2(unsigned (&r)[2], const void *row, EMU_HERE)
{
    emu::meet(emu::LDMATRIX, ~0u, &row, sizeof row, r, sizeof r, 2, here);
}

inline void gr_ldmatrix_x2_transposed(unsigned (&r)[2], const void *row, EMU_HERE)
{
    emu::meet(emu::LDMATRIX_TRANSPOSED, ~0u, &row, sizeof row, r, sizeof r, 2, here);
}

inline void gr_mma_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, EMU_HERE)
{
    unsigned in[10] = {a[0], a[1], a[2], a[3], b0, b1};

    __builtin_memcpy(in + 6, d, sizeof d);
    emu::meet(emu::MMA, ~0u, in, sizeof in, d, sizeof d, 0, here);
}

inline float gr_exp2(float x)
{
    return exp2f(x);
}

inline void gr_cp_async16(void *shared, const void *global, int bytes = 16, EMU_HERE)
{
    emu::copy_async(shared, global, bytes, here);
}

inline void gr_cp_async_commit()
{
    emu::commit_copies();
}

template <int pending> inline void gr_cp_async_wait()
{
    emu::wait_for_copies(pending);
}

/* The compiler reports no access of these; last, so that no header above is meant. */
#ifndef EMU_INTERNAL_H
#define memcpy(to, from, bytes)  emu::copy_bytes((to), (from), (bytes))
#define memmove(to, from, bytes) emu::move_bytes((to), (from), (bytes))
#define memset(to, value, bytes) emu::set_bytes((to), (value), (bytes))
#endif

#endif
