/* What the row-wise ops of the CPU backend share: addresses of rows, and sums in a fixed order.
 * A sum runs in 16 lanes, element i in lane i % 16, which are added as a tree at the end: the
 * order is the source's, so every vector width and any number of threads give the same bits. */
#ifndef GR_CPU_ROWS_H
#define GR_CPU_ROWS_H

#include "kernels/sum_order.h"
#include "kernels/tensor.h"

static inline float *gr_row_f32(gr_tensor t, int64_t row)
{
    return (float *)t.data + row * t.stride;
}

static inline double gr_lanes_sum(const double lane[GR_LANES])
{
    double sum[GR_LANES];

    for (int j = 0; j < GR_LANES; j++)
        sum[j] = lane[j];
    for (int width = GR_LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            sum[j] += sum[j + width];
    return sum[0];
}

/* lane += x^2, from lane 0 on; the squares are exact in f64. */
static inline void gr_lanes_add_squares(double lane[GR_LANES], const float *x, int64_t n)
{
    int64_t i = 0;

    for (; i + GR_LANES <= n; i += GR_LANES)
        for (int j = 0; j < GR_LANES; j++)
            lane[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; i + j < n; j++)
        lane[j] += (double)x[i + j] * (double)x[i + j];
}

static inline double gr_sum_squares_f32(const float *x, int64_t n)
{
    double lane[GR_LANES] = {0};

    gr_lanes_add_squares(lane, x, n);
    return gr_lanes_sum(lane);
}

#endif
