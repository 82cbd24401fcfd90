/* Twins of the ops on flat buffers: sums and AdamW.  See ref.h. */
#include "tests/ref/ref.h"

#include <math.h>

double ref_sum(const double *x, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

double ref_sum_squares(const double *x, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

void ref_adamw(double *param, double *moment1, double *moment2, const double *grad, int64_t n,
               const struct ref_adamw *a)
{
    double correction1 = 1 - pow(a->beta1, (double)a->step);
    double correction2 = 1 - pow(a->beta2, (double)a->step);

    for (int64_t i = 0; i < n; i++) {
        moment1[i] = a->beta1 * moment1[i] + (1 - a->beta1) * grad[i];
        moment2[i] = a->beta2 * moment2[i] + (1 - a->beta2) * grad[i] * grad[i];
        param[i] *= 1 - a->learning_rate * a->weight_decay;
        param[i] -= a->learning_rate * (moment1[i] / correction1) /
                    (sqrt(moment2[i] / correction2) + a->eps);
    }
}
