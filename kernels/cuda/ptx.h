/* CUDA as nvcc has it, and the instructions of it that C++ cannot say.  emu.h has the same names.
 */
#ifndef GR_CUDA_PTX_H
#define GR_CUDA_PTX_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

/* An expression: the error of the launch. */
/* clang-format off */
#define GR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    ((kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__), cudaPeekAtLastError())
/* clang-format on */

/* GR_SHARED(float, sums, [32]); */
#define GR_SHARED(type, name, dimensions) __shared__ type name dimensions

/* The memory that the launch asked for, 16-byte aligned; once in a kernel. */
#define GR_DYNAMIC_SHARED(type, name)                                                              \
    extern __shared__ __align__(16) unsigned char gr_dynamic_shared[];                             \
    type *name = reinterpret_cast<type *>(gr_dynamic_shared)

static __device__ __forceinline__ unsigned gr_shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

/* Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8. */
static __device__ __forceinline__ void gr_ldmatrix_x4(unsigned (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(gr_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void gr_ldmatrix_x4_transposed(unsigned (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(gr_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void gr_ldmatrix_x2(unsigned (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(gr_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void gr_ldmatrix_x2_transposed(unsigned (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(gr_shared_address(row))
                 : "memory");
}

/* d (16, 8) f32 += a (16, 16) b (16, 8), bf16, in the fragments of the PTX ISA. */
static __device__ __forceinline__ void gr_mma_bf16(float (&d)[4], const unsigned (&a)[4],
                                                   unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 2^x as the hardware has it: to 2 units in the last place, 0 below 2^-126; 2^-inf is 0. */
static __device__ __forceinline__ float gr_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 bytes on their way into shared memory; those past `bytes` become zero. */
static __device__ __forceinline__ void gr_cp_async16(void *shared, const void *global,
                                                     int bytes = 16)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gr_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void gr_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most `pending` of the groups are on their way. */
template <int pending> static __device__ __forceinline__ void gr_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#endif
