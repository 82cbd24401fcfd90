/* Telling the memory plan.  See memory_plan.h. */
#include "trainer/run/memory_plan.h"

#include "kernels/base/log.h"

static double mebibytes(int64_t bytes)
{
    return (double)bytes / (1024 * 1024);
}

void gr_memory_plan_print(const struct gr_memory_plan *plan)
{
    gr_note("memory: weights %.1f MiB per host; adapter, optimizer and gradients %.1f MiB, "
            "activations %.1f MiB per process",
            mebibytes(plan->weight_bytes), mebibytes(plan->state_bytes),
            mebibytes(plan->step_bytes));
}
