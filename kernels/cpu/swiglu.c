/* The gate of the feed-forward: silu(gate) * up, and its backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expf.h"
#include "kernels/cpu/rows.h"

static void forward_row(float *h, const float *gate, const float *up, int64_t width)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        h[i] = gate[i] / (1.0f + gr_expf(-gate[i])) * up[i];
}

void GR_CPU(swiglu_forward)(struct gr_device *dev, gr_tensor h, gr_tensor gate, gr_tensor up)
{
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < h.dim[0]; n++)
        forward_row(gr_row_f32(h, n), gr_row_f32(gate, n), gr_row_f32(up, n), h.dim[1]);
}

/* sigma = 1 / (1 + exp(-g)):  silu(g) = g * sigma,  silu'(g) = sigma * (1 + g * (1 - sigma)) */
static void backward_row(float *dgate, float *dup, const float *dh, const float *gate,
                         const float *up, int64_t width)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float g = gate[i], u = up[i], d = dh[i];
        float sigma = 1.0f / (1.0f + gr_expf(-g));

        dgate[i] = d * u * (sigma * (1.0f + g * (1.0f - sigma)));
        dup[i] = d * (g * sigma);
    }
}

void GR_CPU(swiglu_backward)(struct gr_device *dev, gr_tensor dgate, gr_tensor dup, gr_tensor dh,
                             gr_tensor gate, gr_tensor up)
{
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < dh.dim[0]; n++)
        backward_row(gr_row_f32(dgate, n), gr_row_f32(dup, n), gr_row_f32(dh, n),
                     gr_row_f32(gate, n), gr_row_f32(up, n), dh.dim[1]);
}
