/* Rotary position embedding in place, in the half-split layout.  Two products and a sum, each
 * rounded, as Hugging Face computes it. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

/* (a, b) <- (a*cos - b*sin, b*cos + a*sin) */
static void rotate(float *a, float *b, const float *cos, const float *sin, float sign, int64_t half)
{
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a_i = a[i], b_i = b[i], s = sign * sin[i];

        a[i] = a_i * cos[i] - b_i * s;
        b[i] = b_i * cos[i] + a_i * s;
    }
}

void GR_CPU(rope)(struct gr_device *dev, gr_tensor x, gr_tensor cos, gr_tensor sin,
                  gr_tensor positions, int direction)
{
    const int32_t *position = positions.data;
    int64_t half = x.dim[2] / 2;

    for (int64_t n = 0; n < x.dim[0]; n++)
        if (position[n] < 0 || position[n] >= cos.dim[0]) {
            gr_device_fail(dev, GR_ERR_BUG, "rope",
                           "a position is outside the table (found %d in row %lld, expected 0 to "
                           "%lld)",
                           position[n], (long long)n, (long long)cos.dim[0] - 1);
            return;
        }
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < x.dim[0]; n++)
        for (int64_t h = 0; h < x.dim[1]; h++)
            for (int64_t i = 0; i < half; i += GR_RUN) {
                int64_t count = gr_smaller(GR_RUN, half - i), at = h * x.dim[2] + i;
                float scratch[2][GR_RUN];
                float *a = gr_load_run(x, n, at, count, scratch[0]);
                float *b = gr_load_run(x, n, at + half, count, scratch[1]);

                rotate(a, b, gr_row_f32(cos, position[n]) + i, gr_row_f32(sin, position[n]) + i,
                       (float)direction, count);
                gr_store_run(x, n, at, count, a);
                gr_store_run(x, n, at + half, count, b);
            }
}
