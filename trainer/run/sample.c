/* Sampling with temperature and top-p.  See sample.h. */
#include "trainer/run/sample.h"

#include "kernels/base/philox.h"

#include <math.h>
#include <stdlib.h>

static int compare_candidates(const void *a, const void *b)
{
    const struct gr_candidate *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* -1: a logit is not finite. */
static int64_t find_likeliest(const float *logits, int64_t count)
{
    int64_t best = 0;

    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(logits[i]))
            return -1;
        if (logits[i] > logits[best])
            best = i;
    }
    return best;
}

/* Probability relative to the likeliest token's. */
static double weigh(float logit, float likeliest, double temperature)
{
    return exp(((double)logit - (double)likeliest) / temperature);
}

/* The tokens to choose among: fills candidate and *sum (their weight); returns how many.
 *
 * Tokens of less than (1 - top_p) / count each have less than 1 - top_p together, so those above
 * hold all of the nucleus: only they are sorted. */
static int64_t find_nucleus(struct gr_candidate *candidate, double *sum, const float *logits,
                            int64_t count, int64_t likeliest, const struct gr_sampling *s)
{
    double total = 0, least;
    int64_t kept = 0, chosen = 0;

    for (int64_t i = 0; i < count; i++)
        total += weigh(logits[i], logits[likeliest], s->temperature);
    least = (1 - s->top_p) / (double)count * total;
    for (int64_t i = 0; i < count; i++) {
        if (weigh(logits[i], logits[likeliest], s->temperature) >= least || i == likeliest)
            candidate[kept++] = (struct gr_candidate){logits[i], (int32_t)i};
    }
    *sum = total;
    if (s->top_p == 1)
        return kept;
    qsort(candidate, (size_t)kept, sizeof *candidate, compare_candidates);
    *sum = 0;
    while (chosen < kept && (chosen == 0 || *sum < s->top_p * total))
        *sum += weigh(candidate[chosen++].logit, logits[likeliest], s->temperature);
    return chosen;
}

int32_t gr_sample(struct gr_candidate *candidate, const float *logits, int64_t count,
                  const struct gr_sampling *s, int64_t position)
{
    struct gr_philox_block random =
        gr_philox(s->seed, (uint32_t)position, gr_rng_stream(GR_RNG_SAMPLE, 0, 0), 0, 0);
    int64_t likeliest = find_likeliest(logits, count), nucleus;
    double sum, target;

    if (likeliest < 0 || s->temperature == 0)
        return (int32_t)likeliest;
    nucleus = find_nucleus(candidate, &sum, logits, count, likeliest, s);
    target = (double)gr_uniform(random.word[0]) * sum;
    for (int64_t i = 0; i < nucleus; i++) {
        target -= weigh(candidate[i].logit, logits[likeliest], s->temperature);
        if (target < 0)
            return candidate[i].id;
    }
    return candidate[nucleus - 1].id; /* rounding left a rest */
}
