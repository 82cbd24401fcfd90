/* The memory plan: what a run will take, told before it takes it. */
#ifndef GR_TRAINER_MEMORY_PLAN_H
#define GR_TRAINER_MEMORY_PLAN_H

#include <stdint.h>

struct gr_memory_plan {
    int64_t weight_bytes; /* base model in the compute dtype, shared by the processes of a host */
    int64_t state_bytes;  /* adapters, moments, gradients: per process */
    int64_t step_bytes;   /* activations and scratch: per process */
};

/* One note: "memory: ...". */
void gr_memory_plan_print(const struct gr_memory_plan *plan);

#endif
