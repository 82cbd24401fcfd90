/* A base model with an adapter added into its weights: W + scale B A in f32, rounded once. */
#ifndef GR_TRAINER_MERGE_H
#define GR_TRAINER_MERGE_H

#include "trainer/model/lora.h"

struct gr_merge_options {
    bool to_f32; /* else each tensor keeps the dtype it has in the base */
    int threads;
};

/* Writes `output`, a Hugging Face directory that loads without the adapter: the base's shards with
 * the adapted linears replaced, its index, and its other files (config, tokenizer) as they are, but
 * for the dtype that config.json tells.  One tensor at a time is in memory; nothing stays behind
 * when it fails.  values (adapter->elements): host memory.
 * Errors: ERR_USAGE (`output` exists), ERR_DATA (the base; a result that is not finite), ERR_RETRY
 * (the disk). */
gr_status gr_merge(const char *output, const char *base, const struct gr_adapter *adapter,
                   const float *values, const struct gr_merge_options *options);

#endif
