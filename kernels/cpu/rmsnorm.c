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

/* 1 / sqrt(mean(x^2) + eps) over elements [at, at + width) of a row */
static float rstd_of(gr_tensor x, int64_t n, int64_t at, int64_t width, double eps)
{
    double lane[GR_LANES] = {0};
    float scratch[GR_RUN];

    for (int64_t i = 0; i < width; i += GR_RUN) {
        int64_t count = gr_smaller(GR_RUN, width - i);

        gr_lanes_add_squares(lane, gr_load_run(x, n, at + i, count, scratch), count);
    }
    return (float)(1.0 / sqrt(gr_lanes_sum(lane) / (double)width + eps));
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
            int64_t at = h * s.width;
            float r = rstd_of(x, n, at, s.width, eps);

            gr_row_f32(rstd, n)[h] = r;
            for (int64_t i = 0; i < s.width; i += GR_RUN) {
                int64_t count = gr_smaller(GR_RUN, s.width - i);
                float scratch[3][GR_RUN], *run = gr_place_run(y, n, at + i, scratch[0]);

                normalise(run, gr_load_run(x, n, at + i, count, scratch[1]),
                          gr_load_run(w, 0, i, count, scratch[2]), r, count);
                gr_store_run(y, n, at + i, count, run);
            }
        }
}

/* One row's operands; elements [at, at + width) of x, dy and dx. */
struct row {
    gr_tensor dx, dy, x, w;
    int64_t n, at, width;
};

/* sum of w * dy * x */
static double sum_products(const struct row *r)
{
    double lane[GR_LANES] = {0};
    float scratch[3][GR_RUN];

    for (int64_t begin = 0; begin < r->width; begin += GR_RUN) {
        int64_t count = gr_smaller(GR_RUN, r->width - begin), i = 0;
        const float *w = gr_load_run(r->w, 0, begin, count, scratch[0]);
        const float *dy = gr_load_run(r->dy, r->n, r->at + begin, count, scratch[1]);
        const float *x = gr_load_run(r->x, r->n, r->at + begin, count, scratch[2]);

        for (; i + GR_LANES <= count; i += GR_LANES)
            for (int j = 0; j < GR_LANES; j++)
                lane[j] += (double)w[i + j] * (double)dy[i + j] * (double)x[i + j];
        for (int j = 0; i + j < count; j++)
            lane[j] += (double)w[i + j] * (double)dy[i + j] * (double)x[i + j];
    }
    return gr_lanes_sum(lane);
}

/* dx <- or += rstd * (w*dy - xhat * mean),  mean = mean(w*dy*xhat) */
static void backward_run(float *dx, enum gr_write write, const float *dy, const float *x,
                         const float *w, float rstd, float mean, int64_t width)
{
    if (write == GR_ACCUMULATE) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++)
            dx[i] += rstd * (w[i] * dy[i] - x[i] * rstd * mean);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < width; i++)
            dx[i] = rstd * (w[i] * dy[i] - x[i] * rstd * mean);
    }
}

static void backward_row(const struct row *r, enum gr_write write, float rstd)
{
    double mean = sum_products(r) * (double)rstd / (double)r->width;

    for (int64_t i = 0; i < r->width; i += GR_RUN) {
        int64_t count = gr_smaller(GR_RUN, r->width - i);
        float scratch[4][GR_RUN];
        float *run = write == GR_ACCUMULATE ? gr_load_run(r->dx, r->n, r->at + i, count, scratch[0])
                                            : gr_place_run(r->dx, r->n, r->at + i, scratch[0]);

        backward_run(run, write, gr_load_run(r->dy, r->n, r->at + i, count, scratch[1]),
                     gr_load_run(r->x, r->n, r->at + i, count, scratch[2]),
                     gr_load_run(r->w, 0, i, count, scratch[3]), rstd, (float)mean, count);
        gr_store_run(r->dx, r->n, r->at + i, count, run);
    }
}

void GR_CPU(rmsnorm_backward)(struct gr_device *dev, gr_tensor dx, enum gr_write write,
                              gr_tensor dy, gr_tensor x, gr_tensor w, gr_tensor rstd)
{
    struct shape s = shape_of(x);

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < s.n; n++)
        for (int64_t h = 0; h < s.heads; h++) {
            struct row row = {.dx = dx, .dy = dy, .x = x, .w = w, .n = n, .width = s.width};

            row.at = h * s.width;
            backward_row(&row, write, gr_row_f32(rstd, n)[h]);
        }
}
