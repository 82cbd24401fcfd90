/* Stands here until the op lands. */
#include "kernels/cpu/cpu.h"

void GR_CPU(head_loss)(struct gr_device *dev, const struct gr_head_loss *a)
{
    (void)a;
    gr_device_fail(dev, GR_ERR_BUG, "head_loss", "not built yet");
}

int64_t GR_CPU(head_loss_workspace_bytes)(struct gr_device *dev, int64_t hidden, int64_t vocab)
{
    (void)dev;
    (void)hidden;
    (void)vocab;
    return 0;
}

void GR_CPU(head_logits)(struct gr_device *dev, gr_tensor logits, gr_tensor h, gr_tensor weight,
                         gr_tensor rows)
{
    (void)logits;
    (void)h;
    (void)weight;
    (void)rows;
    gr_device_fail(dev, GR_ERR_BUG, "head_logits", "not built yet");
}
