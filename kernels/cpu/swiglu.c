/* The gate of the feed-forward: silu(gate) * up, and its backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expf.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

static void forward_run(float *h, const float *gate, const float *up, int64_t width)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        h[i] = gate[i] / (1.0f + gr_expf(-gate[i])) * up[i];
}

void GR_CPU(swiglu_forward)(struct gr_device *dev, gr_tensor h, gr_tensor gate, gr_tensor up)
{
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < h.dim[0]; n++)
        for (int64_t at = 0; at < h.dim[1]; at += GR_RUN) {
            int64_t count = gr_smaller(GR_RUN, h.dim[1] - at);
            float scratch[3][GR_RUN], *run = gr_place_run(h, n, at, scratch[0]);

            forward_run(run, gr_load_run(gate, n, at, count, scratch[1]),
                        gr_load_run(up, n, at, count, scratch[2]), count);
            gr_store_run(h, n, at, count, run);
        }
}

/* sigma = 1 / (1 + exp(-g)):  silu(g) = g * sigma,  silu'(g) = sigma * (1 + g * (1 - sigma));  h by
 * the forward's formula, for its bits */
static void backward_run(float *dgate, float *dup, float *h, const float *dh, const float *gate,
                         const float *up, int64_t width)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float g = gate[i], u = up[i], d = dh[i];
        float divisor = 1.0f + gr_expf(-g), sigma = 1.0f / divisor;

        h[i] = g / divisor * u;
        dgate[i] = d * u * (sigma * (1.0f + g * (1.0f - sigma)));
        dup[i] = d * (g * sigma);
    }
}

void GR_CPU(swiglu_backward)(struct gr_device *dev, gr_tensor dgate, gr_tensor dup, gr_tensor h,
                             gr_tensor dh, gr_tensor gate, gr_tensor up)
{
    bool wants_h = !gr_tensor_is_none(h);

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < dh.dim[0]; n++)
        for (int64_t at = 0; at < dh.dim[1]; at += GR_RUN) {
            int64_t count = gr_smaller(GR_RUN, dh.dim[1] - at);
            float scratch[6][GR_RUN];
            float *dgate_run = gr_place_run(dgate, n, at, scratch[0]);
            float *dup_run = gr_place_run(dup, n, at, scratch[1]);
            float *h_run = wants_h ? gr_place_run(h, n, at, scratch[2]) : scratch[2];

            backward_run(dgate_run, dup_run, h_run, gr_load_run(dh, n, at, count, scratch[3]),
                         gr_load_run(gate, n, at, count, scratch[4]),
                         gr_load_run(up, n, at, count, scratch[5]), count);
            gr_store_run(dgate, n, at, count, dgate_run);
            gr_store_run(dup, n, at, count, dup_run);
            if (wants_h)
                gr_store_run(h, n, at, count, h_run);
        }
}
