/* Rows of the embedding table by token id. */
#include "kernels/cuda/vector.cuh"

/* An id outside the table cannot be told of from here: its row becomes NaN, and the loss shows it.
 */
template <typename T>
static __global__ void look_up(gr_view<T> y, gr_view<const T> table, const int32_t *ids,
                               int64_t vocab, struct gr_runs runs)
{
    constexpr int run = gr_run_of<T>;
    struct gr_run at;
    float v[run];

    if (!gr_find_run(&at, runs, run))
        return;
    const int32_t id = ids[at.row];

    if (id >= 0 && id < vocab) {
        gr_read(v, table.at(id, at.begin), at.count);
    } else {
        for (int i = 0; i < run; i++)
            v[i] = id == -1 ? 0.0f : NAN;
    }
    gr_write(y.at(at.row, at.begin), v, at.count);
}

template <typename T>
static void forward(struct gr_device *dev, gr_tensor y, gr_tensor table, gr_tensor ids)
{
    const struct gr_runs runs = gr_runs_over(y.dim[0], y.dim[1], gr_run_of<T>);

    gr_cuda_ok(dev, "embedding_forward",
               GR_LAUNCH(look_up<T>, runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<T>(y), gr_view_of<const T>(table), (const int32_t *)ids.data,
                         table.dim[0], runs));
}

void gr_cuda_embedding_forward(struct gr_device *dev, gr_tensor y, gr_tensor table, gr_tensor ids)
{
    if (gr_tensor_count(y) == 0)
        return;
    (y.dtype == GR_BF16 ? forward<__nv_bfloat16> : forward<float>)(dev, y, table, ids);
}
