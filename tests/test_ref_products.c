/* The f64 twins of linear groups, head and attention: each backward against central differences of
 * its forward, and rows whose answer is known. */
#include "tests/ref/gradient.h"
#include "tests/ref/ref_attention.h"
#include "tests/ref/ref_head_loss.h"
#include "tests/ref/ref_lora_group.h"

/* ---- a group: rows 0..2 adapter 1, rows 3..4 base only, row 5 in no segment ---- */

enum { N = 6, IN = 5, OUT0 = 3, OUT1 = 4, OUT = OUT0 + OUT1, R0 = 2, R1 = 3 };

static double x[N * IN], w0[OUT0 * IN], w1[OUT1 * IN], bias[OUT1], residual[N * OUT];
static double a0[R0 * IN], b0[OUT0 * R0], a1[R1 * IN], b1[OUT1 * R1];
static double y[N * OUT], dy[N * OUT], dx[N * IN];
static double da0[R0 * IN], db0[OUT0 * R0], da1[R1 * IN], db1[OUT1 * R1];

static const struct ref_linear linears[] = {{OUT0, w0, NULL}, {OUT1, w1, bias}};
static const struct ref_lora loras[] = {
    {.r = 0}, {.r = 0}, {R0, a0, b0, 0.7, 0.4f, da0, db0}, {R1, a1, b1, 1.5, 0.0f, da1, db1}};
static const struct gr_segment segments[] = {{0, 3, 1, {9, 4, 2}}, {3, 5, -1, {9, 4, 3}}};
static const struct ref_lora_group group = {.layer = 3,
                                            .module = 5,
                                            .linears = 2,
                                            .segments = 2,
                                            .linear = linears,
                                            .lora = loras,
                                            .segment = segments,
                                            .train = true,
                                            .n = N,
                                            .in = IN,
                                            .x = x,
                                            .residual = residual,
                                            .y = y,
                                            .dy = dy,
                                            .dx = dx};

static void fill_group(void)
{
    ref_fill(x, N * IN, 1);
    ref_fill(w0, OUT0 * IN, 2);
    ref_fill(w1, OUT1 * IN, 3);
    ref_fill(bias, OUT1, 4);
    ref_fill(residual, N * OUT, 5);
    ref_fill(a0, R0 * IN, 6);
    ref_fill(b0, OUT0 * R0, 7);
    ref_fill(a1, R1 * IN, 8);
    ref_fill(b1, OUT1 * R1, 9);
    ref_fill(dy, N * OUT, 10);
}

static double group_loss(void)
{
    ref_lora_group_forward(&group);
    return ref_dot(dy, y, N * OUT);
}

TEST(ref_lora_group_backward_is_gradient)
{
    fill_group();
    ref_lora_group_backward(&group);
    ref_assert_gradient("dx", group_loss, x, dx, N * IN);
    ref_assert_gradient("da0", group_loss, a0, da0, R0 * IN);
    ref_assert_gradient("db0", group_loss, b0, db0, OUT0 * R0);
    ref_assert_gradient("da1", group_loss, a1, da1, R1 * IN);
    ref_assert_gradient("db1", group_loss, b1, db1, OUT1 * R1);
}

/* With A = 1 and B = 1 on one element, the adapter's part of y is s * mask * x. */
TEST(ref_lora_group_dropout_follows_its_rule)
{
    double one[1] = {1}, zero[1] = {0}, in[40], out[40];
    struct ref_linear linear = {1, zero, NULL};
    struct ref_lora lora = {1, one, one, 2.0, 0.25f, NULL, NULL};
    struct gr_segment segment = {0, 40, 0, {.seed = 77, .step = 5, .micro_batch = 6}};
    struct ref_lora_group g = {.layer = 1,
                               .module = 2,
                               .linears = 1,
                               .segments = 1,
                               .linear = &linear,
                               .lora = &lora,
                               .segment = &segment,
                               .train = true,
                               .n = 40,
                               .in = 1,
                               .x = in,
                               .y = out};

    for (int i = 0; i < 40; i++)
        in[i] = 3;
    ref_lora_group_forward(&g);
    for (int i = 0; i < 40; i++) {
        struct gr_philox_block block =
            gr_philox(77, (uint32_t)i / 4, gr_rng_stream(GR_RNG_DROPOUT, 1, 2), 6, 5);
        bool kept = gr_uniform(block.word[i % 4]) >= 0.25f;

        ASSERT_NEAR(out[i], kept ? 8 : 0, 1e-12);
    }
}

/* ---- the head ---- */

enum { V = 7, S = 4 };

static double h[N * IN], head[V * IN], row_loss[S], dh[N * IN];
static const int32_t rows[S] = {4, -1, 0, 5}, targets[S] = {6, 0, 2, 2};
static const struct ref_head_loss loss_args = {.n = N,
                                               .hidden = IN,
                                               .vocab = V,
                                               .s = S,
                                               .h = h,
                                               .weight = head,
                                               .rows = rows,
                                               .targets = targets,
                                               .row_loss = row_loss,
                                               .dh = dh};

static double head_loss(void)
{
    struct ref_head_loss forward = loss_args;
    double sum = 0;

    forward.dh = NULL;
    ref_head_loss(&forward);
    for (int i = 0; i < S; i++)
        sum += row_loss[i];
    return sum;
}

TEST(ref_head_loss_dh_is_gradient)
{
    ref_fill(h, N * IN, 1);
    ref_fill(head, V * IN, 2);
    ref_head_loss(&loss_args);
    ref_assert_gradient("dh", head_loss, h, dh, N * IN);
    ASSERT_NEAR(row_loss[1], 0, 0);
}

TEST(ref_head_loss_equal_logits_is_log_vocab)
{
    ref_fill(h, N * IN, 1);
    memset(head, 0, sizeof head);
    ref_head_loss(&loss_args);
    ASSERT_NEAR(row_loss[0], log(V), 1e-12);
}

/* ---- attention: documents of 3 and 5 rows, a gap, one of 1 row ---- */

enum { T = 10, NH = 4, NKV = 2, HD = 3 };

static double q[T * NH * HD], k[T * NKV * HD], v[T * NKV * HD], o[T * NH * HD], lse[T * NH];
static double d_o[T * NH * HD], dq[T * NH * HD], dk[T * NKV * HD], dv[T * NKV * HD];
static const int32_t docs[] = {0, 3, 3, 3, 3, 8, 9, 10};
static struct ref_attention attention = {.n = T,
                                         .heads = NH,
                                         .kv_heads = NKV,
                                         .head_dim = HD,
                                         .documents = 4,
                                         .docs = docs,
                                         .scale = 0.6,
                                         .q = q,
                                         .k = k,
                                         .v = v,
                                         .o = o,
                                         .lse = lse,
                                         .d_o = d_o,
                                         .dq = dq,
                                         .dk = dk,
                                         .dv = dv};

static double attention_loss(void)
{
    ref_attention_forward(&attention);
    return ref_dot(d_o, o, T * NH * HD);
}

static void check_attention(int64_t window)
{
    attention.window = window;
    ref_fill(q, T * NH * HD, 1);
    ref_fill(k, T * NKV * HD, 2);
    ref_fill(v, T * NKV * HD, 3);
    ref_fill(d_o, T * NH * HD, 4);
    ref_attention_forward(&attention);
    ref_attention_backward(&attention);
    ref_assert_gradient("dq", attention_loss, q, dq, T * NH * HD);
    ref_assert_gradient("dk", attention_loss, k, dk, T * NKV * HD);
    ref_assert_gradient("dv", attention_loss, v, dv, T * NKV * HD);
}

TEST(ref_attention_backward_is_gradient)
{
    check_attention(0);
    check_attention(2);
}

/* The first row of a document sees itself alone: o = v, lse = its score. */
TEST(ref_attention_first_row_sees_itself)
{
    check_attention(0);
    ref_attention_forward(&attention);
    for (int head_no = 0; head_no < NH; head_no++) {
        int64_t at = (3 * NKV + head_no / 2) * HD; /* heads 0 and 1 read head 0 of k and v */

        for (int c = 0; c < HD; c++)
            ASSERT_NEAR(o[(3 * NH + head_no) * HD + c], v[at + c], 1e-15);
        ASSERT_NEAR(lse[3 * NH + head_no], 0.6 * ref_dot(q + (3 * NH + head_no) * HD, k + at, HD),
                    1e-12);
        ASSERT_NEAR(o[(8 * NH + head_no) * HD], 0, 0); /* the gap */
    }
}
