/* Naive twins of the ops in f64: what the tests of every backend compare with.  Plain gapless
 * arrays in row order, no blocking, no threads; outputs first.  Letters as in kernels/ops.h.
 * test_ref.c checks the backwards against central differences of the forwards. */
#ifndef GR_TESTS_REF_H
#define GR_TESTS_REF_H

#include <stdint.h>

/* y (n, c) <- table (., c) [ids (n)]; id -1: zeros */
void ref_embedding_forward(double *y, const double *table, const int32_t *ids, int64_t n,
                           int64_t c);

/* y, x (rows, width); rstd (rows); w (width) */
void ref_rmsnorm_forward(double *y, double *rstd, const double *x, const double *w, double eps,
                         int64_t rows, int64_t width);
/* dx <- */
void ref_rmsnorm_backward(double *dx, const double *dy, const double *x, const double *w,
                          double eps, int64_t rows, int64_t width);

/* x (n, heads, head_dim) in place; cos, sin (., head_dim/2); positions (n) */
void ref_rope(double *x, const double *cos, const double *sin, const int32_t *positions,
              int direction, int64_t n, int64_t heads, int64_t head_dim);

void ref_swiglu_forward(double *h, const double *gate, const double *up, int64_t count);
void ref_swiglu_backward(double *dgate, double *dup, const double *dh, const double *gate,
                         const double *up, int64_t count);

double ref_sum(const double *x, int64_t n);
double ref_sum_squares(const double *x, int64_t n);

struct ref_adamw {
    double learning_rate, weight_decay, beta1, beta2, eps;
    int64_t step;
};
void ref_adamw(double *param, double *moment1, double *moment2, const double *grad, int64_t n,
               const struct ref_adamw *a);

#endif
