/* graft doctor --device cuda: whether the GPU computes every op as the CPU does (trial_ops.h), and
 * how that is told. */
#ifndef GR_LAUNCH_DOCTOR_OPS_H
#define GR_LAUNCH_DOCTOR_OPS_H

#include "kernels/trial_ops.h"

#include <jansson.h>

struct gr_doctor_ops {
    struct gr_op_trial trial[GR_PROFILED_OP_COUNT];
    int wrong;
};

/* Where an op makes the GPU fail, the message names it.  Errors: ERR_DEVICE, ERR_BUG. */
gr_status gr_doctor_ops_compare(struct gr_doctor_ops *ops, struct gr_device *dev, bool is_quick);
/* A row of the doctor's table for each that is wrong, and one for all. */
void gr_doctor_ops_print(const struct gr_doctor_ops *ops);
/* name -> {verdict, where, element, bound, apart}; what is not finite is left out. */
json_t *gr_doctor_ops_object(const struct gr_doctor_ops *ops);
/* ERR_USAGE, the doctor's code for a problem, if any is wrong. */
gr_status gr_doctor_ops_judge(const struct gr_doctor_ops *ops);

#endif
