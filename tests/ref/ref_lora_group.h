/* Naive f64 twin of the linear groups: row by row, element by element.  Plain gapless arrays in row
 * order; letters as in kernels/ops.h. */
#ifndef GR_TESTS_REF_LORA_GROUP_H
#define GR_TESTS_REF_LORA_GROUP_H

#include "kernels/ops.h"

enum { REF_MOST_R = 64 };

struct ref_linear {
    int64_t out;
    const double *weight; /* (out, in) */
    const double *bias;   /* (out) or NULL */
};

struct ref_lora {
    int64_t r; /* 0: no adapter here */
    const double *a, *b;
    double scale;
    float dropout;
    double *da, *db; /* overwritten for adapters that have a segment */
};

struct ref_lora_group {
    int layer, module, linears, segments;
    const struct ref_linear *linear;  /* [linears] */
    const struct ref_lora *lora;      /* [adapters][linears] */
    const struct gr_segment *segment; /* [segments] */
    bool train;
    int64_t n, in;
    const double *x;        /* (n, in) */
    const double *residual; /* as y, or NULL */
    double *y;              /* (n, sum of out) */
    const double *dy;
    double *dx; /* may be NULL */
    /* S and dS as an op stored them, (n, s_width), linear i from column s_at[i]; NULL: computed
     * here */
    const double *s, *ds;
    int64_t s_width, s_at[8];
};

/* s, ds (n, s_width) <- what the op should store there; zeros elsewhere */
void ref_lora_group_s(double *s, const struct ref_lora_group *g);
void ref_lora_group_ds(double *ds, const struct ref_lora_group *g);

void ref_lora_group_forward(const struct ref_lora_group *g);
void ref_lora_group_backward(const struct ref_lora_group *g);

#endif
