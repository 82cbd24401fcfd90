/* See lora_group_case.h. */
#include "tests/lora_group_case.h"

#include "kernels/base/alloc.h"
#include "kernels/joined.h"

static gr_tensor matrix(const struct group_case *c, int64_t rows, int64_t columns)
{
    return gr_tensor_2d(NULL, c->dtype, rows, columns);
}

static void make_lora(struct rig *r, struct gr_lora *lora, const struct group_case *c, int adapter,
                      int linear)
{
    int64_t rank = c->r[adapter][linear];

    *lora = (struct gr_lora){.scale = 0.5f + (float)adapter + (linear == 2 ? 0.25f : 0.0f),
                             .dropout = c->dropout};
    if (rank == 0)
        return;
    lora->a = rig_random(r, matrix(c, rank, c->in), c->gap, -1, 1);
    lora->b = rig_random(r, matrix(c, c->out[linear], rank), c->gap, -1, 1);
    lora->da = rig_tensor(r, gr_tensor_2d(NULL, GR_F32, rank, c->in), c->gap);
    lora->db = rig_tensor(r, gr_tensor_2d(NULL, GR_F32, c->out[linear], rank), c->gap);
}

/* Weights, A and B move into one matrix, x and dy into buffers with room. */
static void join(struct group *b, struct rig *r, const struct group_case *c, int64_t out, int64_t s)
{
    struct gr_lora_group *g = &b->g;
    struct gr_joined_shape shape = {.linears = g->linears, .in = c->in};
    double *zeros = GR_NEW_ARRAY(double, (out + s) * s);
    gr_tensor x, dy;

    for (int i = 0; i < g->linears; i++) {
        shape.out[i] = c->out[i];
        shape.r[i] = c->r[0][i];
    }
    g->joined = rig_random(r, matrix(c, out + s, c->in + s), c->gap, -1, 1);
    rig_write(r, gr_tensor_columns(g->joined, c->in, c->in + s), zeros);
    gr_free(zeros);
    for (int i = 0; i < g->linears; i++) {
        struct gr_joined_parts parts = gr_joined_parts(g->joined, &shape, i);

        b->linear[i].weight = parts.weight;
        if (shape.r[i] > 0)
            gr_copy(r->dev, parts.b, b->lora[i].b);
        b->lora[i].a = parts.a;
        b->lora[i].b = parts.b;
    }
    x = rig_random(r, matrix(c, c->n, c->in + s), c->gap, -1, 1);
    dy = rig_random(r, matrix(c, c->n, out + s), c->gap, -1, 1);
    g->x = gr_tensor_columns(x, 0, c->in);
    g->dy = gr_tensor_columns(dy, 0, out);
    g->ds = gr_tensor_columns(dy, out, out + s);
}

void lora_group_make(struct group *b, struct rig *r, const struct group_case *c)
{
    struct gr_lora_group *g = &b->g;
    int64_t out = 0, s = 0;

    *g = (struct gr_lora_group){.layer = 2, .module = 4, .linear = b->linear, .lora = b->lora};
    while (g->linears < LINEARS_MAX && c->out[g->linears] > 0)
        out += c->out[g->linears++];
    g->adapters = c->joined ? 1 : ADAPTERS_MAX;
    g->segments = c->segments;
    g->segment = c->segment;
    g->train = !c->eval;
    for (int i = 0; i < g->linears; i++) {
        int64_t most = 0;

        b->linear[i].weight = rig_random(r, matrix(c, c->out[i], c->in), c->gap, -1, 1);
        b->linear[i].bias = (gr_tensor){0};
        if (c->bias && i != 1)
            b->linear[i].bias = rig_random(r, gr_tensor_1d(NULL, c->dtype, c->out[i]), 0, -1, 1);
        for (int a = 0; a < g->adapters; a++) {
            make_lora(r, &b->lora[a * g->linears + i], c, a, i);
            most = c->r[a][i] > most ? c->r[a][i] : most;
        }
        s += most;
    }
    g->x = rig_random(r, matrix(c, c->n, c->in), c->gap, -1, 1);
    g->residual = c->residual ? rig_random(r, matrix(c, c->n, out), c->gap, -1, 1) : (gr_tensor){0};
    g->y = c->residual_is_y ? g->residual : rig_tensor(r, matrix(c, c->n, out), c->gap + 1);
    g->dy = rig_random(r, matrix(c, c->n, out), c->gap, -1, 1);
    if (!c->no_dx)
        g->dx = rig_tensor(r, matrix(c, c->n, c->in), c->gap);
    if (s > 0) {
        g->s = rig_tensor(r, matrix(c, c->n, s), c->gap);
        g->ds = rig_tensor(r, matrix(c, c->n, s), c->gap);
    }
    if (c->joined)
        join(b, r, c, out, s);
    rig_set_workspace(r, gr_lora_group_workspace_bytes(r->dev, c->n, c->in, out, s));
}

const struct group_case lora_group_mixed = {
    .n = 640,
    .in = 172,
    .out = {200, 7, 33},
    .r = {{8, 0, 3}, {16, 1, 8}, {1, 4, 0}},
    .segments = 3,
    .segment = {{64, 350, 1, {11, 5, 7}}, {384, 384, 2, {5, 6, 7}}, {384, 576, 0, {12, 5, 8}}},
    .bias = true,
    .gap = 5};
