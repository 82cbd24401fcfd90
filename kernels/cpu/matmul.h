/* Matrix products on the calling thread: the only door to oneDNN.
 *
 * Row-major f32 matrices as 2-D tensors whose stride may be larger than a row.  oneDNN's bits
 * depend on how many threads one call may use, so a call here always uses one; parallelism is the
 * caller's, who cuts the work into tiles that do not depend on the number of threads. */
#ifndef GR_CPU_MATMUL_H
#define GR_CPU_MATMUL_H

#include "kernels/tensor.h"

/* c <- alpha * op(a) op(b) + beta * c.  Sizes that do not fit are a bug.  beta 0 does not read c,
 * and an inner size of 0 makes the product 0. */
void gr_cpu_matmul_nn(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta); /* a  b  */
void gr_cpu_matmul_nt(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta); /* a  bT */
void gr_cpu_matmul_tn(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta); /* aT b  */

/* Keeps oneDNN to the instruction set of a device ("v3": AVX2), so that a forced v3 has the bits of
 * a CPU that knows no more.  Has an effect only before the first product of the process. */
void gr_cpu_matmul_limit_isa(const char *isa);

/* "oneDNN 2.6.3": the library that is loaded. */
const char *gr_cpu_matmul_library(void);

#endif
