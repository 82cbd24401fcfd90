/* The memory plan: what a run will take, told before it takes it.  The engine fills it from the
 * same layout code that carves the memory (engine.h); `graft estimate` prints all of it. */
#ifndef GR_TRAINER_MEMORY_PLAN_H
#define GR_TRAINER_MEMORY_PLAN_H

#include "trainer/model/transformer.h"

struct gr_memory_plan {
    bool is_apart; /* weights, state and step lie in a device's own memory, of each process */
    int64_t weight_bytes; /* base model as it is computed with, shared by the processes of a host */
    int64_t state_bytes;  /* adapters, moments, gradients: per process */
    int64_t step_bytes;   /* activations and scratch: per process */
    int64_t away_bytes;  /* inputs of layers in the host's memory, beside a device's: per process */
    int64_t away_layers; /* that have theirs there between forward and backward */
    int64_t elements;    /* trained parameters */
    int64_t gradient_bytes; /* of state_bytes: the buffers of the gradients' tree */
    int64_t save_bytes;     /* snapshots being saved: in the one process that writes files */
    int64_t program_bytes;  /* program, libraries, tokenizer, documents: per process */
    int64_t redone[GR_STAGE_COUNT]; /* layers that compute a stage again in the backward */
};

/* The stages by name: "qkv". */
extern const char *const gr_memory_stage_names[GR_STAGE_COUNT];

/* "qkv in 3 layers, gate_up in 12", for the caller to free; NULL where nothing is computed again.
 */
char *gr_memory_plan_redone(const struct gr_memory_plan *plan);

/* Notes: "memory: ...". */
void gr_memory_plan_print(const struct gr_memory_plan *plan);

/* Of the host's memory: of a process, without weights and saving; of all processes of a host. */
int64_t gr_memory_plan_process(const struct gr_memory_plan *plan);
int64_t gr_memory_plan_host(const struct gr_memory_plan *plan, int processes);
int64_t gr_memory_plan_device(const struct gr_memory_plan *plan); /* of a device's own; 0: none */

/* Memory of this machine, or what a cgroup allows of it: does not depend on what is in use. */
int64_t gr_memory_machine(void);
/* Memory of this host that a new process could have; is_limited: by a cgroup, not by the machine.
 * -1 where the system does not say. */
int64_t gr_memory_available(bool *is_limited);
/* The same for what takes this process's place. */
int64_t gr_memory_available_after(bool *is_limited);
/* What this process has resident now; 0 where the system does not say. */
int64_t gr_memory_resident(void);

#endif
