/* The engine of a run: model, adapters and their state on a device, and what is done with them to
 * one micro-batch and to one step.  No files, no events, no decisions about when. */
#ifndef GR_TRAINER_ENGINE_H
#define GR_TRAINER_ENGINE_H

#include "trainer/model/transformer.h"
#include "trainer/run/device_peers.h"
#include "trainer/run/flop.h"
#include "trainer/run/memory_plan.h"
#include "trainer/run/step_results.h"
#include "trainer/run/tree.h"
#include "trainer/run/trial.h"

/* What an update did, per trial. */
struct gr_update {
    double loss;      /* sum of row losses / supervised */
    double grad_norm; /* of the mean gradient, before clipping */
    double learning_rate;
    int64_t supervised, tokens;
};

struct gr_engine {
    struct gr_device *dev;
    struct gr_comm *comm;
    const struct gr_config *config;
    struct gr_model model;
    char model_hash[65];

    struct gr_trial *trial; /* [trials] */
    int trials;
    struct gr_tree *tree;
    struct gr_pass *pass;      /* training: every trial's micro-batch stacked */
    struct gr_pass *eval_pass; /* forward only, one adapter; NULL when nothing is evaluated */
    struct gr_pass *next_pass; /* generation: one row, behind what the cache holds */
    struct gr_kv_cache cache;  /* generation */
    gr_tensor logits;          /* (1, V), generation: of the token that follows */

    struct gr_arena fixed, state, step; /* weights on the device, flat buffers, activations */
    struct gr_arena away;               /* a stash: inputs of layers, where they do not stay */
    gr_tensor param, moment1, moment2;  /* (elements of all trials) f32 */
    bool is_joined; /* the only adapter is computed with in model.joined, beside the weights */
    gr_tensor copy; /* of param in a narrower compute dtype; none in f32, and where joined */
    struct gr_adapter **adapters; /* [trials] for the pass */
    gr_tensor *gradient;          /* [trials] views of the current leaf */
    int64_t micro_batches_done;   /* by this rank, missing ones included */
    struct gr_work work;          /* of this rank's micro-batches, all trials */
    struct gr_step_results results;
    bool plan_is_told;                          /* by an earlier prepare */
    char gradient_path[GR_GRADIENT_PATH_BYTES]; /* once joined: how they go between ranks */
};

/* Decides the dtype, loads config.json and the weights of config->model, into the host's memory: a
 * device with memory of its own has them when the engine is prepared.  All ranks call it, and then
 * agree on what it returned: one may have failed alone.  Errors: those of the parts. */
gr_status gr_engine_load_model(struct gr_engine *engine, const struct gr_config *config,
                               struct gr_device *dev, struct gr_comm *comm);

/* Joins the devices of the job's ranks, as dist.backend says, and refuses a dist.reduce that needs
 * it where it cannot be.  All ranks call it; prepare does where nobody has.  Errors: ERR_DEVICE,
 * ERR_RETRY, ERR_USAGE. */
gr_status gr_engine_join(struct gr_engine *engine);

/* Memory for training `trials` trials (already initialised, taken over by the engine), and for
 * evaluating packs of eval_rows rows (0: none).  Prints the memory plan first.  One trial without
 * dropout is joined with the weights on a device with memory of its own (joined_weights.h), unless
 * GRAFT_LORA_LAYOUT says composed.  Errors: ERR_DEVICE (no memory, or more than device.memory),
 * ERR_USAGE (no such layout). */
gr_status gr_engine_prepare(struct gr_engine *engine, struct gr_trial *trial, int trials,
                            int64_t eval_rows);
/* Memory for evaluation or generation alone: rows of the pass, an adapter or NULL (borrowed).
 * Errors: as above. */
gr_status gr_engine_prepare_eval(struct gr_engine *engine, struct gr_adapter *adapter,
                                 int64_t rows);
/* For generation: the longest prompt, and the longest text with it, in tokens. */
gr_status gr_engine_prepare_generate(struct gr_engine *engine, struct gr_adapter *adapter,
                                     int64_t prompt_tokens, int64_t text_tokens);
/* Gives back everything but model and weights: the engine may be prepared again, for generation
 * after training.  The memory plan is not printed again then. */
void gr_engine_retire(struct gr_engine *engine);
void gr_engine_release(struct gr_engine *engine);

/* A run's memory, told without taking it (graft estimate): the weights' files are looked at as
 * gr_weights_examine does, then the layout of a job of `ranks` processes is measured.  The engine
 * is good for nothing but gr_engine_release then.  They fill weight_bytes, then the rest that the
 * engine knows: not save_bytes, not program_bytes. */
gr_status gr_engine_examine_model(struct gr_engine *engine, struct gr_memory_plan *plan,
                                  const struct gr_config *config, struct gr_device *dev,
                                  struct gr_comm *comm, bool reads_values);
gr_status gr_engine_plan(struct gr_engine *engine, struct gr_memory_plan *plan,
                         struct gr_trial *trial, int trials, int64_t eval_rows, int ranks);

/* Fresh adapters: PEFT's initial values, zero moments.  Errors, here and below: those of the
 * device. */
gr_status gr_engine_init_adapters(struct gr_engine *engine);
/* values (elements of the adapter): host memory <-> the adapter's part of the state. */
gr_status gr_engine_get_adapter(struct gr_engine *engine, float *values, int trial);
gr_status gr_engine_set_adapter(struct gr_engine *engine, const float *values, int trial);

/* The same with the moments: all a trial's training is (snapshot.h). */
gr_status gr_engine_get_state(struct gr_engine *engine, float *param, float *moment1,
                              float *moment2, int trial);
gr_status gr_engine_set_state(struct gr_engine *engine, const float *param, const float *moment1,
                              const float *moment2, int trial);

/* Asks the device once for every op of a micro-batch's pass, so that it chooses what computes them
 * (kernels/device.h); after gr_engine_init_adapters, before the first step.  Changes nothing that
 * is kept.  Nothing on a device that has no choices. */
gr_status gr_engine_rehearse(struct gr_engine *engine);
/* Queues forward, loss and backward of micro-batch m of a step, all trials stacked: one leaf of the
 * tree. */
gr_status gr_engine_micro_batch(struct gr_engine *engine, int64_t step, int64_t m);
/* Reduce, scale by 1/N, clip, AdamW; all ranks.  Waits for the device, as nothing else of a step
 * does (but gradients that go through the host).  update[trials] is overwritten.  Errors:
 * ERR_DIVERGED naming step, micro-batch and tensor (loss or gradient not finite: a trial whose
 * gradient is not has the parameters and moments it had), ERR_RETRY (a peer was lost). */
gr_status gr_engine_update(struct gr_engine *engine, struct gr_update *update, int64_t step);

/* Forward and loss of one batch through the eval pass: adds to *sums, which may become non-finite.
 */
gr_status gr_engine_eval_batch(struct gr_engine *engine, struct gr_sums *sums,
                               const struct gr_batch *batch, int trial);

#endif
