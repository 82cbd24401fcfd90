/* See ref_attention.h. */
#include "tests/ref/ref_attention.h"

#include "kernels/base/alloc.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Does row i see row j?  Same document, not later, within the window. */
static bool sees(const struct ref_attention *a, int64_t i, int64_t j)
{
    for (int64_t d = 0; d < a->documents; d++) {
        int32_t begin = a->docs[2 * d], end = a->docs[2 * d + 1];

        if (begin <= i && i < end && begin <= j && j < end)
            return j <= i && (a->window == 0 || i - j < a->window);
    }
    return false;
}

static const double *query(const double *t, const struct ref_attention *a, int64_t row,
                           int64_t head)
{
    return t + (row * a->heads + head) * a->head_dim;
}

/* Where query head `head` reads keys and values. */
static int64_t key_at(const struct ref_attention *a, int64_t row, int64_t head)
{
    return (row * a->kv_heads + head / (a->heads / a->kv_heads)) * a->head_dim;
}

static double dot(const double *x, const double *y, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* p (n) <- the weights of query i; returns lse.  A row that sees nothing: zeros, 0. */
static double weights(double *p, const struct ref_attention *a, int64_t i, int64_t head)
{
    double most = -INFINITY, sum = 0;

    for (int64_t j = 0; j < a->n; j++) {
        p[j] = -INFINITY;
        if (sees(a, i, j))
            p[j] = a->scale * dot(query(a->q, a, i, head), a->k + key_at(a, j, head), a->head_dim);
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < a->n; j++) {
        p[j] = isfinite(p[j]) ? exp(p[j] - most) : 0;
        sum += p[j];
    }
    for (int64_t j = 0; j < a->n && sum > 0; j++)
        p[j] /= sum;
    return sum > 0 ? most + log(sum) : 0;
}

void ref_attention_forward(const struct ref_attention *a)
{
    double *p = GR_NEW_ARRAY(double, a->n);

    memset(a->o, 0, (size_t)(a->n * a->heads * a->head_dim) * sizeof(double));
    for (int64_t i = 0; i < a->n; i++)
        for (int64_t h = 0; h < a->heads; h++) {
            double *o = a->o + (i * a->heads + h) * a->head_dim;

            a->lse[i * a->heads + h] = weights(p, a, i, h);
            for (int64_t j = 0; j < a->n; j++)
                for (int64_t c = 0; c < a->head_dim && p[j] > 0; c++)
                    o[c] += p[j] * a->v[key_at(a, j, h) + c];
        }
    gr_free(p);
}

/* Adds query i's part: dv_j += p_j do,  ds_j = p_j (do.v_j - do.o),
 * dq += scale ds_j k_j,  dk_j += scale ds_j q. */
static void backward_query(const struct ref_attention *a, const double *p, int64_t i, int64_t head)
{
    const double *q = query(a->q, a, i, head), *d_o = query(a->d_o, a, i, head);
    double *dq = a->dq + (i * a->heads + head) * a->head_dim;
    double delta = dot(d_o, query(a->o, a, i, head), a->head_dim);

    for (int64_t j = 0; j < a->n; j++) {
        int64_t at = key_at(a, j, head);
        double ds = p[j] * (dot(d_o, a->v + at, a->head_dim) - delta);

        for (int64_t c = 0; c < a->head_dim && p[j] > 0; c++) {
            a->dv[at + c] += p[j] * d_o[c];
            dq[c] += a->scale * ds * a->k[at + c];
            a->dk[at + c] += a->scale * ds * q[c];
        }
    }
}

void ref_attention_backward(const struct ref_attention *a)
{
    size_t row = (size_t)(a->n * a->head_dim) * sizeof(double);
    double *p = GR_NEW_ARRAY(double, a->n);

    memset(a->dq, 0, row * (size_t)a->heads);
    memset(a->dk, 0, row * (size_t)a->kv_heads);
    memset(a->dv, 0, row * (size_t)a->kv_heads);
    for (int64_t i = 0; i < a->n; i++)
        for (int64_t h = 0; h < a->heads; h++) {
            weights(p, a, i, h);
            backward_query(a, p, i, h);
        }
    gr_free(p);
}
