/* Memory, copies and the stream of the CUDA backend.
 *
 * The host's memory is pageable and mapped files are too, so copies go through pinned memory: an
 * upload is taken from the caller before the call returns, in slots that are used in turn; a
 * download arrives with the next wait.  Nothing else waits. */
#include "kernels/cuda/cuda.h"

#include <string.h>

bool gr_cuda_ok(struct gr_device *dev, const char *op, cudaError_t error)
{
    if (error != cudaSuccess)
        gr_device_fail(dev, GR_ERR_DEVICE, op, "CUDA: %s", cudaGetErrorString(error));
    return dev->failure.status == GR_OK;
}

gr_status gr_cuda_memory_create(struct gr_device *dev, void **memory, int64_t bytes)
{
    struct gr_cuda *c = gr_cuda_of(dev);

    *memory = NULL;
    if (cudaMalloc(memory, (size_t)bytes) != cudaSuccess) {
        cudaGetLastError(); /* does not stick */
        return GR_ERR_DEVICE;
    }
    gr_cuda_ok(dev, "memory", cudaMemsetAsync(*memory, 0, (size_t)bytes, c->stream));
    return gr_device_status(dev);
}

int64_t gr_cuda_memory_available(struct gr_device *dev)
{
    size_t available = 0, all = 0;

    return gr_cuda_ok(dev, "memory", cudaMemGetInfo(&available, &all)) ? (int64_t)available : 0;
}

void gr_cuda_memory_destroy(struct gr_device *dev, void *memory, int64_t bytes)
{
    (void)bytes;
    cudaStreamSynchronize(gr_cuda_of(dev)->stream); /* what failed is reported by gr_device_sync */
    cudaFree(memory);
}

/* Pinned memory for the next `bytes` (at most a slot). */
static unsigned char *slot_room(struct gr_device *dev, int64_t bytes)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    unsigned char *room;

    if (c->slot_used + bytes > GR_CUDA_SLOT_BYTES) {
        gr_cuda_ok(dev, "upload", cudaEventRecord(c->slot_is_free[c->slot_now], c->stream));
        c->slot_now = (c->slot_now + 1) % GR_CUDA_SLOTS;
        c->slot_used = 0;
        gr_cuda_ok(dev, "upload", cudaEventSynchronize(c->slot_is_free[c->slot_now]));
    }
    room = c->slot[c->slot_now] + c->slot_used;
    c->slot_used += (bytes + 15) & ~(int64_t)15;
    return room;
}

static void upload_bytes(struct gr_device *dev, unsigned char *to, const unsigned char *from,
                         int64_t bytes)
{
    for (int64_t done = 0; done < bytes && dev->failure.status == GR_OK;) {
        int64_t slot = GR_CUDA_SLOT_BYTES, piece = bytes - done < slot ? bytes - done : slot;
        unsigned char *room = slot_room(dev, piece);

        memcpy(room, from + done, (size_t)piece);
        gr_cuda_ok(dev, "upload",
                   cudaMemcpyAsync(to + done, room, (size_t)piece, cudaMemcpyHostToDevice,
                                   gr_cuda_of(dev)->stream));
        done += piece;
    }
}

/* Rows that lie `pitch` bytes apart, as many at a time as a slot takes: a matrix of weights has
 * thousands. */
static void upload_rows(struct gr_device *dev, unsigned char *to, int64_t pitch,
                        const unsigned char *from, int64_t row, int64_t rows)
{
    const int64_t most = GR_CUDA_SLOT_BYTES / row;

    for (int64_t done = 0; done < rows && dev->failure.status == GR_OK;) {
        int64_t piece = rows - done < most ? rows - done : most;
        unsigned char *room = slot_room(dev, piece * row);

        memcpy(room, from + done * row, (size_t)(piece * row));
        gr_cuda_ok(dev, "upload",
                   cudaMemcpy2DAsync(to + done * pitch, (size_t)pitch, room, (size_t)row,
                                     (size_t)row, (size_t)piece, cudaMemcpyHostToDevice,
                                     gr_cuda_of(dev)->stream));
        done += piece;
    }
}

void gr_cuda_upload(struct gr_device *dev, gr_tensor destination, const void *source)
{
    int64_t size = gr_dtype_bytes(destination.dtype);
    int64_t row = gr_tensor_row_size(destination) * size, rows = destination.dim[0];
    unsigned char *to = (unsigned char *)destination.data;
    const unsigned char *from = (const unsigned char *)source;

    if (gr_tensor_is_contiguous(destination))
        upload_bytes(dev, to, from, rows * row);
    else if (row <= GR_CUDA_SLOT_BYTES)
        upload_rows(dev, to, destination.stride * size, from, row, rows);
    else
        for (int64_t i = 0; i < rows; i++)
            upload_bytes(dev, to + i * destination.stride * size, from + i * row, row);
}

/* Waits, and hands over what has arrived. */
static void receive(struct gr_device *dev)
{
    struct gr_cuda *c = gr_cuda_of(dev);

    if (gr_cuda_ok(dev, "sync", cudaStreamSynchronize(c->stream))) {
        for (int i = 0; i < c->downloads; i++)
            memcpy(c->download[i].destination, c->download[i].source, (size_t)c->download[i].bytes);
    }
    c->downloads = 0;
    c->arrivals_used = 0;
}

static void download_bytes(struct gr_device *dev, unsigned char *to, const unsigned char *from,
                           int64_t bytes)
{
    struct gr_cuda *c = gr_cuda_of(dev);

    for (int64_t done = 0; done < bytes && dev->failure.status == GR_OK;) {
        int64_t room = GR_CUDA_SLOT_BYTES - c->arrivals_used;
        int64_t piece = bytes - done < room ? bytes - done : room;

        if (piece == 0 || c->downloads == GR_CUDA_DOWNLOADS) {
            receive(dev);
            continue;
        }
        gr_cuda_ok(dev, "download",
                   cudaMemcpyAsync(c->arrivals + c->arrivals_used, from + done, (size_t)piece,
                                   cudaMemcpyDeviceToHost, c->stream));
        c->download[c->downloads].destination = to + done;
        c->download[c->downloads].source = c->arrivals + c->arrivals_used;
        c->download[c->downloads++].bytes = piece;
        c->arrivals_used += (piece + 15) & ~(int64_t)15;
        done += piece;
    }
}

void gr_cuda_download(struct gr_device *dev, void *destination, gr_tensor source)
{
    int64_t size = gr_dtype_bytes(source.dtype);
    int64_t row = gr_tensor_row_size(source) * size, rows = source.dim[0];
    unsigned char *to = (unsigned char *)destination;
    const unsigned char *from = (const unsigned char *)source.data;

    if (gr_tensor_is_contiguous(source)) {
        download_bytes(dev, to, from, rows * row);
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        download_bytes(dev, to + i * row, from + i * source.stride * size, row);
}

gr_status gr_cuda_sync(struct gr_device *dev)
{
    receive(dev);
    return gr_device_status(dev);
}
