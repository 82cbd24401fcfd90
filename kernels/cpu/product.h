/* Matrix products whose operands may be bf16: widened piece by piece along the inner dimension and
 * multiplied in f32, which is exact for each pair of elements.  (oneDNN below AVX-512 has no bf16
 * product, and without AMX its f32 one is faster.)  The pieces depend on the sizes alone. */
#ifndef GR_CPU_PRODUCT_H
#define GR_CPU_PRODUCT_H

#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"

/* Room for the pieces: an operand's rows or columns beside the inner dimension are at most so many.
 * It is not used where both operands are f32. */
enum { GR_PIECE_FLOATS = 64 * 1024 };
struct gr_pieces {
    float *a, *b; /* [GR_PIECE_FLOATS] each */
};

/* c (f32) <- alpha * op(a) op(b) + beta * c, as in matmul.h */
void GR_CPU(product_nn)(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta,
                        struct gr_pieces pieces); /* a  b  */
void GR_CPU(product_nt)(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta,
                        struct gr_pieces pieces); /* a  bT */
void GR_CPU(product_tn)(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta,
                        struct gr_pieces pieces); /* aT b  */

#endif
