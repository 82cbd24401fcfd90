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

/* Puts run.json, with a run id, if there is none; otherwise the one there must say the same.
 * Errors: ERR_USAGE listing each difference, old and new. */
gr_status gr_run_identity_claim(struct gr_store *store, const struct gr_run_identity *identity);

/* Its "dtype" into word; "" when there is no run yet.  Errors: ERR_RETRY and the store's others. */
gr_status gr_run_recorded_dtype(char word[16], struct gr_store *store);

/* Whether the run is over: done.json is there, and adapter/ is what it says.  Errors: ERR_DATA when
 * done.json is damaged. */
enum gr_run_end { GR_RUN_OPEN, GR_RUN_DONE, GR_RUN_EXPORT_DAMAGED };
gr_status gr_run_look(enum gr_run_end *end, struct gr_store *store,
                      const struct gr_adapter *adapter);
/* Puts adapter/ of a finished run again, if these values (elements) are what done.json tells of
 * (*is_it); otherwise nothing is touched. */
gr_status gr_run_export_again(bool *is_it, struct gr_store *store, const struct gr_adapter *adapter,
                              const float *values, const char *base_model);

/* Puts parent.json, the hash of the values a run begins with, if there is none; otherwise they must
 * be the same.  Errors: ERR_USAGE when the parent has changed since the run began. */
gr_status gr_run_claim_parent(struct gr_store *store, const float *values, int64_t elements);

/* Exports values (elements) as a folder of the run, "adapter" or "best": weights, then config.
 * Errors: ERR_DIVERGED when a value is not finite. */
gr_status gr_run_export(struct gr_store *store, const char *folder,
                        const struct gr_adapter *adapter, const float *values,
                        const char *base_model);
/* Puts done.json: the hashes of that export, the step, and final_loss unless it is NaN. */
gr_status gr_run_put_done(struct gr_store *store, const struct gr_adapter *adapter,
                          const float *values, const char *base_model, int64_t step,
                          double final_loss);

#endif
