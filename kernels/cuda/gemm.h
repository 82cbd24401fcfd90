/* Matrix products of the CUDA backend, by cuBLASLt. */
#ifndef GR_CUDA_GEMM_H
#define GR_CUDA_GEMM_H

#include "kernels/cuda/cuda.h"

/* c <- alpha op(a) op(b) + beta source, all row-major and 2-D with any stride.
 *   c (m, n) bf16 or f32   a (m, k), or (k, m) and transposed   b (k, n), or (n, k) and transposed
 *   a and b bf16 (or both f32 where c is);  source as c, may be c; not read when beta is 0
 * Accumulates in f32, rounds c once.  m or n of 0: nothing is done; k >= 1. */
struct gr_cuda_product {
    gr_tensor c, a, b, source;
    bool a_is_transposed, b_is_transposed;
    float alpha, beta;
};
void gr_cuda_gemm(struct gr_device *dev, const char *op, const struct gr_cuda_product *product);

/* Chooses what will compute such a product, so that its first call need not, unless that is known;
 * nothing is queued but what is timed.  c is overwritten by that unless it is the source.  Nothing
 * where the device's choices are settled (device.h). */
bool gr_cuda_gemm_is_known(struct gr_device *dev, const struct gr_cuda_product *product);
void gr_cuda_gemm_prepare(struct gr_device *dev, const char *op,
                          const struct gr_cuda_product *product);

/* Workspace of cuBLASLt, and how many different products are remembered with their algorithms. */
enum { GR_CUDA_BLAS_WORKSPACE = 32 << 20, GR_CUDA_PLANS = 512 };

/* The remembered products of a device; gr_cuda_gemm_open makes it, with its workspace. */
struct gr_cuda_plans;
cudaError_t gr_cuda_gemm_open(struct gr_cuda *c);
void gr_cuda_gemm_close(struct gr_cuda *c);

#endif
