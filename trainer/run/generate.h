/* Text from a model: one token after the other. */
#ifndef GR_TRAINER_GENERATE_H
#define GR_TRAINER_GENERATE_H

#include "trainer/run/engine.h"
#include "trainer/run/sample.h"

struct gr_generate_options {
    int64_t max_new_tokens;
    int64_t tokens; /* ids from here on are nobody's (padding of the vocabulary); 0: none are */
    struct gr_sampling sampling;
    int64_t stop[GR_MODEL_MAX_EOS + 2]; /* ids that end the text: eos, end of turn */
    int stops;
    bool base_only; /* as if there were no adapter */
};
/* The text ends at this id too; -1 is none. */
void gr_generate_add_stop(struct gr_generate_options *options, int64_t id);

/* Called with each new token. */
typedef gr_status (*gr_generate_sink)(void *context, uint32_t id);

/* Continues prompt[0..length).  Ends at a stop token (not handed on), after max_new_tokens, or when
 * the engine's cache is full.  The engine is prepared for generation.  Errors: ERR_USAGE when the
 * prompt does not fit, ERR_DATA when the model gives logits that are not finite. */
gr_status gr_generate(struct gr_engine *engine, const uint32_t *prompt, int64_t length,
                      const struct gr_generate_options *options, gr_generate_sink sink,
                      void *context);

/* A step of it: puts the tokens behind those in engine->cache, all at once when it is empty and
 * else one; logits (V, host) <- of what follows.  base_only: as above.  Errors:
 * those of the device. */
gr_status gr_generate_extend(struct gr_engine *engine, float *logits, const int32_t *ids,
                             int64_t count, bool base_only);

#endif
