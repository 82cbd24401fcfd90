/* RMSNorm over the last dimension: whole rows (N, C) or each head (N, H, HD). */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

#include <math.h>

/* Both forms as (N, H, width), H = 1 for whole rows. */
struct shape {
    int64_t n, heads, width;
};

static struct shape shape_of(gr_tensor x)
{
    return x.ndim == 3 ? (struct shape){x.dim[0], x.dim[1], x.dim[2]}
                       : (struct shape){x.dim[0], 1, x.dim[1]};
}

/* y <- x * rstd * w */
static inline __attribute__((always_inline)) void scale_row(void *y, const void *x, const void *w,
                                                            float rstd, int64_t width,
                                                            const enum gr_dtype dtype)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        gr_put(y, i, gr_get(x, i, dtype) * rstd * gr_get(w, i, dtype), dtype);
}

/* rstd <- 1 / sqrt(mean(x^2) + eps);  y <- x * rstd * w */
GR_ROWS forward_row(void *y, float *rstd, const void *x, const void *w, int64_t width, double eps,
                    const enum gr_dtype dtype)
{
    double lane[GR_LANES] = {0};

    for (int64_t i = 0; i < width; i += GR_RUN) {
        int64_t count = gr_smaller(GR_RUN, width - i);
        float scratch[GR_RUN];

        gr_lanes_add_squares(lane, gr_get_run(x, i, count, scratch, dtype), count);
    }
    *rstd = (float)(1.0 / sqrt(gr_lanes_sum(lane) / (double)width + eps));
    scale_row(y, x, w, *rstd, width, dtype);
}

void GR_CPU(rmsnorm_forward)(struct gr_device *dev, gr_tensor y, gr_tensor rstd, gr_tensor x,
                             gr_tensor w, double eps)
{
    struct shape s = shape_of(x);

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < s.n; n++)
        for (int64_t h = 0; h < s.heads; h++)
            GR_ROWS_OF(x.dtype, forward_row, gr_element(y, n, h * s.width), gr_row_f32(rstd, n) + h,
                       gr_element(x, n, h * s.width), w.data, s.width, eps);
}

/* sum of w * dy * x */
static inline __attribute__((always_inline)) double
sum_products(const void *w, const void *dy, const void *x, int64_t width, const enum gr_dtype dtype)
{
    double lane[GR_LANES] = {0};

    for (int64_t begin = 0; begin < width; begin += GR_RUN) {
        int64_t count = gr_smaller(GR_RUN, width - begin), i = 0;
        float scratch[3][GR_RUN];
        const float *w_run = gr_get_run(w, begin, count, scratch[0], dtype);
        const float *dy_run = gr_get_run(dy, begin, count, scratch[1], dtype);
        const float *x_run = gr_get_run(x, begin, count, scratch[2], dtype);

        for (; i + GR_LANES <= count; i += GR_LANES)
            for (int j = 0; j < GR_LANES; j++)
                lane[j] += (double)w_run[i + j] * (double)dy_run[i + j] * (double)x_run[i + j];
        for (int j = 0; i + j < count; j++)
            lane[j] += (double)w_run[i + j] * (double)dy_run[i + j] * (double)x_run[i + j];
    }
    return gr_lanes_sum(lane);
}

/* dx <- or += rstd * (w*dy - xhat * mean),  mean = mean(w*dy*xhat);  y (or NULL) <- x * rstd * w */
GR_ROWS backward_row(void *dx, enum gr_write write, void *y, const void *dy, const void *x,
                     const void *w, float rstd, int64_t width, const enum gr_dtype dtype)
{
    double sum = sum_products(w, dy, x, width, dtype);
    float mean = (float)(sum * (double)rstd / (double)width);

    if (write == GR_ACCUMULATE) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++)
            gr_put(dx, i,
                   gr_get(dx, i, dtype) + rstd * (gr_get(w, i, dtype) * gr_get(dy, i, dtype) -
                                                  gr_get(x, i, dtype) * rstd * mean),
                   dtype);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < width; i++)
            gr_put(dx, i,
                   rstd * (gr_get(w, i, dtype) * gr_get(dy, i, dtype) -
                           gr_get(x, i, dtype) * rstd * mean),
                   dtype);
    }
    if (y != NULL)
        scale_row(y, x, w, rstd, width, dtype);
}

void GR_CPU(rmsnorm_backward)(struct gr_device *dev, gr_tensor dx, enum gr_write write, gr_tensor y,
                              gr_tensor dy, gr_tensor x, gr_tensor w, gr_tensor rstd)
{
    struct shape s = shape_of(x);
    bool wants_y = !gr_tensor_is_none(y);

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < s.n; n++)
        for (int64_t h = 0; h < s.heads; h++) {
            int64_t at = h * s.width;

            GR_ROWS_OF(x.dtype, backward_row, gr_element(dx, n, at), write,
                       wants_y ? gr_element(y, n, at) : NULL, gr_element(dy, n, at),
                       gr_element(x, n, at), w.data, gr_row_f32(rstd, n)[h], s.width);
        }
}
