/* The two passes of a softmax over one row, for the files of kernels/cpu; rows.h has the lanes. */
#ifndef GR_CPU_SOFTMAX_H
#define GR_CPU_SOFTMAX_H

#include "kernels/cpu/expf.h"
#include "kernels/cpu/rows.h"

/* The largest element; NaN is passed over (the sum of the exponentials has it). */
static inline float gr_largest_f32(const float *x, int64_t n)
{
    enum { LANES = 4 * GR_LANES }; /* a comparison waits for the one before it in its lane */
    float lane[LANES], most = -INFINITY;
    int64_t i = 0;

    for (int j = 0; j < LANES; j++)
        lane[j] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (int j = 0; j < LANES; j++)
        most = lane[j] > most ? lane[j] : most;
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

/* x <- exp(x - shift); returns the sum. */
static inline double gr_exponentials_f32(float *x, float shift, int64_t n)
{
    double lane[GR_LANES] = {0};
    int64_t i = 0;

    for (; i + GR_LANES <= n; i += GR_LANES)
        for (int j = 0; j < GR_LANES; j++) {
            x[i + j] = gr_expf(x[i + j] - shift);
            lane[j] += (double)x[i + j];
        }
    for (int j = 0; i + j < n; j++) {
        x[i + j] = gr_expf(x[i + j] - shift);
        lane[j] += (double)x[i + j];
    }
    return gr_lanes_sum(lane);
}

#endif
