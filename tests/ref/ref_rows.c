/* Twins of the row-wise ops: embedding, RMSNorm, RoPE, SwiGLU.  See ref.h. */
#include "tests/ref/ref.h"

#include <math.h>

void ref_embedding_forward(double *y, const double *table, const int32_t *ids, int64_t n, int64_t c)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < c; j++)
            y[i * c + j] = ids[i] < 0 ? 0 : table[ids[i] * c + j];
}

static double rstd_of(const double *x, double eps, int64_t width)
{
    double sum = 0;

    for (int64_t j = 0; j < width; j++)
        sum += x[j] * x[j];
    return 1 / sqrt(sum / (double)width + eps);
}

void ref_rmsnorm_forward(double *y, double *rstd, const double *x, const double *w, double eps,
                         int64_t rows, int64_t width)
{
    for (int64_t i = 0; i < rows; i++) {
        rstd[i] = rstd_of(x + i * width, eps, width);
        for (int64_t j = 0; j < width; j++)
            y[i * width + j] = x[i * width + j] * rstd[i] * w[j];
    }
}

/* dx_j = rstd * (w_j dy_j - xhat_j * mean_k(w_k dy_k xhat_k)) */
void ref_rmsnorm_backward(double *dx, const double *dy, const double *x, const double *w,
                          double eps, int64_t rows, int64_t width)
{
    for (int64_t i = 0; i < rows; i++) {
        const double *x_row = x + i * width, *dy_row = dy + i * width;
        double rstd = rstd_of(x_row, eps, width);
        double mean = 0;

        for (int64_t j = 0; j < width; j++)
            mean += w[j] * dy_row[j] * x_row[j] * rstd / (double)width;
        for (int64_t j = 0; j < width; j++)
            dx[i * width + j] = rstd * (w[j] * dy_row[j] - x_row[j] * rstd * mean);
    }
}

void ref_rope(double *x, const double *cos, const double *sin, const int32_t *positions,
              int direction, int64_t n, int64_t heads, int64_t head_dim)
{
    int64_t half = head_dim / 2;

    for (int64_t i = 0; i < n; i++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t j = 0; j < half; j++) {
                double *a = x + (i * heads + h) * head_dim + j, *b = a + half;
                double c = cos[positions[i] * half + j];
                double s = sin[positions[i] * half + j] * direction;
                double a_old = *a;

                *a = a_old * c - *b * s;
                *b = *b * c + a_old * s;
            }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

void ref_swiglu_forward(double *h, const double *gate, const double *up, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        h[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

void ref_swiglu_backward(double *dgate, double *dup, const double *dh, const double *gate,
                         const double *up, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        double s = sigmoid(gate[i]);
        double slope = s + gate[i] * s * (1 - s);
        double d = dh[i], u = up[i];

        dup[i] = d * gate[i] * s;
        dgate[i] = d * u * slope;
    }
}
