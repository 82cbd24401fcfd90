/* What linear groups are tried with.  See trial_side.h; the tolerance is that of
 * tests/test_ops_lora_group.c. */
#include "kernels/joined.h"
#include "kernels/trial_side.h"
#include "kernels/values.h"

static const double product_tolerance = 1.5e-6;
static const gr_tensor none;

enum { LINEARS = 3, ADAPTERS = 2 };

/* Weights and adapters of two trials; the same with dropout; one adapter joined with them.
 */
enum group_kind { COMPOSED, DROPOUT, JOINED };
static const char *const group_words[] = {"composed", "dropout", "joined"};

struct group {
    struct gr_lora_group g;
    struct gr_linear linear[LINEARS];
    struct gr_lora lora[ADAPTERS * LINEARS];
    struct gr_segment segment[ADAPTERS];
    struct gr_joined_shape shape; /* with the largest R of each linear */
    int64_t out, r;               /* of all linears */
};

/* q, k and v; k of the second adapter has none. */
static void choose_widths(struct group *b, const struct gr_trial_sizes *z, enum group_kind kind)
{
    b->shape = (struct gr_joined_shape){.linears = LINEARS,
                                        .in = z->hidden,
                                        .out = {z->heads * 64, z->kv_heads * 64, z->kv_heads * 64},
                                        .r = {z->r, z->r, z->r}};
    for (int i = 0; i < LINEARS; i++) {
        b->out += b->shape.out[i];
        b->r += b->shape.r[i];
    }
    b->g = (struct gr_lora_group){.layer = 2,
                                  .module = 4,
                                  .linears = LINEARS,
                                  .linear = b->linear,
                                  .adapters = kind == JOINED ? 1 : ADAPTERS,
                                  .lora = b->lora,
                                  .segments = kind == JOINED ? 1 : ADAPTERS,
                                  .segment = b->segment,
                                  .train = true};
}

/* Rows of one trial, or of two in turned order; some behind them in none. */
static void choose_segments(struct group *b, const struct gr_trial_sizes *z)
{
    const int64_t half = z->rows / 2 / GR_ROW_MULTIPLE * GR_ROW_MULTIPLE;

    b->segment[b->g.segments - 1] =
        (struct gr_segment){b->g.segments == 1 ? 0 : half, z->rows - 42, 0, {1, 2, 3}};
    if (b->g.segments > 1)
        b->segment[0] = (struct gr_segment){0, half - 3, 1, {11, 5, 7}};
}

static void make_adapter(struct gr_trial_side *s, struct group *b, int adapter, int linear,
                         enum group_kind kind)
{
    const int64_t r = adapter == 0 ? b->shape.r[linear] : linear == 1 ? 0 : b->shape.r[linear] / 2;
    const int64_t in = b->shape.in, out = b->shape.out[linear];
    struct gr_lora *lora = &b->lora[adapter * LINEARS + linear];

    *lora =
        (struct gr_lora){.scale = 0.5f + (float)adapter, .dropout = kind == DROPOUT ? 0.1f : 0.0f};
    if (r == 0)
        return;
    if (kind != JOINED) {
        lora->a = gr_trial_given(s, gr_trial_matrix(s, r, in));
        lora->b = gr_trial_given(s, gr_trial_matrix(s, out, r));
    }
    lora->da = gr_trial_room(s, gr_tensor_2d(NULL, GR_F32, r, in));
    lora->db = gr_trial_room(s, gr_tensor_2d(NULL, GR_F32, out, r));
}

/* Rows of x or dy with room for S or dS behind them. */
static gr_tensor given_with_room(struct gr_trial_side *s, int64_t columns, int64_t r)
{
    const int64_t rows = s->sizes->rows;

    return gr_tensor_columns(
        gr_trial_given(s, gr_trial_matrix(s, rows, gr_joined_stride(columns + r))), 0, columns);
}

static void join(struct gr_trial_side *s, struct group *b)
{
    const int64_t rows = gr_joined_rows(&b->shape), columns = gr_joined_columns(&b->shape);
    const gr_tensor wider = gr_trial_given(s, gr_trial_matrix(s, rows, gr_joined_stride(columns)));

    b->g.joined = gr_tensor_columns(wider, 0, columns);
    gr_values_random(s->dev, gr_tensor_columns(b->g.joined, b->shape.in, columns), 0, 0, 0);
    for (int i = 0; i < LINEARS; i++) {
        const struct gr_joined_parts parts = gr_joined_parts(b->g.joined, &b->shape, i);

        gr_values_random(s->dev, parts.b, s->fills++, -1, 1);
        b->linear[i].weight = parts.weight;
        b->lora[i].a = parts.a;
        b->lora[i].b = parts.b;
    }
}

static void make_group(struct gr_trial_side *s, struct group *b, enum group_kind kind)
{
    const struct gr_trial_sizes *z = s->sizes;
    struct gr_lora_group *g = &b->g;

    *b = (struct group){0};
    choose_widths(b, z, kind);
    choose_segments(b, z);
    for (int i = 0; i < LINEARS; i++) {
        if (kind != JOINED)
            b->linear[i].weight = gr_trial_given(s, gr_trial_matrix(s, b->shape.out[i], z->hidden));
        if (kind == COMPOSED)
            b->linear[i].bias = gr_trial_given(s, gr_trial_flat(s->dtype, b->shape.out[i]));
        for (int a = 0; a < g->adapters; a++)
            make_adapter(s, b, a, i, kind);
    }
    g->x = given_with_room(s, z->hidden, b->r);
    g->dy = given_with_room(s, b->out, b->r);
    g->ds = kind == JOINED ? gr_joined_behind(g->dy, b->r)
                           : gr_trial_room(s, gr_trial_matrix(s, z->rows, b->r));
    g->y = gr_trial_room_for_rows(s, b->out);
    g->residual = kind == COMPOSED ? none : gr_trial_given_rows(s, b->out);
    g->dx = gr_trial_room_for_rows(s, z->hidden);
    g->s = gr_trial_room(s, gr_trial_matrix(s, z->rows, b->r));
    if (kind == JOINED)
        join(s, b);
    gr_trial_need_workspace(
        s, gr_lora_group_workspace_bytes(s->dev, z->rows, z->hidden, b->out, b->r));
    s->of = group_words[kind];
}

void gr_try_lora_group_forward(struct gr_trial_side *s)
{
    for (int kind = COMPOSED; kind <= JOINED; kind++) {
        struct group b;

        make_group(s, &b, (enum group_kind)kind);
        gr_lora_group_forward(s->dev, &b.g);
        gr_trial_product(s, "s", b.g.s, product_tolerance);
        gr_trial_product(s, "y", b.g.y, product_tolerance);
    }
}

/* dA and dB of every adapter are stored in f32, but products of what is rounded. */
static void lora_group_backward(struct gr_trial_side *s, enum group_kind kind)
{
    struct group b;

    make_group(s, &b, kind);
    if (gr_trial_prepares(s))
        gr_lora_group_forward(s->dev, &b.g);
    gr_trial_take_over(s, b.g.s);
    b.g.part = kind == JOINED ? GR_LORA_BUT_DA : GR_LORA_WHOLE;
    gr_lora_group_backward(s->dev, &b.g);
    b.g.part = GR_LORA_DA;
    if (kind == JOINED)
        gr_lora_group_backward(s->dev, &b.g);
    gr_trial_product(s, "dx", b.g.dx, product_tolerance);
    for (int i = 0; i < b.g.adapters * LINEARS; i++)
        if (b.lora[i].da.ndim > 0) {
            gr_trial_product(s, "dA", b.lora[i].da, product_tolerance);
            gr_trial_product(s, "dB", b.lora[i].db, product_tolerance);
        }
}

void gr_try_lora_group_backward(struct gr_trial_side *s)
{
    for (int kind = COMPOSED; kind <= JOINED; kind++)
        lora_group_backward(s, (enum group_kind)kind);
}
