/* The arithmetic of the double of cuBLASLt, apart from its rules. */
#ifndef EMU_BLAS_PRODUCT_H
#define EMU_BLAS_PRODUCT_H

#include <stdint.h>

namespace emu
{

/* Elements of bf16 or f32; element (i, j) is i row_steps and j column_steps away. */
struct matrix {
    const char *data;
    bool is_bf16;
    int64_t row_step, column_step;
};

struct shape {
    int64_t rows, columns, depth;
};

/* sums (columns, rows) <- a (rows, depth) b (depth, columns), in f32.  Each sum is taken in the
 * order of k, from k = first on, and round. */
void multiply(float *sums, const matrix &a, const matrix &b, const shape &shape, int64_t first);

/* d (rows, columns) <- alpha sums + beta c, rounded once; c is not read when beta is 0. */
void add_scaled(const matrix &d, const float *sums, const matrix &c, float alpha, float beta,
                int64_t rows, int64_t columns);

} // namespace emu

#endif
