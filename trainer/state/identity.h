/* What a run is: run.json and parent.json, put by its first start and compared by every later one.
 * Only the I/O rank calls these. */
#ifndef GR_TRAINER_IDENTITY_H
#define GR_TRAINER_IDENTITY_H

#include "data/store/store.h"
#include "trainer/config.h"

#include <jansson.h>

struct gr_run_identity {
    const struct gr_config *config; /* its identity keys */
    const char *model_hash, *tokenizer_hash, *train_hash, *eval_hash;
    const char *dtype; /* what device.dtype resolved to */
    int64_t total_steps;
};

/* If there is a run.json it must say the same.  Errors: ERR_USAGE listing each difference, old and
 * new; ERR_CORRUPT when there are checkpoints without one. */
gr_status gr_run_identity_check(bool *is_there, struct gr_store *store,
                                const struct gr_run_identity *identity);

/* Puts run.json, with a run id, if there is none; otherwise checks.  Errors: those of the check. */
gr_status gr_run_identity_claim(struct gr_store *store, const struct gr_run_identity *identity);

/* Its "dtype" into word; "" when there is no run yet.  Errors: ERR_RETRY and the store's others. */
gr_status gr_run_recorded_dtype(char word[16], struct gr_store *store);

/* Puts parent.json, the hash of the values a run begins with, if there is none; otherwise they must
 * be the same.  Errors: ERR_USAGE when the parent has changed since the run began. */
gr_status gr_run_claim_parent(struct gr_store *store, const float *values, int64_t elements);

/* Puts the object, laid out for people, if there is none of this key; else ERR_EXISTS. */
gr_status gr_run_put_json(struct gr_store *store, const char *key, const json_t *object);

#endif
