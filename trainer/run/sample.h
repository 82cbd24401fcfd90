/* The choice of the next token. */
#ifndef GR_TRAINER_SAMPLE_H
#define GR_TRAINER_SAMPLE_H

#include <stdint.h>

struct gr_sampling {
    double temperature; /* what logits are divided by; 0: the likeliest token, always */
    double top_p;       /* in [0, 1]: among the likeliest tokens that have this probability
                           together, one at least.  Holtzman et al. 2019, arXiv:1904.09751 */
    uint64_t seed;
};

/* A token, candidate for the next. */
struct gr_candidate {
    float logit;
    int32_t id;
};

/* The index into logits[0..count), of the likeliest the first; a pure function of its arguments:
 * `position` numbers the draws of a seed.  candidate[count]: scratch.  -1: a logit is not finite.
 */
int32_t gr_sample(struct gr_candidate *candidate, const float *logits, int64_t count,
                  const struct gr_sampling *sampling, int64_t position);

#endif
