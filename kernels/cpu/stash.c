/* The stash of the CPU backend: memory like any other, and copies that are done when the call
 * returns. Nobody gains by it here; it is what the CUDA backend's is compared with.  See device.h.
 */
#include "kernels/cpu/cpu.h"

#include <string.h>

gr_status GR_CPU(stash_create)(struct gr_device *dev, void **memory, int64_t bytes)
{
    return GR_CPU(memory_create)(dev, memory, bytes);
}

void GR_CPU(stash_destroy)(struct gr_device *dev, void *memory, int64_t bytes)
{
    GR_CPU(memory_destroy)(dev, memory, bytes);
}

static void copy(gr_tensor to, gr_tensor from)
{
    memcpy(to.data, from.data, (size_t)(gr_tensor_count(to) * gr_dtype_bytes(to.dtype)));
}

void GR_CPU(stash_out)(struct gr_device *dev, gr_tensor stashed, gr_tensor t, int lane)
{
    (void)dev;
    (void)lane;
    copy(stashed, t);
}

void GR_CPU(stash_in)(struct gr_device *dev, gr_tensor t, gr_tensor stashed, int lane)
{
    (void)dev;
    (void)lane;
    copy(t, stashed);
}

void GR_CPU(stash_wait)(struct gr_device *dev, int lane)
{
    (void)dev;
    (void)lane;
}
