/* The gate of the feed-forward: silu(gate) * up, and its backward.  A thread reads all of its run
 * before it writes, so a gradient may stand where its input was. */
#include "kernels/cuda/vector.cuh"

/* Within 2 units in the last place more than expf has; 0 where 1 + exp(-g) is beyond 2^126. */
static __device__ __forceinline__ float sigmoid(float g)
{
    return __fdividef(1.0f, 1.0f + expf(-g));
}

/* h <- silu(gate) * up,  silu(g) = g * sigmoid(g) */
template <typename T>
static __global__ void forward_runs(gr_view<T> h, gr_view<const T> gate, gr_view<const T> up,
                                    struct gr_runs runs)
{
    constexpr int run = gr_run_of<T>;
    struct gr_run at;
    float g[run], u[run];

    if (!gr_find_run(&at, runs, run))
        return;
    const uint4 gate_bits = gr_fetch<run>(gate.at(at.row, at.begin), at.count);
    const uint4 up_bits = gr_fetch<run>(up.at(at.row, at.begin), at.count);

    gr_unpack(g, gate_bits);
    gr_unpack(u, up_bits);
    for (int i = 0; i < run; i++)
        u[i] = g[i] * sigmoid(g[i]) * u[i];
    gr_write(h.at(at.row, at.begin), u, at.count);
}

/* silu'(g) = sigma * (1 + g * (1 - sigma)),  sigma = sigmoid(g);  h is the forward's */
template <typename T>
static __global__ void backward_runs(gr_view<T> dgate, gr_view<T> dup, gr_view<T> h,
                                     gr_view<const T> dh, gr_view<const T> gate,
                                     gr_view<const T> up, struct gr_runs runs)
{
    constexpr int run = gr_run_of<T>;
    struct gr_run at;
    float d[run], g[run], u[run];

    if (!gr_find_run(&at, runs, run))
        return;
    const uint4 dh_bits = gr_fetch<run>(dh.at(at.row, at.begin), at.count);
    const uint4 gate_bits = gr_fetch<run>(gate.at(at.row, at.begin), at.count);
    const uint4 up_bits = gr_fetch<run>(up.at(at.row, at.begin), at.count);

    gr_unpack(d, dh_bits);
    gr_unpack(g, gate_bits);
    gr_unpack(u, up_bits);
    for (int i = 0; i < run; i++) {
        const float sigma = sigmoid(g[i]);
        const float silu = g[i] * sigma;

        g[i] = d[i] * u[i] * (sigma * (1.0f + g[i] * (1.0f - sigma)));
        const float product = silu * u[i];
        u[i] = d[i] * silu;
        d[i] = product;
    }
    if (h.data != NULL)
        gr_write(h.at(at.row, at.begin), d, at.count);
    gr_write(dgate.at(at.row, at.begin), g, at.count);
    gr_write(dup.at(at.row, at.begin), u, at.count);
}

template <typename T>
static void forward(struct gr_device *dev, gr_tensor h, gr_tensor gate, gr_tensor up)
{
    const struct gr_runs runs = gr_runs_over(h.dim[0], h.dim[1], gr_run_of<T>);

    gr_cuda_ok(dev, "swiglu_forward",
               GR_LAUNCH(forward_runs<T>, runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<T>(h), gr_view_of<const T>(gate), gr_view_of<const T>(up),
                         runs));
}

template <typename T>
static void backward(struct gr_device *dev, gr_tensor dgate, gr_tensor dup, gr_tensor h,
                     gr_tensor dh, gr_tensor gate, gr_tensor up)
{
    const struct gr_runs runs = gr_runs_over(dh.dim[0], dh.dim[1], gr_run_of<T>);

    gr_cuda_ok(dev, "swiglu_backward",
               GR_LAUNCH(backward_runs<T>, runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<T>(dgate), gr_view_of<T>(dup), gr_view_of<T>(h),
                         gr_view_of<const T>(dh), gr_view_of<const T>(gate),
                         gr_view_of<const T>(up), runs));
}

void gr_cuda_swiglu_forward(struct gr_device *dev, gr_tensor h, gr_tensor gate, gr_tensor up)
{
    if (gr_tensor_count(h) == 0)
        return;
    (h.dtype == GR_BF16 ? forward<__nv_bfloat16> : forward<float>)(dev, h, gate, up);
}

void gr_cuda_swiglu_backward(struct gr_device *dev, gr_tensor dgate, gr_tensor dup, gr_tensor h,
                             gr_tensor dh, gr_tensor gate, gr_tensor up)
{
    if (gr_tensor_count(dh) == 0)
        return;
    (dh.dtype == GR_BF16 ? backward<__nv_bfloat16> : backward<float>)(dev, dgate, dup, h, dh, gate,
                                                                      up);
}
