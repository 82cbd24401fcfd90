/* The memory plan: what a run will take, told before it takes it.  The engine fills it from the
 * same layout code that carves the memory (engine.h); `graft estimate` prints all of it. */
#ifndef GR_TRAINER_MEMORY_PLAN_H
#define GR_TRAINER_MEMORY_PLAN_H

#include <stdbool.h>
#include <stdint.h>

struct gr_memory_plan {
    int64_t weight_bytes;   /* base model in the compute dtype, shared by the processes of a host */
    int64_t state_bytes;    /* adapters, moments, gradients: per process */
    int64_t step_bytes;     /* activations and scratch: per process */
    int64_t elements;       /* trained parameters */
    int64_t gradient_bytes; /* of state_bytes: the buffers of the gradients' tree */
    int64_t save_bytes;     /* snapshots being saved: in the one process that writes files */
    int64_t program_bytes;  /* program, libraries, tokenizer, documents: per process */
};

/* One note: "memory: ...". */
void gr_memory_plan_print(const struct gr_memory_plan *plan);

int64_t gr_memory_plan_process(const struct gr_memory_plan *plan); /* without weights and saving */
int64_t gr_memory_plan_host(const struct gr_memory_plan *plan, int processes);

/* Memory of this machine, or what a cgroup allows of it: does not depend on what is in use. */
int64_t gr_memory_machine(void);
/* Memory of this host that a new process could have; is_limited: by a cgroup, not by the machine.
 * -1 where the system does not say. */
int64_t gr_memory_available(bool *is_limited);
/* What this process has resident now; -1 where the system does not say. */
int64_t gr_memory_resident(void);

#endif
