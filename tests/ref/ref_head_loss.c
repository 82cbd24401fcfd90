/* See ref_head_loss.h. */
#include "tests/ref/ref_head_loss.h"

#include "kernels/base/alloc.h"

#include <math.h>
#include <string.h>

static void logits_of(double *logits, const struct ref_head_loss *a, int32_t row)
{
    for (int64_t v = 0; v < a->vocab; v++) {
        logits[v] = 0;
        for (int64_t j = 0; row >= 0 && j < a->hidden; j++)
            logits[v] += a->h[row * a->hidden + j] * a->weight[v * a->hidden + j];
    }
}

/* Returns logsumexp(logits). */
static double log_sum_exp(const double *logits, int64_t vocab)
{
    double most = logits[0], sum = 0;

    for (int64_t v = 0; v < vocab; v++)
        most = fmax(most, logits[v]);
    for (int64_t v = 0; v < vocab; v++)
        sum += exp(logits[v] - most);
    return most + log(sum);
}

void ref_head_loss(const struct ref_head_loss *a)
{
    double *logits = GR_NEW_ARRAY(double, a->vocab);

    if (a->dh != NULL)
        memset(a->dh, 0, (size_t)(a->n * a->hidden) * sizeof(double));
    for (int64_t i = 0; i < a->s; i++) {
        double lse;

        a->row_loss[i] = 0;
        if (a->rows[i] < 0)
            continue;
        logits_of(logits, a, a->rows[i]);
        lse = log_sum_exp(logits, a->vocab);
        a->row_loss[i] = lse - logits[a->targets[i]];
        for (int64_t v = 0; v < a->vocab && a->dh != NULL; v++) {
            double dlogit = exp(logits[v] - lse) - (v == a->targets[i] ? 1 : 0);

            for (int64_t j = 0; j < a->hidden; j++)
                a->dh[a->rows[i] * a->hidden + j] += dlogit * a->weight[v * a->hidden + j];
        }
    }
    gr_free(logits);
}

void ref_head_logits(double *logits, const struct ref_head_loss *a)
{
    for (int64_t i = 0; i < a->s; i++)
        logits_of(logits + i * a->vocab, a, a->rows[i]);
}
