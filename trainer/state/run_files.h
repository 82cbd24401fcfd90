/* The files of a run beside its checkpoints: run.json (what the run is), the exported adapter, and
 * done.json (it is finished).  Only the I/O rank calls these. */
#ifndef GR_TRAINER_RUN_FILES_H
#define GR_TRAINER_RUN_FILES_H

#include "data/store/store.h"
#include "trainer/config.h"
#include "trainer/model/lora.h"

struct gr_run_identity {
    const struct gr_config *config; /* its identity keys */
    const char *model_hash, *tokenizer_hash, *train_hash, *eval_hash;
    const char *dtype; /* what device.dtype resolved to */
    int64_t total_steps;
};

/* Puts run.json if there is none; otherwise the one there must say the same.
 * Errors: ERR_USAGE listing each difference, old and new. */
gr_status gr_run_identity_claim(struct gr_store *store, const struct gr_run_identity *identity);

/* *is_done: done.json is there. */
gr_status gr_run_is_done(bool *is_done, struct gr_store *store);

/* Exports values (elements) as adapter/, then puts done.json with the hashes and final_loss. */
gr_status gr_run_finish(struct gr_store *store, const struct gr_adapter *adapter,
                        const float *values, const char *base_model, int64_t step,
                        double final_loss);

#endif
