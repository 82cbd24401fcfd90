/* Stands here until the op lands. */
#include "kernels/cpu/cpu.h"

void GR_CPU(attention_forward)(struct gr_device *dev, const struct gr_attention *a)
{
    (void)a;
    gr_device_fail(dev, GR_ERR_BUG, "attention_forward", "not built yet");
}

void GR_CPU(attention_backward)(struct gr_device *dev, const struct gr_attention *a)
{
    (void)a;
    gr_device_fail(dev, GR_ERR_BUG, "attention_backward", "not built yet");
}

int64_t GR_CPU(attention_workspace_bytes)(struct gr_device *dev, int64_t n, int64_t heads,
                                          int64_t head_dim)
{
    (void)dev;
    (void)n;
    (void)heads;
    (void)head_dim;
    return 0;
}
