/* Stands here until the op lands. */
#include "kernels/cpu/cpu.h"

void GR_CPU(lora_group_forward)(struct gr_device *dev, const struct gr_lora_group *g)
{
    (void)g;
    gr_device_fail(dev, GR_ERR_BUG, "lora_group_forward", "not built yet");
}

void GR_CPU(lora_group_backward)(struct gr_device *dev, const struct gr_lora_group *g)
{
    (void)g;
    gr_device_fail(dev, GR_ERR_BUG, "lora_group_backward", "not built yet");
}

int64_t GR_CPU(lora_group_workspace_bytes)(struct gr_device *dev, int64_t n, int64_t in,
                                           int64_t out, int64_t r)
{
    (void)dev;
    (void)n;
    (void)in;
    (void)out;
    (void)r;
    return 0;
}
