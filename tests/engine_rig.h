/* A training engine on the golden Llama model and random documents, for tests of whole steps; alone
 * or under mpirun. */
#ifndef GR_TESTS_ENGINE_RIG_H
#define GR_TESTS_ENGINE_RIG_H

#include "trainer/run/engine.h"

enum { ENGINE_RIG_TRIALS = 3, ENGINE_RIG_DOCUMENTS = 12 };

struct engine_rig {
    struct gr_config config;
    struct gr_comm *comm;
    struct gr_device *dev;
    struct gr_documents documents;
    struct gr_trial trial[ENGINE_RIG_TRIALS];
    struct gr_engine engine;
};

/* backend: "cpu", "cuda".  assignments: configuration over that of the rig, which is f32, r = 4,
 * packs of 96 tokens, a rate of 1e-2 at once, no limit of the norm; ends with NULL. */
void engine_rig_open(struct engine_rig *r, const char *backend, const char *const *assignments);
/* Memory and fresh adapters.  Trials differ in their seed, 42 and up: other packs, other initial
 * adapters. */
void engine_rig_prepare(struct engine_rig *r, int trials);
/* This rank's micro-batches of a step; then the update by those of all ranks. */
void engine_rig_compute(struct engine_rig *r, int64_t step);
void engine_rig_step(struct engine_rig *r, struct gr_update *update, int64_t step);
/* Layer 0's v_proj has no A and a B of that size, all other B are 0: the loss is that of the base
 * model, the gradient of that A is as large as the B.  Moments are 0. */
void engine_rig_set_b_of_v(struct engine_rig *r, float size, int trial);
/* Parameters and both moments of a trial, for the caller to free. */
float *engine_rig_state(struct engine_rig *r, int trial);
void engine_rig_close(struct engine_rig *r);

#endif
