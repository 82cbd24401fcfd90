/* Short measurements on a device, for `graft doctor --device cuda`: attention computed in both
 * ways, and the rates that nothing is faster than.  They allocate, and wait. */
#ifndef GR_TRIAL_H
#define GR_TRIAL_H

#include "kernels/device.h"

struct gr_attention_trial {
    /* In: the shape, bf16.  documents lie in n rows, the last rows in none. */
    int64_t n, documents, heads, kv_heads, head_dim;
    int runs; /* measured, after one that is not; times are medians */

    /* Out.  [0] forward, [1] backward. */
    double own_ms[2], cudnn_ms[2];
    double flop[2]; /* of scores that are not masked */
    /* The largest difference of o, lse, dq, dk and dv, each relative to its own largest element;
     * infinite if one is not finite. */
    double apart;
    bool is_cudnn; /* else cuDNN does not compute this shape, and nothing of it was measured */
    char why[400];
};

/* Our attention and cuDNN's on the same random tensors, which lie as in training: side by side,
 * with gaps between rows, gradients with others.  The device's choice stays on ours. Errors:
 * ERR_DEVICE. */
gr_status gr_trial_attention(struct gr_device *dev, struct gr_attention_trial *trial);

struct gr_ceilings {
    int64_t size;              /* in */
    double product_flop_per_s; /* of size x size matrices, bf16 with sums in f32 */
    double copy_bytes_per_s;   /* read and written, of size * size * 16 bytes */
};
/* Medians of `runs`.  Errors: ERR_DEVICE. */
gr_status gr_trial_ceilings(struct gr_device *dev, struct gr_ceilings *ceilings, int runs);

#endif
