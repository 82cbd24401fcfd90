/* Text from a model: one token after the other. */
#ifndef GR_TRAINER_GENERATE_H
#define GR_TRAINER_GENERATE_H

#include "trainer/run/engine.h"

struct gr_generate_options {
    int64_t max_new_tokens;
    double temperature; /* 0: the likeliest token, always */
    double top_p;       /* in (0, 1]: the smallest set of tokens with that probability */
    uint64_t seed;
    int64_t stop[GR_MODEL_MAX_EOS + 2]; /* ids that end the text: eos, end of turn */
    int stops;
};

/* Called with each new token. */
typedef gr_status (*gr_generate_sink)(void *context, uint32_t id);

/* Continues prompt[0..length).  Ends at a stop token (not handed on), after max_new_tokens, or when
 * the engine's rows are full.  The engine is prepared for evaluation.  Errors: ERR_USAGE when the
 * prompt does not fit. */
gr_status gr_generate(struct gr_engine *engine, const uint32_t *prompt, int64_t length,
                      const struct gr_generate_options *options, gr_generate_sink sink,
                      void *context);

#endif
