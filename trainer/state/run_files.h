/* How a run ends: the exported adapter, and done.json, which says that it is finished.  Only the
 * I/O rank calls these. */
#ifndef GR_TRAINER_RUN_FILES_H
#define GR_TRAINER_RUN_FILES_H

#include "data/store/store.h"
#include "trainer/model/lora.h"

/* Whether the run is over: done.json is there, and adapter/ is what it says.  Errors: ERR_DATA when
 * done.json is damaged. */
enum gr_run_end { GR_RUN_OPEN, GR_RUN_DONE, GR_RUN_EXPORT_DAMAGED };
gr_status gr_run_look(enum gr_run_end *end, struct gr_store *store,
                      const struct gr_adapter *adapter);
/* Puts adapter/ of a finished run again, if these values (elements) are what done.json tells of
 * (*is_it); otherwise nothing is touched. */
gr_status gr_run_export_again(bool *is_it, struct gr_store *store, const struct gr_adapter *adapter,
                              const float *values, const char *base_model);

/* Exports values (elements) as a folder of the run, "adapter" or "best": weights, then config.
 * Errors: ERR_DIVERGED when a value is not finite. */
gr_status gr_run_export(struct gr_store *store, const char *folder,
                        const struct gr_adapter *adapter, const float *values,
                        const char *base_model);

/* What a run came to. */
struct gr_run_result {
    int64_t step;
    double train_loss; /* of the last step; NaN: this start made none */
    int64_t best_step; /* of the least evaluation loss; 0: there was no evaluation */
    double best_eval_loss;
};
/* best_step and best_eval_loss of a finished run whose best/ is not there any more; best_step 0:
 * nothing is lost. */
gr_status gr_run_lost_best(struct gr_run_result *lost, struct gr_store *store);
/* Puts done.json: the hashes of that export, and the result. */
gr_status gr_run_put_done(struct gr_store *store, const struct gr_adapter *adapter,
                          const float *values, const char *base_model,
                          const struct gr_run_result *result);

#endif
