/* A trial: one adapter being trained, with its own data cursor, schedule, seed and optimizer spans.
 * An ordinary run has one; a stacked sweep has several over the same base model. */
#ifndef GR_TRAINER_TRIAL_H
#define GR_TRAINER_TRIAL_H

#include "data/loader.h"
#include "trainer/config.h"
#include "trainer/model/lora.h"
#include "trainer/run/schedule.h"

struct gr_trial {
    int number;
    uint64_t seed;
    enum gr_schedule_kind schedule;
    struct gr_adapter *adapter;
    int64_t begin, end; /* its part of the flat buffers */
    struct gr_loader *loader;
    struct gr_batch batch;
    struct gr_adamw_span *span; /* [spans] relative to begin; rates are those of the last step */
    double *span_ratio;         /* [spans] learning rate over the trial's: LoRA+ */
    int spans;
};

/* Builds adapter, loader and batch from a configuration.  begin: first free element of the flat
 * buffers.  Errors: ERR_USAGE, ERR_DATA from the parts. */
gr_status gr_trial_init(struct gr_trial *trial, const struct gr_config *config,
                        const struct gr_model_config *model, const struct gr_documents *documents,
                        int number, int64_t begin);
/* Each update rewrites its span of the adapter's copy, where it has one. */
void gr_trial_bind_copy(struct gr_trial *trial);
void gr_trial_release(struct gr_trial *trial);

/* Learning rate of step k >= 1, before LoRA+: learning_rate * lambda(k - 1). */
double gr_trial_learning_rate(const struct gr_trial *trial, const struct gr_config *config,
                              int64_t step);

/* The PEFT words of a configuration; release with gr_lora_config_release. */
void gr_lora_config_from(struct gr_lora_config *lora, const struct gr_config *config);

#endif
