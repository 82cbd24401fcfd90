/* See ref_lora_group.h. */
#include "tests/ref/ref_lora_group.h"

#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"

#include <string.h>

/* One row of x with one linear of its segment's adapter. */
struct place {
    const struct gr_segment *segment; /* NULL: none */
    const struct ref_lora *lora;      /* NULL: none */
    int64_t row;
    int linear;
};

static struct place place_of(const struct ref_lora_group *g, int64_t row, int linear)
{
    struct place p = {.row = row, .linear = linear};

    for (int i = 0; i < g->segments; i++)
        if (row >= g->segment[i].row_begin && row < g->segment[i].row_end)
            p.segment = &g->segment[i];
    if (p.segment != NULL && p.segment->adapter >= 0)
        p.lora = &g->lora[p.segment->adapter * g->linears + linear];
    if (p.lora != NULL && p.lora->r == 0)
        p.lora = NULL;
    return p;
}

/* What x's element in column j of this row is multiplied by, from the rule in ops.h. */
static double mask_of(const struct ref_lora_group *g, struct place p, int64_t j)
{
    const struct gr_segment *s = p.segment;
    int64_t element = (p.row - s->row_begin) * g->in + j;
    uint32_t stream = 3u << 24 | (uint32_t)g->layer << 8 | (uint32_t)(g->module + p.linear);
    struct gr_philox_block block =
        gr_philox(s->rng.seed, (uint32_t)(element / 4), stream, s->rng.micro_batch, s->rng.step);
    double uniform = (block.word[element % 4] >> 8) / 16777216.0;

    if (!g->train || p.lora->dropout == 0.0f)
        return 1.0;
    return uniform >= (double)p.lora->dropout ? 1.0 / (1.0 - (double)p.lora->dropout) : 0.0;
}

static int64_t stored_at(const struct ref_lora_group *g, struct place p)
{
    return p.row * g->s_width + g->s_at[p.linear];
}

/* mask (in);  s (r) <- scale A (mask * x) */
static void make_s(double *s, double *mask, const struct ref_lora_group *g, struct place p)
{
    for (int64_t j = 0; j < g->in; j++)
        mask[j] = mask_of(g, p, j);
    for (int64_t k = 0; k < p.lora->r; k++) {
        s[k] = 0;
        if (g->s != NULL) {
            s[k] = g->s[stored_at(g, p) + k];
            continue;
        }
        for (int64_t j = 0; j < g->in; j++)
            s[k] += p.lora->scale * p.lora->a[k * g->in + j] * mask[j] * g->x[p.row * g->in + j];
    }
}

static int64_t sum_of_out(const struct ref_lora_group *g, int linears)
{
    int64_t sum = 0;

    for (int i = 0; i < linears; i++)
        sum += g->linear[i].out;
    return sum;
}

static void forward_row(const struct ref_lora_group *g, struct place p)
{
    const struct ref_linear *l = &g->linear[p.linear];
    int64_t first = p.row * sum_of_out(g, g->linears) + sum_of_out(g, p.linear);
    double s[REF_MOST_R], *mask = GR_NEW_ARRAY(double, g->in);

    if (p.lora != NULL)
        make_s(s, mask, g, p);
    for (int64_t i = 0; i < l->out; i++) {
        double y = g->residual == NULL ? 0 : g->residual[first + i];

        for (int64_t j = 0; j < g->in; j++)
            y += l->weight[i * g->in + j] * g->x[p.row * g->in + j];
        y += l->bias == NULL ? 0 : l->bias[i];
        for (int64_t k = 0; p.lora != NULL && k < p.lora->r; k++)
            y += p.lora->b[i * p.lora->r + k] * s[k];
        g->y[first + i] = y;
    }
    gr_free(mask);
}

void ref_lora_group_forward(const struct ref_lora_group *g)
{
    for (int64_t row = 0; row < g->n; row++)
        for (int i = 0; i < g->linears; i++)
            forward_row(g, place_of(g, row, i));
}

/* ds (r) <- scale dy B */
static void make_ds(double *ds, const struct ref_lora_group *g, struct place p, const double *dy)
{
    for (int64_t k = 0; k < p.lora->r; k++) {
        ds[k] = 0;
        if (g->ds != NULL) {
            ds[k] = g->ds[stored_at(g, p) + k];
            continue;
        }
        for (int64_t i = 0; i < g->linear[p.linear].out; i++)
            ds[k] += p.lora->scale * dy[i] * p.lora->b[i * p.lora->r + k];
    }
}

static const double *dy_of(const struct ref_lora_group *g, struct place p)
{
    return g->dy + p.row * sum_of_out(g, g->linears) + sum_of_out(g, p.linear);
}

void ref_lora_group_s(double *s, const struct ref_lora_group *g)
{
    double *mask = GR_NEW_ARRAY(double, g->in);

    memset(s, 0, (size_t)(g->n * g->s_width) * sizeof *s);
    for (int64_t i = 0; i < g->n * g->linears; i++) {
        struct place p = place_of(g, i / g->linears, (int)(i % g->linears));

        if (p.lora != NULL)
            make_s(s + stored_at(g, p), mask, g, p);
    }
    gr_free(mask);
}

void ref_lora_group_ds(double *ds, const struct ref_lora_group *g)
{
    memset(ds, 0, (size_t)(g->n * g->s_width) * sizeof *ds);
    for (int64_t i = 0; i < g->n * g->linears; i++) {
        struct place p = place_of(g, i / g->linears, (int)(i % g->linears));

        if (p.lora != NULL)
            make_ds(ds + stored_at(g, p), g, p, dy_of(g, p));
    }
}

/* Adds this row's part to da, db and dx. */
static void backward_lora(const struct ref_lora_group *g, struct place p, const double *dy)
{
    const struct ref_lora *lora = p.lora;
    double s[REF_MOST_R], ds[REF_MOST_R], *mask = GR_NEW_ARRAY(double, g->in);

    make_s(s, mask, g, p);
    make_ds(ds, g, p, dy);
    for (int64_t k = 0; k < lora->r; k++)
        for (int64_t i = 0; i < g->linear[p.linear].out; i++)
            lora->db[i * lora->r + k] += dy[i] * s[k];
    for (int64_t k = 0; k < lora->r; k++)
        for (int64_t j = 0; j < g->in; j++) {
            lora->da[k * g->in + j] += ds[k] * mask[j] * g->x[p.row * g->in + j];
            if (g->dx != NULL)
                g->dx[p.row * g->in + j] += mask[j] * ds[k] * lora->a[k * g->in + j];
        }
    gr_free(mask);
}

static void backward_row(const struct ref_lora_group *g, struct place p)
{
    const struct ref_linear *l = &g->linear[p.linear];
    const double *dy = dy_of(g, p);

    for (int64_t i = 0; g->dx != NULL && i < l->out; i++)
        for (int64_t j = 0; j < g->in; j++)
            g->dx[p.row * g->in + j] += dy[i] * l->weight[i * g->in + j];
    if (p.lora != NULL)
        backward_lora(g, p, dy);
}

void ref_lora_group_backward(const struct ref_lora_group *g)
{
    for (int s = 0; s < g->segments; s++)
        for (int i = 0; i < g->linears && g->segment[s].adapter >= 0; i++) {
            const struct ref_lora *lora = &g->lora[g->segment[s].adapter * g->linears + i];

            if (lora->r == 0)
                continue;
            memset(lora->da, 0, (size_t)(lora->r * g->in) * sizeof(double));
            memset(lora->db, 0, (size_t)(lora->r * g->linear[i].out) * sizeof(double));
        }
    if (g->dx != NULL)
        memset(g->dx, 0, (size_t)(g->n * g->in) * sizeof(double));
    for (int64_t row = 0; row < g->n; row++)
        for (int i = 0; i < g->linears; i++)
            backward_row(g, place_of(g, row, i));
}
