/* Every op gives the same bits with 1, 2, 3 and 5 threads, on every instruction set.
 * A new op is one SAME_BITS case: make random inputs, call it; the rig compares all tensors.  What
 * adapters are updated with has the same bits on all devices besides. */
#include "tests/rig.h"

enum { N = 192, C = 576, F = 150, HEADS = 9, HD = 64 };
static const gr_tensor none;

static gr_tensor rows(int64_t c)
{
    return gr_tensor_2d(NULL, GR_F32, N, c);
}

static gr_tensor heads(void)
{
    return gr_tensor_3d(NULL, GR_F32, N, HEADS, HD);
}

static gr_tensor flat(int64_t n)
{
    return gr_tensor_1d(NULL, GR_F32, n);
}

SAME_BITS_ON_ALL_DEVICES(embedding_forward)
{
    gr_tensor y = rig_tensor(r, rows(C), 0);
    gr_tensor table = rig_random(r, gr_tensor_2d(NULL, GR_F32, 50, C), 0, -1, 1);
    gr_tensor ids = rig_random(r, gr_tensor_1d(NULL, GR_I32, N), 0, -1, 50);

    gr_embedding_forward(r->dev, y, table, ids);
}

SAME_BITS(rmsnorm)
{
    gr_tensor x = rig_random(r, rows(C), 0, -2, 2), dy = rig_random(r, rows(C), 0, -2, 2);
    gr_tensor w = rig_random(r, flat(C), 0, -1, 1);
    gr_tensor y = rig_tensor(r, rows(C), 0), rstd = rig_tensor(r, flat(N), 0);
    gr_tensor dx = rig_tensor(r, rows(C), 0), again = rig_tensor(r, rows(C), 0);

    gr_rmsnorm_forward(r->dev, y, rstd, x, w, 1e-5);
    gr_rmsnorm_backward(r->dev, dx, GR_OVERWRITE, none, dy, x, w, rstd);
    gr_rmsnorm_backward(r->dev, dx, GR_ACCUMULATE, again, dy, x, w, rstd);
}

SAME_BITS(rmsnorm_heads)
{
    gr_tensor x = rig_random(r, heads(), 0, -2, 2), dy = rig_random(r, heads(), 0, -2, 2);
    gr_tensor w = rig_random(r, flat(HD), 0, -1, 1);
    gr_tensor rstd = rig_tensor(r, rows(HEADS), 0);

    gr_rmsnorm_forward(r->dev, x, rstd, x, w, 1e-5);
    gr_rmsnorm_backward(r->dev, dy, GR_OVERWRITE, none, dy, x, w, rstd);
}

SAME_BITS_ON_ALL_DEVICES(rope)
{
    gr_tensor x = rig_random(r, heads(), 0, -2, 2);
    gr_tensor cos = rig_random(r, gr_tensor_2d(NULL, GR_F32, 33, HD / 2), 0, -1, 1);
    gr_tensor sin = rig_random(r, gr_tensor_2d(NULL, GR_F32, 33, HD / 2), 0, -1, 1);
    gr_tensor positions = rig_random(r, gr_tensor_1d(NULL, GR_I32, N), 0, 0, 33);

    gr_rope(r->dev, x, cos, sin, positions, 1);
    gr_rope(r->dev, x, cos, sin, positions, -1);
}

SAME_BITS(rows_bf16)
{
    gr_tensor shape = gr_tensor_2d(NULL, GR_BF16, N, C);
    gr_tensor x = rig_random(r, shape, 0, -2, 2), dy = rig_random(r, shape, 0, -2, 2);
    gr_tensor w = rig_random(r, gr_tensor_1d(NULL, GR_BF16, C), 0, -1, 1);
    gr_tensor y = rig_tensor(r, shape, 0), dx = rig_tensor(r, shape, 0);
    gr_tensor again = rig_tensor(r, shape, 0), h = rig_tensor(r, shape, 0);
    gr_tensor rstd = rig_tensor(r, flat(N), 0);
    gr_tensor cos = rig_random(r, gr_tensor_2d(NULL, GR_F32, 33, HD / 2), 0, -1, 1);
    gr_tensor positions = rig_random(r, gr_tensor_1d(NULL, GR_I32, N), 0, 0, 33);

    gr_rmsnorm_forward(r->dev, y, rstd, x, w, 1e-5);
    gr_rmsnorm_backward(r->dev, dx, GR_OVERWRITE, none, dy, x, w, rstd);
    gr_rmsnorm_backward(r->dev, dx, GR_ACCUMULATE, again, dy, x, w, rstd);
    gr_rope(r->dev, gr_tensor_heads(y, HEADS), cos, cos, positions, 1);
    gr_swiglu_backward(r->dev, x, dx, h, dy, x, dx);
    gr_swiglu_forward(r->dev, dy, x, dx);
}

SAME_BITS(swiglu)
{
    gr_tensor gate = rig_random(r, rows(F), 1, -9, 9), up = rig_random(r, rows(F), 1, -2, 2);
    gr_tensor h = rig_tensor(r, rows(F), 3), dh = rig_random(r, rows(F), 3, -2, 2);
    gr_tensor again = rig_tensor(r, rows(F), 2);

    gr_swiglu_forward(r->dev, h, gate, up);
    gr_swiglu_backward(r->dev, gate, up, again, dh, gate, up);
}

SAME_BITS_ON_ALL_DEVICES(sums)
{
    gr_tensor x = rig_random(r, flat(100003), 0, -2, 2);
    gr_tensor losses = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 20000), 0);
    gr_tensor spans = rig_tensor(r, gr_tensor_2d(NULL, GR_I32, 3, 2), 0);
    gr_tensor sum = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 3), 0);
    gr_tensor square = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0);
    static const double spans_v[] = {0, 19000, 19000, 19001, 19001, 20000};
    static double losses_v[20000];

    for (int i = 0; i < 20000; i++)
        losses_v[i] = sin(i);
    rig_write(r, losses, losses_v);
    rig_write(r, spans, spans_v);
    gr_sum_squares(r->dev, square, x, 0.7f);
    gr_sum_spans(r->dev, sum, losses, spans);
}

SAME_BITS_ON_ALL_DEVICES(elements)
{
    gr_tensor a = rig_random(r, flat(50001), 0, -2, 2), b = rig_random(r, flat(50001), 0, -2, 2);
    gr_tensor y = rig_tensor(r, flat(50001), 0), z = rig_tensor(r, rows(C), 5);

    gr_add(r->dev, y, a, b);
    gr_copy(r->dev, b, y);
    gr_zero(r->dev, z);
}

SAME_BITS_ON_ALL_DEVICES(copied_pairs)
{
    gr_tensor x = rig_random(r, gr_tensor_2d(NULL, GR_F32, 90, 501), 0, -2, 2);
    gr_tensor y = rig_tensor(r, gr_tensor_2d(NULL, GR_BF16, 90, 501), 4);
    struct gr_copy_pair pair[2];

    for (int i = 0; i < 2; i++)
        pair[i] = (struct gr_copy_pair){gr_tensor_rows(y, 45 * i, 45 * (i + 1)),
                                        gr_tensor_rows(x, 45 * i, 45 * (i + 1))};
    gr_copy_pairs(r->dev, pair, 2);
}

SAME_BITS_ON_ALL_DEVICES(adamw)
{
    enum { STATE = 30011 };
    struct gr_adamw_span spans[] = {
        {.begin = 0, .end = 9000, .learning_rate = 1e-3, .weight_decay = 0.1},
        {.begin = 9000, .end = STATE, .learning_rate = 2e-3},
    };
    struct gr_adamw a = {.param = rig_random(r, flat(STATE), 0, -1, 1),
                         .moment1 = rig_random(r, flat(STATE), 0, -1, 1),
                         .moment2 = rig_random(r, flat(STATE), 0, 0, 1),
                         .grad = rig_random(r, flat(STATE), 0, -1, 1),
                         .grad_scale = 0.3f,
                         .square_sum = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0),
                         .max_norm = 1.5,
                         .spans = 2,
                         .span = spans,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .step = 3};

    spans[1].copy = rig_tensor(r, flat(STATE - 9000), 0);
    gr_sum_squares(r->dev, a.square_sum, a.grad, a.grad_scale);
    gr_adamw(r->dev, &a);
}
