/* The stash of the CUDA backend: pinned memory, and a second stream for the copies to it and from
 * it.
 *
 * A copy waits for an event of the stream that computes, and that stream, when it is told to, for
 * the event behind the last copy of a lane; the host waits for nothing.  See device.h. */
#include "kernels/cuda/cuda.h"

/* What only those have who stash something. */
static cudaError_t open_copies(struct gr_cuda *c)
{
    cudaError_t error = cudaSuccess;

    if (c->copies != NULL)
        return cudaSuccess;
    error = cudaEventCreateWithFlags(&c->stash_may_begin, cudaEventDisableTiming);
    for (int i = 0; i < GR_STASH_LANES && error == cudaSuccess; i++)
        error = cudaEventCreateWithFlags(&c->stash_is_through[i], cudaEventDisableTiming);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&c->copies, cudaStreamNonBlocking);
    return error;
}

gr_status gr_cuda_stash_create(struct gr_device *dev, void **memory, int64_t bytes)
{
    struct gr_cuda *c = gr_cuda_of(dev);

    *memory = NULL;
    if (open_copies(c) == cudaSuccess && cudaMallocHost(memory, (size_t)bytes) == cudaSuccess)
        return GR_OK;
    cudaGetLastError(); /* does not stick */
    return GR_ERR_DEVICE;
}

/* Behind the copies that are queued; what failed is reported by gr_device_sync. */
void gr_cuda_stash_destroy(struct gr_device *dev, void *memory, int64_t bytes)
{
    (void)bytes;
    cudaStreamSynchronize(gr_cuda_of(dev)->stream);
    cudaStreamSynchronize(gr_cuda_of(dev)->copies);
    cudaFreeHost(memory);
}

static void copy(struct gr_device *dev, gr_tensor to, gr_tensor from, cudaMemcpyKind kind, int lane)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    const size_t bytes = (size_t)(gr_tensor_count(to) * gr_dtype_bytes(to.dtype));

    gr_cuda_ok(dev, "stash", cudaEventRecord(c->stash_may_begin, c->stream));
    gr_cuda_ok(dev, "stash", cudaStreamWaitEvent(c->copies, c->stash_may_begin, 0));
    gr_cuda_ok(dev, "stash", cudaMemcpyAsync(to.data, from.data, bytes, kind, c->copies));
    gr_cuda_ok(dev, "stash", cudaEventRecord(c->stash_is_through[lane], c->copies));
}

void gr_cuda_stash_out(struct gr_device *dev, gr_tensor stashed, gr_tensor t, int lane)
{
    copy(dev, stashed, t, cudaMemcpyDeviceToHost, lane);
}

void gr_cuda_stash_in(struct gr_device *dev, gr_tensor t, gr_tensor stashed, int lane)
{
    copy(dev, t, stashed, cudaMemcpyHostToDevice, lane);
}

void gr_cuda_stash_wait(struct gr_device *dev, int lane)
{
    struct gr_cuda *c = gr_cuda_of(dev);

    gr_cuda_ok(dev, "stash", cudaStreamWaitEvent(c->stream, c->stash_is_through[lane], 0));
}

void gr_cuda_stash_close(struct gr_cuda *c)
{
    if (c->copies != NULL)
        cudaStreamDestroy(c->copies);
    if (c->stash_may_begin != NULL)
        cudaEventDestroy(c->stash_may_begin);
    for (int i = 0; i < GR_STASH_LANES; i++) {
        if (c->stash_is_through[i] != NULL)
            cudaEventDestroy(c->stash_is_through[i]);
    }
}
