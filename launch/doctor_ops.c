/* The ops of a GPU beside the CPU's.  See doctor_ops.h. */
#include "launch/doctor_ops.h"

#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "trainer/run/device_config.h"

#include <stdio.h>

static const char hint[] = "train on the CPU (device.backend: cpu) and report this: graft, the "
                           "driver or the GPU is at fault";

gr_status gr_doctor_ops_compare(struct gr_doctor_ops *ops, struct gr_device *dev, bool is_quick)
{
    struct gr_device *cpu = NULL;
    int compared = 0;
    gr_status status = GR_OK;

    ops->wrong = 0;
    GR_TRY(gr_device_create(&cpu, "cpu", gr_usable_cores(), gr_env(GR_ENV_GRAFT_ISA)));
    status = gr_trial_ops(ops->trial, &compared, dev, cpu, is_quick);
    if (status != GR_OK) {
        char *message = gr_strdup(gr_error_message());

        gr_error_clear();
        gr_fail(status, "graft doctor", hint, "in the trial of %s: %s", ops->trial[compared].op,
                message);
        gr_free(message);
        goto out;
    }
    for (int i = 0; i < compared; i++)
        ops->wrong += !ops->trial[i].is_same;
out:
    gr_device_destroy(cpu);
    return status;
}

void gr_doctor_ops_print(const struct gr_doctor_ops *ops)
{
    const struct gr_op_trial *worst = &ops->trial[0];

    for (int i = 0; i < GR_PROFILED_OP_COUNT; i++) {
        const struct gr_op_trial *op = &ops->trial[i];

        worst = op->share > worst->share ? op : worst;
        if (op->is_same)
            continue;
        printf("problem  %-8s %s: element %lld is %.6g, on the CPU %.6g; apart %.2g of the "
               "largest, expected at most %.2g\n",
               op->op, op->where, (long long)op->element, op->found, op->expected, op->apart,
               op->bound);
    }
    printf("%-8s ops      %d of %d as on the CPU", ops->wrong == 0 ? "ok" : "problem",
           GR_PROFILED_OP_COUNT - ops->wrong, GR_PROFILED_OP_COUNT);
    if (ops->wrong == 0)
        printf("; the worst: %s, %s, apart %.2g of the largest, at most %.2g", worst->op,
               worst->where, worst->apart, worst->bound);
    printf("\n");
    if (ops->wrong > 0)
        printf("%17s hint: %s\n", "", hint);
}

json_t *gr_doctor_ops_object(const struct gr_doctor_ops *ops)
{
    json_t *all = json_object();

    for (int i = 0; i < GR_PROFILED_OP_COUNT; i++) {
        const struct gr_op_trial *op = &ops->trial[i];
        json_t *object =
            json_pack("{s:s, s:s, s:I, s:f}", "verdict", op->is_same ? "ok" : "problem", "where",
                      op->where, "element", (json_int_t)op->element, "bound", op->bound);

        if (op->apart < 1e300)
            json_object_set_new(object, "apart", json_real(op->apart));
        json_object_set_new(all, op->op, object);
    }
    return all;
}

gr_status gr_doctor_ops_judge(const struct gr_doctor_ops *ops)
{
    if (ops->wrong == 0)
        return GR_OK;
    return gr_fail(GR_ERR_USAGE, "graft doctor", hint,
                   "this GPU computes wrongly (found %d of %d ops not as on the CPU, expected "
                   "none)",
                   ops->wrong, GR_PROFILED_OP_COUNT);
}
