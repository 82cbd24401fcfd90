/* Naive f64 twin of causal attention over packed documents: one row of weights at a time.  Plain
 * gapless arrays; letters as in kernels/ops.h. */
#ifndef GR_TESTS_REF_ATTENTION_H
#define GR_TESTS_REF_ATTENTION_H

#include <stdint.h>

struct ref_attention {
    int64_t n, heads, kv_heads, head_dim;
    int64_t documents, window;
    const int32_t *docs; /* (documents, 2) */
    double scale;
    const double *q, *k, *v; /* (n, heads, head_dim), k and v (n, kv_heads, head_dim) */
    double *o, *lse;         /* (n, heads, head_dim), (n, heads): out, o in for the backward */
    const double *d_o;
    double *dq, *dk, *dv;
};
void ref_attention_forward(const struct ref_attention *a);
void ref_attention_backward(const struct ref_attention *a);

#endif
