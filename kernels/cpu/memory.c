/* Memory and the stream of the CPU backend: the stream is the calling thread, so a copy is done
 * when the call returns and there is nothing to wait for. */
#include "kernels/cpu/cpu.h"

#include <string.h>
#include <sys/mman.h>

/* mmap: zeroed by the kernel page by page, on the NUMA node of the thread that touches it first. */
gr_status GR_CPU(memory_create)(struct gr_device *dev, void **memory, int64_t bytes)
{
    void *mapped =
        mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)dev;
    *memory = NULL;
    if (mapped == MAP_FAILED)
        return GR_ERR_DEVICE;
    madvise(mapped, (size_t)bytes, MADV_HUGEPAGE); /* only speed; a refusal changes nothing */
    *memory = mapped;
    return GR_OK;
}

void GR_CPU(memory_destroy)(struct gr_device *dev, void *memory, int64_t bytes)
{
    (void)dev;
    if (memory != NULL)
        munmap(memory, (size_t)bytes);
}

void GR_CPU(upload)(struct gr_device *dev, gr_tensor destination, const void *source)
{
    size_t row = (size_t)(gr_tensor_row_size(destination) * gr_dtype_bytes(destination.dtype));
    size_t stride = (size_t)(destination.stride * gr_dtype_bytes(destination.dtype));

    (void)dev;
    for (size_t i = 0; i < (size_t)destination.dim[0] && row > 0; i++)
        memcpy((char *)destination.data + i * stride, (const char *)source + i * row, row);
}

void GR_CPU(download)(struct gr_device *dev, void *destination, gr_tensor source)
{
    size_t row = (size_t)(gr_tensor_row_size(source) * gr_dtype_bytes(source.dtype));
    size_t stride = (size_t)(source.stride * gr_dtype_bytes(source.dtype));

    (void)dev;
    for (size_t i = 0; i < (size_t)source.dim[0] && row > 0; i++)
        memcpy((char *)destination + i * row, (const char *)source.data + i * stride, row);
}

gr_status GR_CPU(sync)(struct gr_device *dev)
{
    (void)dev;
    return GR_OK;
}
