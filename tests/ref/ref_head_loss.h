/* Naive f64 twin of the head with its loss.  Plain gapless arrays; letters as in kernels/ops.h. */
#ifndef GR_TESTS_REF_HEAD_LOSS_H
#define GR_TESTS_REF_HEAD_LOSS_H

#include <stdint.h>

struct ref_head_loss {
    int64_t n, hidden, vocab, s;
    const double *h, *weight;      /* (n, hidden), (vocab, hidden) */
    const int32_t *rows, *targets; /* (s); row -1: padding */
    double *row_loss;              /* (s) */
    double *dh;                    /* (n, hidden) or NULL: d sum(row_loss) / dh */
};
void ref_head_loss(const struct ref_head_loss *a);

/* logits (s, vocab) <- h[rows] weight^T; zeros for row -1 */
void ref_head_logits(double *logits, const struct ref_head_loss *a);

#endif
