/* What each op is tried with; linear groups: trial_groups.c.  See trial_side.h.  Tensors lie as in
 * training: q, k and v side by side, rows with others' columns behind them, documents that do not
 * fill the rows.
 *
 * The tolerances are those of tests/test_ops_*.c, where they are explained. */
#include "kernels/trial_side.h"

#include "kernels/base/alloc.h"
#include "kernels/values.h"

#include <math.h>

static const double rows_tolerance = 5e-7, score_tolerance = 2e-6;
static const double sum_tolerance = 1e-11, eps = 1e-5;
static const gr_tensor none;

enum { TAIL = 5 /* rows in no document */ };

static gr_tensor given_integers(struct gr_trial_side *s, gr_tensor shape, const double *values)
{
    const gr_tensor t = gr_trial_room(s, shape);

    gr_values_write(s->dev, t, values);
    return t;
}

/* ---- row by row ---- */

void gr_try_embedding_forward(struct gr_trial_side *s)
{
    const struct gr_trial_sizes *z = s->sizes;
    const gr_tensor table = gr_trial_given(s, gr_trial_matrix(s, z->vocab, z->hidden));
    const gr_tensor ids =
        gr_trial_given_between(s, gr_trial_flat(GR_I32, z->rows), -1, (double)z->vocab);
    const gr_tensor y = gr_trial_room_for_rows(s, z->hidden);

    gr_embedding_forward(s->dev, y, table, ids);
    gr_trial_same(s, "y", y);
}

/* Of whole rows, and of heads as the q/k norm has them. */
static void norm_forward(struct gr_trial_side *s, gr_tensor x, gr_tensor y, gr_tensor rstd_shape)
{
    const gr_tensor w = gr_trial_given(s, gr_trial_flat(s->dtype, x.dim[x.ndim - 1]));
    const gr_tensor rstd = gr_trial_room(s, rstd_shape);

    gr_rmsnorm_forward(s->dev, y, rstd, x, w, eps);
    gr_trial_near(s, "y", y, rows_tolerance);
    gr_trial_near(s, "rstd", rstd, rows_tolerance);
}

void gr_try_rmsnorm_forward(struct gr_trial_side *s)
{
    const struct gr_trial_sizes *z = s->sizes;
    const gr_tensor x = gr_trial_given_rows(s, z->hidden), y = gr_trial_room_for_rows(s, z->hidden);
    const gr_tensor q = gr_tensor_heads(gr_trial_given_rows(s, z->heads * 64), z->heads);

    norm_forward(s, x, y, gr_trial_flat(GR_F32, z->rows));
    s->of = "heads";
    norm_forward(s, q, q, gr_tensor_2d(NULL, GR_F32, z->rows, z->heads));
}

/* Overwriting, with y again; and added to what is there, as the residual's gradient is. */
static void norm_backward(struct gr_trial_side *s, gr_tensor x, gr_tensor dy, gr_tensor y,
                          gr_tensor dx, gr_tensor sum, gr_tensor rstd_shape)
{
    const gr_tensor w = gr_trial_given(s, gr_trial_flat(s->dtype, x.dim[x.ndim - 1]));
    const gr_tensor rstd = gr_trial_room(s, rstd_shape);

    if (gr_trial_prepares(s))
        gr_rmsnorm_forward(s->dev, y, rstd, x, w, eps);
    gr_trial_take_over(s, rstd);
    gr_values_poison(s->dev, y);
    gr_rmsnorm_backward(s->dev, dx, GR_OVERWRITE, y, dy, x, w, rstd);
    gr_rmsnorm_backward(s->dev, sum, GR_ACCUMULATE, none, dy, x, w, rstd);
    gr_trial_near(s, "dx", dx, rows_tolerance);
    gr_trial_near(s, "y again", y, rows_tolerance);
    gr_trial_near(s, "dx added", sum, 4 * rows_tolerance);
}

void gr_try_rmsnorm_backward(struct gr_trial_side *s)
{
    const struct gr_trial_sizes *z = s->sizes;
    const int64_t wide = z->heads * 64;
    gr_tensor x = gr_trial_given_rows(s, z->hidden), dy = gr_trial_given_rows(s, z->hidden);
    gr_tensor sum = gr_trial_given_rows(s, z->hidden);

    norm_backward(s, x, dy, gr_trial_room_for_rows(s, z->hidden),
                  gr_trial_room_for_rows(s, z->hidden), sum, gr_trial_flat(GR_F32, z->rows));
    s->of = "heads";
    x = gr_tensor_heads(gr_trial_given_rows(s, wide), z->heads);
    dy = gr_tensor_heads(gr_trial_given_rows(s, wide), z->heads);
    sum = gr_tensor_heads(gr_trial_given_rows(s, wide), z->heads);
    norm_backward(s, x, dy, gr_tensor_heads(gr_trial_room_for_rows(s, wide), z->heads),
                  gr_tensor_heads(gr_trial_room_for_rows(s, wide), z->heads), sum,
                  gr_tensor_2d(NULL, GR_F32, z->rows, z->heads));
}

void gr_try_rope(struct gr_trial_side *s)
{
    enum { POSITIONS = 97, HD = 64 };
    const struct gr_trial_sizes *z = s->sizes;
    const gr_tensor cos = gr_trial_given(s, gr_tensor_2d(NULL, GR_F32, POSITIONS, HD / 2));
    const gr_tensor sin = gr_trial_given(s, gr_tensor_2d(NULL, GR_F32, POSITIONS, HD / 2));
    const gr_tensor positions =
        gr_trial_given_between(s, gr_trial_flat(GR_I32, z->rows), 0, POSITIONS);
    const gr_tensor forward = gr_tensor_heads(gr_trial_given_rows(s, z->heads * HD), z->heads);
    const gr_tensor back = gr_tensor_heads(gr_trial_given_rows(s, z->heads * HD), z->heads);

    gr_rope(s->dev, forward, cos, sin, positions, 1);
    gr_rope(s->dev, back, cos, sin, positions, -1);
    gr_trial_same(s, "x", forward);
    gr_trial_same(s, "x back", back);
}

/* gate and up as columns of one buffer. */
void gr_try_swiglu_forward(struct gr_trial_side *s)
{
    const int64_t ffn = s->sizes->ffn;
    const gr_tensor both =
        gr_trial_given_between(s, gr_trial_matrix(s, s->sizes->rows, 2 * ffn), -12, 12);
    const gr_tensor h = gr_trial_room_for_rows(s, ffn);

    gr_swiglu_forward(s->dev, h, gr_tensor_columns(both, 0, ffn),
                      gr_tensor_columns(both, ffn, 2 * ffn));
    gr_trial_near(s, "h", h, rows_tolerance);
}

/* In place, with h again. */
void gr_try_swiglu_backward(struct gr_trial_side *s)
{
    const int64_t ffn = s->sizes->ffn;
    const gr_tensor both =
        gr_trial_given_between(s, gr_trial_matrix(s, s->sizes->rows, 2 * ffn), -12, 12);
    const gr_tensor gate = gr_tensor_columns(both, 0, ffn);
    const gr_tensor up = gr_tensor_columns(both, ffn, 2 * ffn);
    const gr_tensor dh = gr_trial_given_rows(s, ffn), h = gr_trial_room_for_rows(s, ffn);

    gr_swiglu_backward(s->dev, gate, up, h, dh, gate, up);
    gr_trial_near(s, "dgate", gate, 4 * rows_tolerance);
    gr_trial_near(s, "dup", up, rows_tolerance);
    gr_trial_near(s, "h again", h, rows_tolerance);
}

/* ---- attention ---- */

static void split(gr_tensor *q, gr_tensor *k, gr_tensor *v, gr_tensor t,
                  const struct gr_trial_sizes *z, int64_t head_dim)
{
    const int64_t wide = z->heads * head_dim, narrow = z->kv_heads * head_dim;

    *q = gr_tensor_heads(gr_tensor_columns(t, 0, wide), z->heads);
    *k = gr_tensor_heads(gr_tensor_columns(t, wide, wide + narrow), z->kv_heads);
    *v = gr_tensor_heads(gr_tensor_columns(t, wide + narrow, wide + 2 * narrow), z->kv_heads);
}

/* Three documents, one of them empty, with rows before and behind them; gradients with room for
 * adapters behind their rows. */
static struct gr_attention make_attention(struct gr_trial_side *s, int64_t head_dim, int64_t window)
{
    const struct gr_trial_sizes *z = s->sizes;
    const int64_t wide = (z->heads + 2 * z->kv_heads) * head_dim;
    const double middle = (double)(z->rows / 3),
                 docs[] = {TAIL, middle, middle, middle, middle + 1, (double)(z->rows - TAIL)};
    const gr_tensor query = gr_tensor_3d(NULL, s->dtype, z->rows, z->heads, head_dim);
    struct gr_attention a = {.scale = 1 / sqrtf((float)head_dim), .window = window};
    gr_tensor both = gr_trial_matrix(s, z->rows, wide);

    split(&a.q, &a.k, &a.v, gr_trial_given_between(s, both, -2, 2), z, head_dim);
    both = gr_trial_matrix(s, z->rows, wide + 3 * GR_TRIAL_BEHIND);
    split(&a.dq, &a.dk, &a.dv, gr_trial_room(s, both), z, head_dim);
    a.docs = given_integers(s, gr_tensor_2d(NULL, GR_I32, 3, 2), docs);
    a.o = gr_trial_room(s, query);
    a.d_o = gr_trial_given(s, query);
    a.lse = gr_trial_room(s, gr_tensor_2d(NULL, GR_F32, z->rows, z->heads));
    gr_trial_need_workspace(s, gr_attention_workspace_bytes(s->dev, &a));
    return a;
}

static void attention_forward(struct gr_trial_side *s, const char *of, int64_t head_dim,
                              int64_t window)
{
    const struct gr_attention a = make_attention(s, head_dim, window);

    s->of = of;
    gr_attention_forward(s->dev, &a);
    gr_trial_product(s, "o", a.o, score_tolerance);
    gr_trial_near(s, "lse", a.lse, score_tolerance);
}

static void attention_backward(struct gr_trial_side *s, const char *of, int64_t head_dim,
                               int64_t window)
{
    const struct gr_attention a = make_attention(s, head_dim, window);

    s->of = of;
    if (gr_trial_prepares(s))
        gr_attention_forward(s->dev, &a);
    gr_trial_take_over(s, a.o);
    gr_trial_take_over(s, a.lse);
    gr_attention_backward(s->dev, &a);
    gr_trial_product(s, "dq", a.dq, score_tolerance);
    gr_trial_product(s, "dk", a.dk, score_tolerance);
    gr_trial_product(s, "dv", a.dv, score_tolerance);
}

void gr_try_attention_forward(struct gr_trial_side *s)
{
    attention_forward(s, "heads of 64", 64, 0);
    attention_forward(s, "heads of 128", 128, 0);
    attention_forward(s, "window", 64, s->sizes->rows / 4);
}

void gr_try_attention_backward(struct gr_trial_side *s)
{
    attention_backward(s, "heads of 64", 64, 0);
    attention_backward(s, "heads of 128", 128, 0);
    attention_backward(s, "window", 64, s->sizes->rows / 4);
}

void gr_try_attention_last(struct gr_trial_side *s)
{
    enum { HD = 64 };
    const struct gr_trial_sizes *z = s->sizes;
    const gr_tensor query = gr_tensor_3d(NULL, s->dtype, 1, z->heads, HD);
    const gr_tensor keys = gr_tensor_3d(NULL, s->dtype, z->rows - TAIL, z->kv_heads, HD);
    const gr_tensor q = gr_trial_given_between(s, query, -2, 2),
                    k = gr_trial_given_between(s, keys, -2, 2);
    const gr_tensor v = gr_trial_given_between(s, keys, -2, 2), o = gr_trial_room(s, query);

    gr_attention_last(s->dev, o, q, k, v, 0.125f);
    gr_trial_product(s, "o", o, score_tolerance);
}

/* ---- the head ---- */

/* Rows of h in another order, each once; padding among them and behind.  Logits reach 10, as in the
 * tests: a loss takes over their absolute error. */
static struct gr_head_loss make_head(struct gr_trial_side *s, bool wants_dh)
{
    const struct gr_trial_sizes *z = s->sizes;
    const int64_t count = z->rows / 2 / GR_ROW_MULTIPLE * GR_ROW_MULTIPLE;
    double *rows = GR_NEW_ARRAY(double, count);
    const gr_tensor wider = gr_trial_matrix(s, z->rows, z->hidden + GR_TRIAL_BEHIND);
    struct gr_head_loss a = {
        .h = gr_tensor_columns(gr_trial_given_between(s, wider, -0.4, 0.4), 0, z->hidden),
        .weight = gr_trial_given(s, gr_trial_matrix(s, z->vocab, z->hidden)),
        .row_loss = gr_trial_room(s, gr_trial_flat(GR_F64, count)),
        .targets = gr_trial_given_between(s, gr_trial_flat(GR_I32, count), 0, (double)z->vocab)};

    for (int64_t i = 0; i < count; i++)
        rows[i] = i >= count - TAIL || i % 7 == 3 ? -1 : (double)((i * 37 + 5) % z->rows);
    a.rows = given_integers(s, gr_trial_flat(GR_I32, count), rows);
    if (wants_dh)
        a.dh = gr_trial_room_for_rows(s, z->hidden);
    gr_trial_need_workspace(s, gr_head_loss_workspace_bytes(s->dev, z->hidden, z->vocab));
    gr_free(rows);
    return a;
}

void gr_try_head_loss(struct gr_trial_side *s)
{
    struct gr_head_loss a = make_head(s, true);

    gr_head_loss(s->dev, &a);
    gr_trial_near(s, "row_loss", a.row_loss, score_tolerance);
    gr_trial_product(s, "dh", a.dh, score_tolerance);
    s->of = "evaluation";
    a = make_head(s, false);
    gr_head_loss(s->dev, &a);
    gr_trial_near(s, "row_loss", a.row_loss, score_tolerance);
}

void gr_try_head_logits(struct gr_trial_side *s)
{
    static const double few[] = {5, -1, 5, 63, 0};
    const struct gr_head_loss a = make_head(s, false);
    const gr_tensor rows = given_integers(s, gr_trial_flat(GR_I32, GR_COUNT(few)), few);
    const gr_tensor logits =
        gr_trial_room(s, gr_tensor_2d(NULL, GR_F32, GR_COUNT(few), s->sizes->vocab));

    gr_head_logits(s->dev, logits, a.h, a.weight, rows);
    gr_trial_near(s, "logits", logits, score_tolerance);
}

/* ---- sums and state ---- */

void gr_try_sum_spans(struct gr_trial_side *s)
{
    const int64_t n = s->sizes->flat;
    const double spans[] = {0, (double)n, 3, 3, 17, 4113, (double)(n - 1), (double)n};
    const gr_tensor x = gr_trial_given(s, gr_trial_flat(GR_F64, n)),
                    sum = gr_trial_room(s, gr_trial_flat(GR_F64, 4));

    gr_sum_spans(s->dev, sum, x, given_integers(s, gr_tensor_2d(NULL, GR_I32, 4, 2), spans));
    gr_trial_near(s, "sum", sum, sum_tolerance);
}

void gr_try_sum_squares(struct gr_trial_side *s)
{
    const gr_tensor x = gr_trial_given(s, gr_trial_flat(GR_F32, s->sizes->flat));
    const gr_tensor out = gr_trial_room(s, gr_trial_flat(GR_F64, 1));

    gr_sum_squares(s->dev, out, x, 0.7f);
    gr_trial_near(s, "sum", out, sum_tolerance);
}

/* Without and with gaps between rows. */
void gr_try_add(struct gr_trial_side *s)
{
    const int64_t n = s->sizes->flat, half = s->sizes->hidden / 2 + 1;
    const gr_tensor a = gr_trial_given(s, gr_trial_flat(GR_F32, n)),
                    b = gr_trial_given(s, gr_trial_flat(GR_F32, n));
    const gr_tensor y = gr_trial_room(s, gr_trial_flat(GR_F32, n));
    const gr_tensor both = gr_trial_given(s, gr_tensor_2d(NULL, GR_F32, s->sizes->rows, 2 * half));
    const gr_tensor left = gr_tensor_columns(both, 0, half);

    gr_add(s->dev, y, a, b);
    gr_add(s->dev, left, left, gr_tensor_columns(both, half, 2 * half));
    gr_trial_same(s, "y", y);
    gr_trial_same(s, "y of columns", both);
}

void gr_try_zero(struct gr_trial_side *s)
{
    const gr_tensor x = gr_trial_room(s, gr_trial_flat(s->dtype, s->sizes->flat));
    const gr_tensor both = gr_trial_given(s, gr_trial_matrix(s, s->sizes->rows, 33));

    gr_zero(s->dev, x);
    gr_zero(s->dev, gr_tensor_columns(both, 2, 19));
    gr_trial_same(s, "x", x);
    gr_trial_same(s, "x of columns", both);
}

/* Narrower, and back. */
void gr_try_copy(struct gr_trial_side *s)
{
    const struct gr_trial_sizes *z = s->sizes;
    const gr_tensor x = gr_trial_given(s, gr_tensor_2d(NULL, GR_F32, z->rows, z->hidden));
    const gr_tensor y = gr_trial_room_for_rows(s, z->hidden);
    const gr_tensor back = gr_trial_room(s, x);

    gr_copy(s->dev, y, x);
    gr_copy(s->dev, back, y);
    gr_trial_same(s, "y", y);
    gr_trial_same(s, "y back", back);
}

/* More pairs than a launch takes, of many widths, from any address. */
void gr_try_copy_pairs(struct gr_trial_side *s)
{
    enum { PAIRS = 70, ROWS = 3, MOST = 33 };
    const gr_tensor y = gr_trial_given(s, gr_trial_matrix(s, PAIRS * ROWS, MOST + 2));
    const gr_tensor x = gr_trial_given(s, gr_trial_flat(GR_F32, PAIRS * ROWS * MOST));
    struct gr_copy_pair pair[PAIRS];
    int64_t at = 0;

    for (int64_t i = 0; i < PAIRS; i++) {
        const int64_t width = 1 + i % MOST;
        const gr_tensor rows = gr_tensor_rows(y, ROWS * i, ROWS * (i + 1));
        const gr_tensor run = gr_tensor_rows(x, at, at + ROWS * width);

        pair[i].y = gr_tensor_columns(rows, 2, 2 + width);
        pair[i].x = gr_tensor_2d(run.data, GR_F32, ROWS, width);
        at += ROWS * width;
    }
    gr_copy_pairs(s->dev, pair, PAIRS);
    gr_trial_same(s, "y", y);
}

/* Clipped; two spans with rates of their own, and elements before and between them. */
void gr_try_adamw(struct gr_trial_side *s)
{
    const int64_t n = s->sizes->flat, middle = n / 3;
    const double square = 3.7;
    struct gr_adamw_span span[] = {
        {.begin = 1, .end = middle, .learning_rate = 1e-3, .weight_decay = 0.1},
        {.begin = middle + 2, .end = n, .learning_rate = 2e-3}};
    struct gr_adamw a = {.param = gr_trial_given(s, gr_trial_flat(GR_F32, n)),
                         .moment1 = gr_trial_given(s, gr_trial_flat(GR_F32, n)),
                         .moment2 = gr_trial_given_between(s, gr_trial_flat(GR_F32, n), 0, 0.1),
                         .grad = gr_trial_given(s, gr_trial_flat(GR_F32, n)),
                         .grad_scale = 0.3f,
                         .square_sum = given_integers(s, gr_trial_flat(GR_F64, 1), &square),
                         .max_norm = 1,
                         .spans = GR_COUNT(span),
                         .span = span,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .step = 3};

    for (int i = 0; i < GR_COUNT(span); i++)
        span[i].copy = gr_trial_room(s, gr_trial_flat(s->dtype, span[i].end - span[i].begin));
    gr_adamw(s->dev, &a);
    gr_trial_same(s, "param", a.param);
    gr_trial_same(s, "moment1", a.moment1);
    gr_trial_same(s, "moment2", a.moment2);
    gr_trial_same(s, "copy", span[0].copy);
    gr_trial_same(s, "copy", span[1].copy);
}
