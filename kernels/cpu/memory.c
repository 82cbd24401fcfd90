/* Memory and the stream of the CPU backend: the stream is the calling thread, so a copy is done
 * when the call returns and there is nothing to wait for. */
#include "kernels/base/clock.h"
#include "kernels/cpu/cpu.h"

#include <stdio.h>
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

int64_t GR_CPU(memory_available)(struct gr_device *dev)
{
    (void)dev;
    return -1;
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

/* ---- what a GPU has ---- */

gr_status GR_CPU(choose_attention)(struct gr_device *dev, enum gr_attention_kind kind)
{
    (void)dev;
    if (kind == GR_ATTENTION_CUDNN)
        return gr_fail(GR_ERR_DEVICE, "cpu", NULL, "cuDNN's attention needs a GPU");
    return GR_OK;
}

gr_status GR_CPU(record_attention)(struct gr_device *dev, enum gr_attention_kind kind,
                                   const char *figures)
{
    (void)dev;
    (void)kind;
    (void)figures;
    return GR_OK;
}

bool GR_CPU(attention_is_cudnn)(struct gr_device *dev, const struct gr_attention *a, char *why,
                                int64_t why_size)
{
    (void)dev;
    (void)a;
    snprintf(why, (size_t)why_size, "there is no GPU");
    return false;
}

void GR_CPU(get_choices)(struct gr_device *dev, struct gr_buffer *text)
{
    (void)dev;
    (void)text;
}

gr_status GR_CPU(set_choices)(struct gr_device *dev, const char *text)
{
    (void)dev;
    return text[0] == '\0' ? GR_OK : gr_fail(GR_ERR_DATA, "cpu", NULL, "a CPU has no choices");
}

void GR_CPU(describe)(struct gr_device *dev, char *text, int64_t size)
{
    (void)dev;
    (void)size;
    text[0] = '\0';
}

void GR_CPU(close)(struct gr_device *dev)
{
    (void)dev;
}

gr_status GR_CPU(sync)(struct gr_device *dev)
{
    (void)dev;
    return GR_OK;
}

int64_t GR_CPU(moment)(struct gr_device *dev)
{
    (void)dev;
    return gr_clock_ns();
}

int64_t GR_CPU(moments_apart)(struct gr_device *dev, int64_t begin, int64_t end)
{
    (void)dev;
    return end - begin;
}

int64_t GR_CPU(moment_keep)(struct gr_device *dev, int64_t kept)
{
    (void)dev;
    return kept;
}

void GR_CPU(range_begin)(struct gr_device *dev, const char *name)
{
    (void)dev;
    (void)name;
}

void GR_CPU(range_end)(struct gr_device *dev)
{
    (void)dev;
}
