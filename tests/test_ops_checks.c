/* Misuse of the ops: a wrong shape, dtype or number makes the device fail with ERR_BUG, a message
 * that names op, tensor and shapes, and nothing is computed from there on. */
#include "kernels/base/alloc.h"
#include "kernels/joined.h"
#include "tests/rig.h"

enum { N = 64, C = 8, HD = 4, NH = 2, V = 11, S = 64 };

static const gr_tensor none;

/* Room for every tensor of a misuse; nothing may be written to it. */
static double memory[N * 64];

static gr_tensor f32(int64_t n, int64_t c)
{
    return gr_tensor_2d(memory, GR_F32, n, c);
}

static gr_tensor heads(int64_t n, int64_t h, int64_t d)
{
    return gr_tensor_3d(memory, GR_F32, n, h, d);
}

static gr_tensor vector(enum gr_dtype dtype, int64_t n)
{
    return gr_tensor_1d(memory, dtype, n);
}

static gr_tensor i32(int64_t n)
{
    return vector(GR_I32, n);
}

static gr_tensor with_dtype(gr_tensor t, enum gr_dtype dtype)
{
    t.dtype = dtype;
    return t;
}

static gr_tensor with_stride(gr_tensor t, int64_t stride)
{
    t.stride = stride;
    return t;
}

static gr_tensor without_memory(gr_tensor t)
{
    t.data = NULL;
    return t;
}

static struct gr_device *fresh(void)
{
    struct gr_device *dev = NULL;

    ASSERT_OK(gr_device_create(&dev, "cpu", 1, NULL));
    gr_device_set_workspace(dev, memory, (int64_t)1 << 40); /* never reached */
    for (int64_t i = 0; i < GR_COUNT(memory); i++)
        memory[i] = 0.5;
    return dev;
}

/* The device has failed with a message that starts with `expected`; it stays so and idle. */
static void assert_failed(struct gr_device *dev, const char *call, const char *expected)
{
    char first[1024];

    ASSERT_MSG(gr_device_status(dev) == GR_ERR_BUG, "%s did not fail", call);
    snprintf(first, sizeof first, "%s", gr_error_message());
    ASSERT_MSG(strncmp(first, expected, strlen(expected)) == 0,
               "%s says\n  \"%s\", expected\n  \"%s\"", call, first, expected);
    gr_error_clear();
    gr_zero(dev, vector(GR_F64, GR_COUNT(memory)));
    gr_zero(dev, f32(1, 1));
    for (int64_t i = 0; i < GR_COUNT(memory); i++)
        ASSERT_MSG(memory[i] == 0.5, "%s or an op after it wrote to memory", call);
    ASSERT_INT(gr_device_sync(dev), GR_ERR_BUG);
    ASSERT_TEXT(gr_error_message(), first);
    gr_error_clear();
    gr_device_destroy(dev);
}

#define MISUSE(call, expected)                                                                     \
    do {                                                                                           \
        struct gr_device *dev = fresh();                                                           \
        call;                                                                                      \
        assert_failed(dev, #call, expected);                                                       \
    } while (0)

TEST(embedding_misuse_is_sticky_bug)
{
    MISUSE(gr_embedding_forward(dev, f32(63, C), f32(V, C), i32(63)),
           "embedding_forward: y needs a padded number of rows (found F32 (63, 8), expected a "
           "multiple of 64)");
    MISUSE(gr_embedding_forward(dev, with_dtype(f32(N, C), GR_F64), f32(V, C), i32(N)),
           "embedding_forward: y does not fit (found F64 (64, 8), expected F32 or BF16, 2D)");
    MISUSE(gr_embedding_forward(dev, f32(N, C), f32(V, C + 1), i32(N)),
           "embedding_forward: table does not fit (found F32 (11, 9), expected F32 (11, 8))");
    MISUSE(gr_embedding_forward(dev, f32(N, C), f32(V, C), vector(GR_I64, N)),
           "embedding_forward: ids does not fit (found I64 (64), expected I32 (64))");
    MISUSE(gr_embedding_forward(dev, f32(N, C), without_memory(f32(V, C)), i32(N)),
           "embedding_forward: table has no memory (found F32 (11, 8))");
    MISUSE(gr_embedding_forward(dev, with_stride(f32(N, C), C - 1), f32(V, C), i32(N)),
           "embedding_forward: y has a wrong stride (found F32 (64, 8) with stride 7");
    MISUSE(gr_embedding_forward(dev, f32(N, C), f32(V, C), with_stride(i32(N), 2)),
           "embedding_forward: ids has a wrong stride (found I32 (64) with stride 2");
    MISUSE(gr_embedding_forward(dev, (gr_tensor){0}, f32(V, C), i32(N)),
           "embedding_forward: y does not fit (found none (), expected F32 or BF16, 2D)");
}

/* 0.5 in f64 holds the i32 words 0 and 0x3fe00000: odd rows are out of range. */
TEST(index_out_of_range_is_sticky_bug)
{
    MISUSE(gr_embedding_forward(dev, f32(N, C), f32(V, C), i32(N)),
           "embedding_forward: an id is outside the table (found 1071644672 in row 1, expected -1 "
           "to 10)");
    MISUSE(gr_rope(dev, heads(N, NH, HD), f32(9, 2), f32(9, 2), i32(N), 1),
           "rope: a position is outside the table (found 1071644672 in row 1, expected 0 to 8)");
    MISUSE(
        gr_sum_spans(dev, vector(GR_F64, 2), vector(GR_F64, 9), gr_tensor_2d(memory, GR_I32, 2, 2)),
        "sum_spans: span 0 is outside x (found 0 to 1071644672, expected within 0 to 9)");
}

TEST(rmsnorm_misuse_is_sticky_bug)
{
    MISUSE(gr_rmsnorm_forward(dev, f32(63, C), vector(GR_F32, 63), f32(63, C), vector(GR_F32, C),
                              1e-5),
           "rmsnorm_forward: x needs a padded number of rows (found F32 (63, 8)");
    MISUSE(
        gr_rmsnorm_forward(dev, f32(N, C), vector(GR_F32, N), f32(N, C), vector(GR_F32, 7), 1e-5),
        "rmsnorm_forward: w does not fit (found F32 (7), expected F32 (8))");
    MISUSE(gr_rmsnorm_forward(dev, f32(N, C), f32(N, 1), f32(N, C), vector(GR_F32, C), 1e-5),
           "rmsnorm_forward: rstd does not fit (found F32 (64, 1), expected F32 (64))");
    MISUSE(gr_rmsnorm_forward(dev, heads(N, NH, HD), f32(N, 3), heads(N, NH, HD),
                              vector(GR_F32, HD), 1e-5),
           "rmsnorm_forward: rstd does not fit (found F32 (64, 3), expected F32 (64, 2))");
    MISUSE(
        gr_rmsnorm_forward(dev, f32(N, 7), vector(GR_F32, N), f32(N, C), vector(GR_F32, C), 1e-5),
        "rmsnorm_forward: y does not fit (found F32 (64, 7), expected F32 (64, 8))");
    MISUSE(gr_rmsnorm_forward(dev, f32(N, C), vector(GR_F32, N), f32(N, C), vector(GR_F32, C), 0),
           "rmsnorm_forward: eps is out of range (found 0, expected > 0)");
    MISUSE(gr_rmsnorm_backward(dev, f32(N, C), GR_OVERWRITE, none, f32(N, C), f32(N, C),
                               vector(GR_F32, 9), vector(GR_F32, N)),
           "rmsnorm_backward: w does not fit (found F32 (9), expected F32 (8))");
    MISUSE(gr_rmsnorm_backward(dev, f32(N, 9), GR_OVERWRITE, none, f32(N, C), f32(N, C),
                               vector(GR_F32, C), vector(GR_F32, N)),
           "rmsnorm_backward: dx does not fit (found F32 (64, 9), expected F32 (64, 8))");
    MISUSE(gr_rmsnorm_backward(dev, f32(N, C), GR_OVERWRITE, none, f32(N, 9), f32(N, C),
                               vector(GR_F32, C), vector(GR_F32, N)),
           "rmsnorm_backward: dy does not fit (found F32 (64, 9), expected F32 (64, 8))");
    MISUSE(gr_rmsnorm_backward(dev, f32(N, C), GR_ACCUMULATE, none, f32(N, C), f32(N, C),
                               vector(GR_F32, C), vector(GR_F32, N)),
           "rmsnorm_backward: dx must not be dy when it accumulates");
    MISUSE(gr_rmsnorm_backward(dev, f32(N, C), GR_OVERWRITE, f32(N, 7), f32(N, C), f32(N, C),
                               vector(GR_F32, C), vector(GR_F32, N)),
           "rmsnorm_backward: y does not fit (found F32 (64, 7), expected F32 (64, 8))");
}

TEST(rope_misuse_is_sticky_bug)
{
    MISUSE(gr_rope(dev, heads(N, NH, 3), f32(9, 1), f32(9, 1), i32(N), 1),
           "rope: the head dimension is odd (found 3, expected even)");
    MISUSE(gr_rope(dev, heads(N, NH, HD), f32(9, HD), f32(9, 2), i32(N), 1),
           "rope: cos does not fit (found F32 (9, 4), expected F32 (9, 2))");
    MISUSE(gr_rope(dev, heads(N, NH, HD), f32(9, 2), f32(8, 2), i32(N), 1),
           "rope: sin does not fit (found F32 (8, 2), expected F32 (9, 2))");
    MISUSE(gr_rope(dev, heads(N, NH, HD), f32(9, 2), f32(9, 2), i32(N + 1), 1),
           "rope: positions does not fit (found I32 (65), expected I32 (64))");
    MISUSE(gr_rope(dev, heads(N, NH, HD), f32(9, 2), f32(9, 2), i32(N), 0),
           "rope: direction is out of range (found 0, expected +1 or -1)");
    MISUSE(gr_rope(dev, f32(N, C), f32(9, 2), f32(9, 2), i32(N), 1),
           "rope: x does not fit (found F32 (64, 8), expected F32 or BF16, 3D)");
}

TEST(swiglu_misuse_is_sticky_bug)
{
    MISUSE(gr_swiglu_forward(dev, f32(63, C), f32(63, C), f32(63, C)),
           "swiglu_forward: gate needs a padded number of rows (found F32 (63, 8)");
    MISUSE(
        gr_swiglu_backward(dev, f32(63, C), f32(63, C), none, f32(63, C), f32(63, C), f32(63, C)),
        "swiglu_backward: gate needs a padded number of rows (found F32 (63, 8)");
    MISUSE(gr_swiglu_backward(dev, f32(N, C), f32(N, C), none, f32(N, C), f32(N, C), f32(N, 7)),
           "swiglu_backward: up does not fit (found F32 (64, 7), expected F32 (64, 8))");
    MISUSE(gr_swiglu_backward(dev, f32(N, C), f32(N, 7), none, f32(N, C), f32(N, C), f32(N, C)),
           "swiglu_backward: dup does not fit (found F32 (64, 7), expected F32 (64, 8))");
    MISUSE(gr_swiglu_forward(dev, f32(N, C), f32(N, C), f32(N, 7)),
           "swiglu_forward: up does not fit (found F32 (64, 7), expected F32 (64, 8))");
    MISUSE(gr_swiglu_forward(dev, f32(128, C), f32(N, C), f32(N, C)),
           "swiglu_forward: h does not fit (found F32 (128, 8), expected F32 (64, 8))");
    MISUSE(gr_swiglu_backward(dev, f32(N, 7), f32(N, C), none, f32(N, C), f32(N, C), f32(N, C)),
           "swiglu_backward: dgate does not fit (found F32 (64, 7), expected F32 (64, 8))");
    MISUSE(
        gr_swiglu_backward(dev, f32(N, C), f32(N, C), none, heads(N, 2, 4), f32(N, C), f32(N, C)),
        "swiglu_backward: dh does not fit (found F32 (64, 2, 4), expected F32 (64, 8))");
    MISUSE(
        gr_swiglu_backward(dev, f32(N, C), f32(N, C), f32(N, 7), f32(N, C), f32(N, C), f32(N, C)),
        "swiglu_backward: h does not fit (found F32 (64, 7), expected F32 (64, 8))");
}

static struct gr_attention attention(void)
{
    return (struct gr_attention){.q = heads(N, 4, HD),
                                 .k = heads(N, NH, HD),
                                 .v = heads(N, NH, HD),
                                 .docs = gr_tensor_2d(memory, GR_I32, 1, 2),
                                 .scale = 0.5f,
                                 .o = heads(N, 4, HD),
                                 .lse = f32(N, 4),
                                 .d_o = heads(N, 4, HD),
                                 .dq = heads(N, 4, HD),
                                 .dk = heads(N, NH, HD),
                                 .dv = heads(N, NH, HD)};
}

/* A misuse of an op that takes a struct: good(), one change, the call. */
#define MISUSE_OF(type, good, change, call, expected)                                              \
    do {                                                                                           \
        struct type a = good();                                                                    \
        a.change;                                                                                  \
        MISUSE(call(dev, &a), expected);                                                           \
    } while (0)

TEST(attention_misuse_is_sticky_bug)
{
#define FORWARD(change, expected)                                                                  \
    MISUSE_OF(gr_attention, attention, change, gr_attention_forward, "attention_forward: " expected)
#define BACKWARD(change, expected)                                                                 \
    MISUSE_OF(gr_attention, attention, change, gr_attention_backward,                              \
              "attention_backward: " expected)
    FORWARD(q = f32(N, C), "q does not fit (found F32 (64, 8), expected F32 or BF16, 3D)");
    FORWARD(k = heads(N, NH, 5), "k does not fit (found F32 (64, 2, 5), expected F32 (64, 2, 4))");
    FORWARD(v = heads(N, 1, HD), "v does not fit (found F32 (64, 1, 4), expected F32 (64, 2, 4))");
    FORWARD(q = heads(N, 3, HD), "the heads of k do not divide those of q (found 2 and 3)");
    FORWARD(docs = i32(2), "docs does not fit (found I32 (2), expected I32 (2, 2))");
    FORWARD(o = heads(N, NH, HD), "o does not fit (found F32 (64, 2, 4), expected F32 (64, 4, 4))");
    FORWARD(lse = f32(N, 3), "lse does not fit (found F32 (64, 3), expected F32 (64, 4))");
    FORWARD(scale = INFINITY, "scale is out of range (found inf");
    FORWARD(window = -1, "window is out of range (found -1, expected >= 0)");
    BACKWARD(k = heads(N, NH, 5), "k does not fit (found F32 (64, 2, 5), expected F32 (64, 2, 4))");
    BACKWARD(d_o = heads(N, 4, 5), "d_o does not fit");
    BACKWARD(dq = heads(N, 1, HD), "dq does not fit");
    BACKWARD(dk = heads(N, 4, HD), "dk does not fit");
    BACKWARD(dv = (gr_tensor){0}, "dv does not fit (found none (), expected F32 (64, 2, 4))");
#undef FORWARD
#undef BACKWARD
}

TEST(attention_last_misuse_is_sticky_bug)
{
    gr_tensor o = heads(1, 4, HD), k = heads(9, NH, HD);

#define LAST(o, q, k, v, scale, expected)                                                          \
    MISUSE(gr_attention_last(dev, o, q, k, v, scale), "attention_last: " expected)
    LAST(o, f32(1, C), k, k, 1, "q does not fit (found F32 (1, 8), expected F32 or BF16, 3D)");
    LAST(o, heads(2, 4, HD), k, k, 1, "q has too many rows (found 2, expected 1)");
    LAST(o, o, heads(9, NH, 5), k, 1, "k does not fit (found F32 (9, 2, 5), expected F32 (9, 2, 4");
    LAST(o, o, k, heads(8, NH, HD), 1, "v does not fit (found F32 (8, 2, 4), expected F32 (9, 2,");
    LAST(o, o, heads(0, NH, HD), heads(0, NH, HD), 1,
         "k has no row (found 0, expected at least 1)");
    LAST(o, heads(1, 3, HD), k, k, 1, "the heads of k do not divide those of q (found 2 and 3)");
    LAST(heads(1, 2, HD), o, k, k, 1,
         "o does not fit (found F32 (1, 2, 4), expected F32 (1, 4, 4)");
    LAST(o, o, k, k, NAN, "scale is out of range (found");
#undef LAST
}

/* Two linears of one group, two adapters of r 2 on both. */
static struct gr_linear linears[2];
static struct gr_lora loras[4];
static struct gr_segment segments[2];

static struct gr_lora_group lora_group(void)
{
    for (int i = 0; i < 2; i++)
        linears[i] = (struct gr_linear){.weight = f32(3, C), .bias = vector(GR_F32, 3)};
    for (int i = 0; i < 4; i++)
        loras[i] = (struct gr_lora){
            .a = f32(2, C), .b = f32(3, 2), .scale = 2, .da = f32(2, C), .db = f32(3, 2)};
    segments[0] = (struct gr_segment){.row_begin = 0, .row_end = 60, .adapter = 1};
    segments[1] = (struct gr_segment){.row_begin = 64, .row_end = 128, .adapter = -1};
    return (struct gr_lora_group){.linears = 2,
                                  .linear = linears,
                                  .adapters = 2,
                                  .lora = loras,
                                  .segments = 2,
                                  .segment = segments,
                                  .x = f32(128, C),
                                  .y = f32(128, 6),
                                  .s = f32(128, 4),
                                  .dy = f32(128, 6),
                                  .dx = f32(128, C),
                                  .ds = f32(128, 4)};
}

/* `change` may also name the arrays above: it runs after lora_group() has filled them. */
#define GROUP(change, call, expected)                                                              \
    do {                                                                                           \
        struct gr_lora_group g = lora_group();                                                     \
        change;                                                                                    \
        MISUSE(call(dev, &g), expected);                                                           \
    } while (0)

TEST(lora_group_misuse_is_sticky_bug)
{
#define FORWARD(change, expected)                                                                  \
    GROUP(change, gr_lora_group_forward, "lora_group_forward: " expected)
#define BACKWARD(change, expected)                                                                 \
    GROUP(change, gr_lora_group_backward, "lora_group_backward: " expected)
    FORWARD(g.x = f32(100, C), "x needs a padded number of rows (found F32 (100, 8)");
    FORWARD(g.linears = 0, "counts are out of range (found 0 linears");
    FORWARD(g.module = 255, "layer or module is out of range (found 0 and 255)");
    FORWARD(linears[1].weight = f32(3, 9), "weight does not fit (found F32 (3, 9)");
    FORWARD(linears[0].bias = vector(GR_F32, 4), "bias does not fit (found F32 (4), expected");
    FORWARD(loras[3].a = f32(2, 7), "a does not fit (found F32 (2, 7), expected F32 (2, 8))");
    FORWARD(loras[3].b = f32(3, 3), "b does not fit (found F32 (3, 3), expected F32 (3, 2))");
    FORWARD(loras[2].dropout = 1, "dropout is out of range (found 1, expected 0 <= p < 1)");
    FORWARD(loras[2].scale = NAN, "scale is out of range");
    FORWARD(segments[0].adapter = 2, "segment 0 names an unknown adapter (found 2, expected -1 to");
    FORWARD(segments[1].adapter = 1, "adapter 1 has two segments (found 0 and 1)");
    FORWARD(segments[0].row_end = 65, "segment 1 does not fit (found rows 64 to 128 of 128, prev");
    FORWARD(segments[1].row_begin = 65, "segment 1 does not fit (found rows 65 to 128");
    FORWARD(segments[1].row_end = 192, "segment 1 does not fit (found rows 64 to 192 of 128");
    FORWARD(g.y = f32(128, 5), "y does not fit (found F32 (128, 5), expected F32 (128, 6))");
    FORWARD(g.s = f32(128, 3), "s does not fit (found F32 (128, 3), expected F32 (128, 4))");
    FORWARD(g.residual = f32(128, 5), "residual does not fit (found F32 (128, 5)");
    BACKWARD(loras[2].da = (gr_tensor){0}, "da does not fit (found none ()");
    BACKWARD(loras[3].db = f32(2, 3), "db does not fit (found F32 (2, 3), expected F32 (3, 2))");
    BACKWARD(g.dy = f32(128, 5), "dy does not fit");
    BACKWARD(g.dx = f32(128, 9), "dx does not fit");
    BACKWARD(g.ds = (gr_tensor){0}, "ds does not fit");
    BACKWARD(g.part = (enum gr_lora_part)3, "part is out of range (found 3, expected 0 to 2)");
#undef FORWARD
#undef BACKWARD
}

/* The group with its second adapter alone, as parts of one matrix. */
static void join(struct gr_lora_group *g)
{
    struct gr_joined_shape shape = {.linears = 2, .in = C, .out = {3, 3}, .r = {2, 2}};

    g->joined = f32(gr_joined_rows(&shape), gr_joined_columns(&shape));
    for (int i = 0; i < 2; i++) {
        struct gr_joined_parts parts = gr_joined_parts(g->joined, &shape, i);

        linears[i].weight = parts.weight;
        loras[i].a = parts.a;
        loras[i].b = parts.b;
    }
    g->adapters = 1;
    segments[0].adapter = 0;
    g->x = with_stride(g->x, C + 4);
    g->dy = with_stride(g->dy, 10);
    g->ds = gr_tensor_columns(f32(128, 10), 6, 10);
}

TEST(lora_group_joined_misuse_is_sticky_bug)
{
#define JOINED(call, change, expected)                                                             \
    GROUP((join(&g), change), gr_lora_group_##call,                                                \
          "lora_group_" #call ": joined does not fit: " expected)
    JOINED(forward, g.adapters = 2, "there must be one adapter");
    JOINED(forward, g.joined = f32(10, 11), "the matrix has another shape");
    JOINED(forward, g.x = f32(128, C), "x has no room behind its rows");
    JOINED(forward, linears[1].weight = f32(3, C), "a weight, an A or a B is no part");
    JOINED(forward, loras[1].a = f32(2, C), "a weight, an A or a B is no part");
    JOINED(forward, loras[0].b = f32(3, 2), "a weight, an A or a B is no part");
    JOINED(backward, g.ds = f32(128, 4), "ds is not behind dy");
#undef JOINED
}

static struct gr_head_loss head_loss(void)
{
    return (struct gr_head_loss){.row_loss = vector(GR_F64, S),
                                 .dh = f32(128, C),
                                 .h = f32(128, C),
                                 .weight = f32(V, C),
                                 .rows = i32(S),
                                 .targets = i32(S)};
}

TEST(head_misuse_is_sticky_bug)
{
#define LOSS(change, expected)                                                                     \
    MISUSE_OF(gr_head_loss, head_loss, change, gr_head_loss, "head_loss: " expected)
    LOSS(h = f32(100, C), "h needs a padded number of rows (found F32 (100, 8)");
    LOSS(rows = vector(GR_F32, S), "rows does not fit (found F32 (64), expected I32 (64))");
    LOSS(weight = f32(V, 7), "weight does not fit (found F32 (11, 7), expected F32 (11, 8))");
    LOSS(rows = i32(63), "rows needs a padded length (found 63, expected a multiple of 64)");
    LOSS(targets = i32(128), "targets does not fit (found I32 (128), expected I32 (64))");
    LOSS(row_loss = vector(GR_F32, S), "row_loss does not fit (found F32 (64), expected F64 (64))");
    LOSS(dh = f32(64, C), "dh does not fit (found F32 (64, 8), expected F32 (128, 8))");
#undef LOSS
    MISUSE(gr_head_logits(dev, f32(3, V), f32(63, C), f32(V, C), i32(3)),
           "head_logits: h needs a padded number of rows (found F32 (63, 8)");
    MISUSE(gr_head_logits(dev, f32(3, V), f32(N, C), f32(V, C), vector(GR_F32, 3)),
           "head_logits: rows does not fit (found F32 (3), expected I32 (3))");
    MISUSE(gr_head_logits(dev, f32(3, V), f32(N, C), f32(V, 7), i32(3)),
           "head_logits: weight does not fit (found F32 (11, 7), expected F32 (11, 8))");
    MISUSE(gr_head_logits(dev, f32(2, V), f32(N, C), f32(V, C), i32(3)),
           "head_logits: logits does not fit (found F32 (2, 11), expected F32 (3, 11))");
}

/* Two copies, of which the first is fine. */
#define PAIRS(y, x, expected)                                                                      \
    do {                                                                                           \
        struct gr_copy_pair pair[2] = {{f32(2, 2), f32(2, 2)}, {y, x}};                            \
        MISUSE(gr_copy_pairs(dev, pair, 2), "copy_pairs: " expected);                              \
    } while (0)

TEST(flat_misuse_is_sticky_bug)
{
    gr_tensor spans = gr_tensor_2d(memory, GR_I32, 2, 2);

    MISUSE(gr_sum_spans(dev, vector(GR_F64, 3), vector(GR_F64, 9), spans),
           "sum_spans: sum does not fit (found F64 (3), expected F64 (2))");
    MISUSE(gr_sum_spans(dev, vector(GR_F64, 2), vector(GR_F32, 9), spans),
           "sum_spans: x does not fit (found F32 (9), expected F64 1D)");
    MISUSE(gr_sum_spans(dev, vector(GR_F64, 2), vector(GR_F64, 9), i32(2)),
           "sum_spans: spans does not fit (found I32 (2), expected I32 (2, 2))");
    MISUSE(gr_sum_squares(dev, vector(GR_F64, 1), without_memory(vector(GR_F32, 9)), 1),
           "sum_squares: x has no memory (found F32 (9))");
    MISUSE(gr_sum_squares(dev, vector(GR_F32, 1), vector(GR_F32, 9), 1),
           "sum_squares: out does not fit (found F32 (1), expected F64 (1))");
    MISUSE(gr_sum_squares(dev, vector(GR_F64, 1), f32(3, 3), 1),
           "sum_squares: x does not fit (found F32 (3, 3), expected F32 1D)");
    MISUSE(gr_sum_squares(dev, vector(GR_F64, 1), vector(GR_F32, 9), INFINITY),
           "sum_squares: scale is out of range (found inf)");
    MISUSE(gr_add(dev, i32(9), i32(9), i32(9)), "add: y does not fit (found I32 (9), expected F32");
    MISUSE(gr_add(dev, f32(3, 3), f32(3, 4), f32(3, 3)),
           "add: a does not fit (found F32 (3, 4), expected F32 (3, 3))");
    MISUSE(gr_add(dev, f32(3, 3), f32(3, 3), vector(GR_F32, 9)),
           "add: b does not fit (found F32 (9), expected F32 (3, 3))");
    MISUSE(gr_copy(dev, i32(9), i32(9)), "copy: x does not fit (found I32 (9), expected F32 1D)");
    MISUSE(gr_copy(dev, vector(GR_F64, 9), vector(GR_F32, 9)),
           "copy: y does not fit (found F64 (9), expected F32 (9))");
    PAIRS(f32(3, 3), i32(9), "x does not fit (found I32 (9), expected F32 2D)");
    PAIRS(f32(3, 4), f32(3, 3), "y does not fit (found F32 (3, 4), expected F32 (3, 3))");
    PAIRS(vector(GR_F32, 9), vector(GR_F32, 9), "x does not fit (found F32 (9), expected F32 2D)");
    PAIRS(gr_tensor_2d(memory, GR_BF16, 3, 3), f32(3, 3), "y does not fit (found BF16 (3, 3), exp");
    MISUSE(gr_zero(dev, without_memory(f32(3, 3))), "zero: x has no memory (found F32 (3, 3))");
    MISUSE(gr_zero(dev, (gr_tensor){0}), "zero: x is no tensor (found 0 dimensions)");
    MISUSE(gr_device_upload(dev, without_memory(f32(3, 3)), memory),
           "upload: the tensor or the host's copy has no memory (found F32 (3, 3))");
    MISUSE(gr_device_download(dev, NULL, f32(3, 3)),
           "download: the tensor or the host's copy has no memory (found F32 (3, 3))");
}

static struct gr_adamw_span adamw_spans[2];

static struct gr_adamw adamw(void)
{
    adamw_spans[0] = (struct gr_adamw_span){.begin = 0, .end = 5};
    adamw_spans[1] = (struct gr_adamw_span){.begin = 5, .end = 9, .copy = vector(GR_F32, 4)};
    return (struct gr_adamw){.param = vector(GR_F32, 9),
                             .moment1 = vector(GR_F32, 9),
                             .moment2 = vector(GR_F32, 9),
                             .grad = vector(GR_F32, 9),
                             .square_sum = vector(GR_F64, 1),
                             .spans = 2,
                             .span = adamw_spans,
                             .beta1 = 0.9,
                             .beta2 = 0.99,
                             .eps = 1e-8,
                             .step = 1};
}

TEST(adamw_misuse_is_sticky_bug)
{
#define ADAMW(change, expected)                                                                    \
    do {                                                                                           \
        struct gr_adamw a = adamw();                                                               \
        change;                                                                                    \
        MISUSE(gr_adamw(dev, &a), "adamw: " expected);                                             \
    } while (0)
    ADAMW(a.param = f32(9, 1), "param does not fit (found F32 (9, 1), expected F32 1D)");
    ADAMW(a.grad = vector(GR_F32, 8), "grad does not fit (found F32 (8), expected F32 (9))");
    ADAMW(a.grad_scale = NAN, "scale is out of range (found ");
    ADAMW(a.square_sum = vector(GR_F32, 1),
          "square_sum does not fit (found F32 (1), expected F64 (1))");
    ADAMW(a.max_norm = -1, "max_norm is out of range (found -1, expected >= 0)");
    ADAMW(a.moment1 = vector(GR_F64, 9), "moment1 does not fit (found F64 (9), expected F32 (9))");
    ADAMW(a.moment2 = f32(9, 1), "moment2 does not fit (found F32 (9, 1), expected F32 (9))");
    ADAMW(a.beta1 = 1, "a constant is out of range (found beta1 1");
    ADAMW(a.step = 0, "step is out of range (found 0, expected >= 1)");
    ADAMW(a.spans = -1, "spans is out of range (found -1)");
    ADAMW(adamw_spans[1].begin = 4, "span 1 does not fit (found 4 to 9 of 9, previous end 5)");
    ADAMW(adamw_spans[1].end = 10, "span 1 does not fit (found 5 to 10 of 9, previous end 5)");
    ADAMW(adamw_spans[1].copy = vector(GR_F32, 5), "copy does not fit (found F32 (5), expected");
#undef ADAMW
}

/* The ops that need scratch memory look whether they have it. */
TEST(workspace_too_small_is_sticky_bug)
{
    struct gr_attention a = attention();
    struct gr_lora_group g = lora_group();
    struct gr_head_loss h = head_loss();

#define WITHOUT(call, expected)                                                                    \
    MISUSE((gr_device_set_workspace(dev, NULL, 0), call),                                          \
           expected ": the workspace is too small (found 0 bytes, expected ")
    WITHOUT(gr_attention_forward(dev, &a), "attention_forward");
    WITHOUT(gr_lora_group_forward(dev, &g), "lora_group_forward");
    WITHOUT(gr_head_loss(dev, &h), "head_loss");
    WITHOUT(gr_head_logits(dev, f32(3, V), f32(N, C), f32(V, C), i32(3)), "head_logits");
#undef WITHOUT
}
