/* Every op of ops.h on a device beside the CPU, for `graft doctor --device cuda`: the same random
 * numbers into both, and results compared.  Short: small shapes, seconds in all.
 *
 * What is compared is the list GR_PROFILED_OPS, without which an op cannot be called (ops_check.h);
 * one that has no case (trial_side.h) does not link. */
#ifndef GR_TRIAL_OPS_H
#define GR_TRIAL_OPS_H

#include "kernels/profile.h"

struct gr_op_trial {
    const char *op; /* "rope" */
    bool is_same;
    /* Of all its results the element nearest to its bound, or farthest beyond it. */
    char where[64];         /* "bf16 dx, joined" */
    int64_t element;        /* in row order */
    double found, expected; /* the device's, the CPU's */
    double apart, bound;    /* relative to the result's largest element on the CPU */
    /* Of what the bound allows besides the rounding of what is stored; above 1: not the same. */
    double share;
};

/* Each op in f32 and in bf16, in shapes of 640 rows, or of 128 where it shall be quick.  cpu: a
 * device of that kind.  dev's choice stays on our attention; both are left without a workspace.
 * *compared: trials that are filled, from the first on; all of them unless it fails, which it does
 * where an op makes a device fail: then that of trial[*compared].op.  Errors: ERR_DEVICE, ERR_BUG.
 */
gr_status gr_trial_ops(struct gr_op_trial trial[GR_PROFILED_OP_COUNT], int *compared,
                       struct gr_device *dev, struct gr_device *cpu, bool is_quick);

#endif
