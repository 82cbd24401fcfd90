/* See attention_case.h. */
#include "tests/attention_case.h"

static gr_tensor activations(const struct attention_case *c, int64_t heads)
{
    return gr_tensor_3d(NULL, c->dtype, c->n, heads, c->head_dim);
}

/* q, k, v (or their gradients) as columns of one buffer. */
static void split(gr_tensor buffer, const struct attention_case *c, gr_tensor *q, gr_tensor *k,
                  gr_tensor *v)
{
    int64_t wide = c->heads * c->head_dim, narrow = c->kv_heads * c->head_dim;

    *q = gr_tensor_heads(gr_tensor_columns(buffer, 0, wide), c->heads);
    *k = gr_tensor_heads(gr_tensor_columns(buffer, wide, wide + narrow), c->kv_heads);
    *v = gr_tensor_heads(gr_tensor_columns(buffer, wide + narrow, wide + 2 * narrow), c->kv_heads);
}

struct gr_attention attention_make(struct rig *r, const struct attention_case *c)
{
    struct gr_attention a = {.scale = 1 / sqrtf((float)c->head_dim), .window = c->window};
    int64_t wide = c->heads * c->head_dim, narrow = c->kv_heads * c->head_dim;
    int64_t gap = c->gap == 0 ? 1 : c->gap;
    double docs[2 * DOCUMENTS_MAX];

    for (int d = 0; d < 2 * c->documents; d++)
        docs[d] = c->docs[d / 2][d % 2];
    a.docs = rig_tensor(r, gr_tensor_2d(NULL, GR_I32, c->documents, 2), 0);
    rig_write(r, a.docs, docs);
    if (c->separate) {
        a.q = rig_random(r, activations(c, c->heads), 3 * gap, -2, 2);
        a.k = rig_random(r, activations(c, c->kv_heads), 0, -2, 2);
        a.v = rig_random(r, activations(c, c->kv_heads), gap, -2, 2);
        a.dq = rig_tensor(r, activations(c, c->heads), 0);
        a.dk = rig_tensor(r, activations(c, c->kv_heads), 5 * gap);
        a.dv = rig_tensor(r, activations(c, c->kv_heads), 0);
    } else {
        gr_tensor qkv = gr_tensor_2d(NULL, c->dtype, c->n, wide + 2 * narrow);

        split(rig_random(r, qkv, 0, -2, 2), c, &a.q, &a.k, &a.v);
        split(rig_tensor(r, qkv, 0), c, &a.dq, &a.dk, &a.dv);
    }
    a.o = rig_tensor(r, activations(c, c->heads), c->separate ? 2 * gap : 0);
    a.d_o = rig_random(r, activations(c, c->heads), c->separate ? 7 * gap : 0, -1, 1);
    a.lse = rig_tensor(r, gr_tensor_2d(NULL, GR_F32, c->n, c->heads),
                       c->separate && c->gap == 0 ? 1 : 0);
    rig_set_workspace(r, gr_attention_workspace_bytes(r->dev, &a));
    return a;
}
