/* Rotary position embedding in place, in the half-split layout.  Two products and a sum, each
 * rounded, as Hugging Face computes it. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stored.h"

/* (a, b) <- (a*cos - b*sin, b*cos + a*sin) */
GR_ROWS rotate(void *a, void *b, const float *cos, const float *sin, float sign, int64_t half,
               const enum gr_dtype dtype)
{
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a_i = gr_get(a, i, dtype), b_i = gr_get(b, i, dtype), s = sign * sin[i];

        gr_put(a, i, a_i * cos[i] - b_i * s, dtype);
        gr_put(b, i, b_i * cos[i] + a_i * s, dtype);
    }
}

void GR_CPU(rope)(struct gr_device *dev, gr_tensor x, gr_tensor cos, gr_tensor sin,
                  gr_tensor positions, int direction)
{
    const int32_t *position = positions.data;
    int64_t width = x.dim[2], half = width / 2;

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
            GR_ROWS_OF(x.dtype, rotate, gr_element(x, n, h * width),
                       gr_element(x, n, h * width + half), gr_row_f32(cos, position[n]),
                       gr_row_f32(sin, position[n]), (float)direction, half);
}
