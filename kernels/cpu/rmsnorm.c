/* RMSNorm over the last dimension: whole rows (N, C) or each head (N, H, HD). */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

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
static void normalise(float *y, const float *x, const float *w, float rstd, int64_t width)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        y[i] = x[i] * rstd * w[i];
}

void GR_CPU(rmsnorm_forward)(struct gr_device *dev, gr_tensor y, gr_tensor rstd, gr_tensor x,
                             gr_tensor w, double eps)
{
    struct shape s = shape_of(x);

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < s.n; n++)
        for (int64_t h = 0; h < s.heads; h++) {
            const float *x_row = gr_row_f32(x, n) + h * s.width;
            double mean = gr_sum_squares_f32(x_row, s.width) / (double)s.width;
            float r = (float)(1.0 / sqrt(mean + eps));

            gr_row_f32(rstd, n)[h] = r;
            normalise(gr_row_f32(y, n) + h * s.width, x_row, w.data, r, s.width);
        }
}

/* sum of w * dy * x */
static double sum_products(const float *w, const float *dy, const float *x, int64_t width)
{
    double lane[GR_LANES] = {0};
    int64_t i = 0;

    for (; i + GR_LANES <= width; i += GR_LANES)
        for (int j = 0; j < GR_LANES; j++)
            lane[j] += (double)w[i + j] * (double)dy[i + j] * (double)x[i + j];
    for (int j = 0; i + j < width; j++)
        lane[j] += (double)w[i + j] * (double)dy[i + j] * (double)x[i + j];
    return gr_lanes_sum(lane);
}

struct row {
    float *dx;
    const float *dy, *x, *w;
    float rstd;
    int64_t width;
};

/* dx <- or += rstd * (w*dy - xhat * mean(w*dy*xhat)) */
static void backward_row(const struct row *r, enum gr_write write)
{
    double mean = sum_products(r->w, r->dy, r->x, r->width) * (double)r->rstd / (double)r->width;
    float rstd = r->rstd, xhat_mean = (float)mean;
    float *dx = r->dx;
    const float *dy = r->dy, *x = r->x, *w = r->w;

    if (write == GR_ACCUMULATE) {
#pragma omp simd
        for (int64_t i = 0; i < r->width; i++)
            dx[i] += rstd * (w[i] * dy[i] - x[i] * rstd * xhat_mean);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < r->width; i++)
            dx[i] = rstd * (w[i] * dy[i] - x[i] * rstd * xhat_mean);
    }
}

void GR_CPU(rmsnorm_backward)(struct gr_device *dev, gr_tensor dx, enum gr_write write,
                              gr_tensor dy, gr_tensor x, gr_tensor w, gr_tensor rstd)
{
    struct shape s = shape_of(x);

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < s.n; n++)
        for (int64_t h = 0; h < s.heads; h++) {
            int64_t at = h * s.width;
            struct row row = {.dx = gr_row_f32(dx, n) + at,
                              .dy = gr_row_f32(dy, n) + at,
                              .x = gr_row_f32(x, n) + at,
                              .w = w.data,
                              .rstd = gr_row_f32(rstd, n)[h],
                              .width = s.width};

            backward_row(&row, write);
        }
}
