/* How near the ops come to what the machine can do: those that multiply matrices to one plain
 * product, the others to a copy of as many bytes (measure.h).  Only the useful operations are
 * counted: what the backward of attention computes twice counts once.
 *
 *   bench_ops_ISA [THREADS [f32|bf16 [WORD [SECONDS]]]]
 *   bench_ops_ISA THREADS f32|bf16 WORD SECONDS DEVICE [CACHE ROWS HIDDEN ... EDGE]
 *
 * WORD: only cases whose name has it.  DEVICE: cpu, or cuda, where one JSON object about the device
 * comes first, and alone without what follows.  CACHE: folder of what is chosen by time; "": none.
 * The numbers: GR_BENCH_SHAPE, by default those of SmolLM2-135M (r = 16, 640 rows).  One JSON
 * object per case; bench/ops and bench/gpu run it and make the tables. */
#include "bench/measure.h"
#include "bench/operands.h"
#include "kernels/base/log.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/tiles.h"
#include "kernels/joined.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct gr_bench_shape smollm2 = {.rows = 640,
                                              .hidden = 576,
                                              .ffn = 1536,
                                              .heads = 9,
                                              .kv_heads = 3,
                                              .head_dim = 64,
                                              .vocab = 49152,
                                              .r = 16,
                                              .short_document = 64,
                                              .long_document = 2048,
                                              .state = 3 << 20,
                                              .edge = 1024};

static gr_tensor floats(struct gr_bench *b, int64_t rows, int64_t columns)
{
    return gr_bench_operand(b->dev, &b->arena, GR_F32, rows, columns);
}

/* Activations and weights. */
static gr_tensor values(struct gr_bench *b, int64_t rows, int64_t columns)
{
    return gr_bench_operand(b->dev, &b->arena, b->dtype, rows, columns);
}

static gr_tensor zeros(struct gr_bench *b, enum gr_dtype dtype, int64_t n)
{
    gr_tensor t = gr_arena_tensor_1d(&b->arena, dtype, n);

    if (!gr_arena_measures(&b->arena)) /* the arena is used again and again */
        gr_zero(b->dev, gr_tensor_1d(t.data, GR_F32, n * gr_dtype_bytes(dtype) / 4));
    return t;
}

static gr_tensor heads_of(struct gr_bench *b, int64_t n, int64_t heads)
{
    return gr_tensor_heads(values(b, n, heads * b->shape.head_dim), heads);
}

/* n integers: i * step, below `bound`. */
static gr_tensor integers(struct gr_bench *b, int64_t n, int64_t step, int64_t bound)
{
    gr_tensor t = gr_arena_tensor_1d(&b->arena, GR_I32, n);
    int32_t *number;

    if (gr_arena_measures(&b->arena))
        return t;
    number = GR_NEW_ARRAY(int32_t, n);
    for (int64_t i = 0; i < n; i++)
        number[i] = (int32_t)(i * step % bound);
    gr_device_upload(b->dev, t, number);
    gr_free(number);
    return t;
}

/* ---- linear groups ---- */

struct group_shape {
    const char *name;
    int64_t in;
    int linears;
    int64_t out[GR_LINEARS_MOST];
};

static void group_forward(struct gr_device *dev, const void *arguments)
{
    gr_lora_group_forward(dev, arguments);
}

static void group_backward(struct gr_device *dev, const void *arguments)
{
    gr_lora_group_backward(dev, arguments);
}

/* A group and what it points to. */
struct group {
    struct gr_lora_group op;
    struct gr_linear linear[GR_LINEARS_MOST];
    struct gr_lora lora[GR_LINEARS_MOST];
    struct gr_segment segment;
    double in, out;
};

/* Rows of x or dy, with room for so many columns behind each. */
static gr_tensor rows_with_room(struct gr_bench *b, int64_t columns, int64_t room)
{
    gr_tensor t = values(b, b->shape.rows, gr_joined_stride(columns + room));

    return gr_tensor_columns(t, 0, columns);
}

/* Weights and adapters, in one matrix or apart. */
static void make_weights(struct group *g, struct gr_bench *b, const struct group_shape *shape,
                         bool joined)
{
    struct gr_joined_shape parts_of = {.linears = shape->linears, .in = shape->in};
    int64_t r = b->shape.r;

    for (int i = 0; i < shape->linears; i++) {
        parts_of.out[i] = shape->out[i];
        parts_of.r[i] = r;
    }
    if (joined) {
        int64_t columns = gr_joined_columns(&parts_of);

        g->op.joined = gr_tensor_columns(
            values(b, gr_joined_rows(&parts_of), gr_joined_stride(columns)), 0, columns);
    }
    for (int i = 0; i < shape->linears; i++) {
        struct gr_joined_parts parts;

        if (joined)
            parts = gr_joined_parts(g->op.joined, &parts_of, i);
        else
            parts = (struct gr_joined_parts){values(b, shape->out[i], shape->in),
                                             values(b, r, shape->in), values(b, shape->out[i], r)};
        g->linear[i].weight = parts.weight;
        g->lora[i] = (struct gr_lora){.a = parts.a,
                                      .b = parts.b,
                                      .da = floats(b, r, shape->in),
                                      .db = floats(b, shape->out[i], r),
                                      .scale = 2};
    }
}

static void make_group(struct group *g, struct gr_bench *b, const struct group_shape *shape,
                       bool joined, float dropout)
{
    int64_t n = b->shape.rows, all_r = shape->linears * b->shape.r, out = 0;

    *g = (struct group){.segment = {0, n, 0, {1, 2, 3}}};
    g->op = (struct gr_lora_group){.linears = shape->linears,
                                   .linear = g->linear,
                                   .adapters = 1,
                                   .lora = g->lora,
                                   .segments = 1,
                                   .segment = &g->segment,
                                   .train = true};
    make_weights(g, b, shape, joined);
    for (int i = 0; i < shape->linears; i++) {
        g->lora[i].dropout = dropout;
        out += shape->out[i];
    }
    g->op.x = rows_with_room(b, shape->in, joined ? all_r : 0);
    g->op.y = g->op.dy = rows_with_room(b, out, joined ? all_r : 0);
    g->op.s = values(b, n, all_r);
    g->op.ds = joined ? gr_joined_behind(g->op.dy, all_r) : values(b, n, all_r);
    g->op.dx = values(b, n, shape->in);
    gr_bench_need_workspace(b, gr_lora_group_workspace_bytes(b->dev, n, shape->in, out, all_r));
    g->in = (double)shape->in;
    g->out = (double)out;
}

/* What training does: a GPU has weights and adapter joined, unless there is dropout. */
static void bench_group(struct gr_bench *b, const struct group_shape *shape, float dropout)
{
    bool joined = dropout == 0 && !gr_device_uses_host_memory(b->dev);
    double n = (double)b->shape.rows, r = (double)b->shape.r, base, small;
    struct group g;
    char name[64], how[32];

    make_group(&g, b, shape, joined, dropout);
    base = 2 * n * g.in * g.out;
    small = 2 * n * r * (g.in * shape->linears + g.out);
    snprintf(how, sizeof how, joined ? "joined" : "dropout %g", (double)dropout);
    snprintf(name, sizeof name, "%s forward, %s", shape->name, how);
    gr_bench_measure(b, name, GR_BENCH_OPERATIONS, base + small, group_forward, &g.op);
    snprintf(name, sizeof name, "%s backward, %s", shape->name, how);
    gr_bench_measure(b, name, GR_BENCH_OPERATIONS, base + 2 * small, group_backward, &g.op);
}

/* A GPU's plain products: of each group without its adapter, and the square one. */
static void bench_product(struct gr_bench *b, const char *of, int64_t n, int64_t in, int64_t out)
{
    struct gr_linear linear = {.weight = values(b, out, in)};
    struct gr_lora_group g = {.linears = 1, .linear = &linear};
    double size = 2.0 * (double)n * (double)in * (double)out;
    char name[64];

    g.x = values(b, n, in);
    g.y = g.dy = values(b, n, out);
    g.dx = values(b, n, in);
    gr_bench_need_workspace(b, gr_lora_group_workspace_bytes(b->dev, n, in, out, 0));
    snprintf(name, sizeof name, "plain product, %s, x WT", of);
    gr_bench_measure(b, name, GR_BENCH_OPERATIONS, size, group_forward, &g);
    snprintf(name, sizeof name, "plain product, %s, dy W", of);
    gr_bench_measure(b, name, GR_BENCH_OPERATIONS, size, group_backward, &g);
}

static void bench_groups(struct gr_bench *b)
{
    const struct gr_bench_shape *s = &b->shape;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim, mark = b->arena.used;
    const struct group_shape groups[] = {{"qkv", s->hidden, 3, {q, kv, kv}},
                                         {"o", q, 1, {s->hidden}},
                                         {"gate+up", s->hidden, 2, {s->ffn, s->ffn}},
                                         {"down", s->ffn, 1, {s->hidden}}};

    for (int64_t i = 0; i < GR_COUNT(groups); i++) {
        int64_t out = groups[i].out[0] + groups[i].out[1] + groups[i].out[2];

        bench_group(b, &groups[i], 0.0f);
        gr_bench_end_case(b, mark);
        bench_group(b, &groups[i], 0.1f);
        gr_bench_end_case(b, mark);
        if (!gr_device_uses_host_memory(b->dev))
            bench_product(b, groups[i].name, s->rows, groups[i].in, out);
        gr_bench_end_case(b, mark);
    }
    if (!gr_device_uses_host_memory(b->dev))
        bench_product(b, "square", s->edge, s->edge, s->edge);
}

/* ---- the head ---- */

static void head_loss(struct gr_device *dev, const void *arguments)
{
    gr_head_loss(dev, arguments);
}

static void bench_head(struct gr_bench *b)
{
    int64_t n = b->shape.rows, c = b->shape.hidden, v = b->shape.vocab;
    double size = 2.0 * (double)n * (double)c * (double)v;
    struct gr_head_loss a = {.row_loss = gr_arena_tensor_1d(&b->arena, GR_F64, n),
                             .dh = values(b, n, c),
                             .h = values(b, n, c),
                             .weight = values(b, v, c),
                             .rows = integers(b, n, 1, n),
                             .targets = integers(b, n, 71, v)};

    gr_bench_need_workspace(b, gr_head_loss_workspace_bytes(b->dev, c, v));
    gr_bench_measure(b, "head and loss, with dh", GR_BENCH_OPERATIONS, 2 * size, head_loss, &a);
    a.dh = (gr_tensor){0};
    gr_bench_measure(b, "head and loss, forward only", GR_BENCH_OPERATIONS, size, head_loss, &a);
}

/* ---- attention ---- */

static void attention_forward(struct gr_device *dev, const void *arguments)
{
    gr_attention_forward(dev, arguments);
}

static void attention_backward(struct gr_device *dev, const void *arguments)
{
    gr_attention_backward(dev, arguments);
}

/* Begin and end of documents of one length, one behind the other. */
static gr_tensor documents_of(struct gr_bench *b, int64_t documents, int64_t length)
{
    gr_tensor t = gr_arena_tensor_2d(&b->arena, GR_I32, documents, 2);
    int32_t *number;

    if (gr_arena_measures(&b->arena))
        return t;
    number = GR_NEW_ARRAY(int32_t, 2 * documents);
    for (int64_t i = 0; i < 2 * documents; i++)
        number[i] = (int32_t)((i + 1) / 2 * length);
    gr_device_upload(b->dev, t, number);
    gr_free(number);
    return t;
}

static void bench_attention(struct gr_bench *b, int64_t n, int64_t length)
{
    int64_t documents = n / length, heads = b->shape.heads, kv_heads = b->shape.kv_heads;
    double width = (double)(heads * b->shape.head_dim), l = (double)length;
    double pairs = 0.5 * l * (l + 1) * (double)documents * width;
    struct gr_attention a = {.q = heads_of(b, n, heads),
                             .k = heads_of(b, n, kv_heads),
                             .v = heads_of(b, n, kv_heads),
                             .docs = documents_of(b, documents, length),
                             .scale = 1 / sqrtf((float)b->shape.head_dim),
                             .o = heads_of(b, n, heads),
                             .lse = floats(b, n, heads),
                             .d_o = heads_of(b, n, heads),
                             .dq = heads_of(b, n, heads),
                             .dk = heads_of(b, n, kv_heads),
                             .dv = heads_of(b, n, kv_heads)};
    char name[64];

    gr_bench_need_workspace(b, gr_attention_workspace_bytes(b->dev, &a));
    snprintf(name, sizeof name, "attention %lld x %lld forward", (long long)documents,
             (long long)length);
    gr_bench_measure(b, name, GR_BENCH_OPERATIONS, 4 * pairs, attention_forward, &a);
    snprintf(name, sizeof name, "attention %lld x %lld backward", (long long)documents,
             (long long)length);
    gr_bench_measure(b, name, GR_BENCH_OPERATIONS, 10 * pairs, attention_backward, &a);
}

static void bench_attentions(struct gr_bench *b)
{
    const struct gr_bench_shape *s = &b->shape;
    int64_t mark = b->arena.used;

    bench_attention(b, s->rows, s->rows);
    gr_bench_end_case(b, mark);
    bench_attention(b, s->rows, s->short_document);
    gr_bench_end_case(b, mark);
    if (s->long_document != s->rows)
        bench_attention(b, s->long_document, s->long_document);
}

/* ---- what passes over memory ---- */

struct rows {
    gr_tensor y, x, z, w, rstd;
    gr_tensor again; /* the forward's y, of the backward */
    gr_tensor cos, sin, positions;
    float scale;
    struct gr_adamw adamw;
};

static void norm_forward(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_rmsnorm_forward(dev, r->y, r->rstd, r->x, r->w, 1e-5);
}

static void norm_backward(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_rmsnorm_backward(dev, r->y, GR_ACCUMULATE, r->again, r->z, r->x, r->w, r->rstd);
}

static void rope(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_rope(dev, r->x, r->cos, r->sin, r->positions, 1);
}

static void swiglu_forward(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_swiglu_forward(dev, r->y, r->x, r->z);
}

static void swiglu_backward(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_swiglu_backward(dev, r->x, r->z, r->again, r->y, r->x, r->z);
}

static void embedding(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_embedding_forward(dev, r->y, r->x, r->positions);
}

static void copy_rows(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_copy(dev, r->y, r->x);
}

static void zero(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_zero(dev, r->y);
}

static void attention_last(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_attention_last(dev, r->y, r->x, r->z, r->w, r->scale);
}

static void head_logits(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_head_logits(dev, r->y, r->x, r->w, r->positions);
}

static void add(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_add(dev, r->y, r->x, r->z);
}

static void sum_squares(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_sum_squares(dev, r->y, r->x, 1);
}

static void adamw(struct gr_device *dev, const void *arguments)
{
    const struct rows *r = arguments;
    gr_adamw(dev, &r->adamw);
}

/* Bytes: of every element, each time it is read or written. */
static void bench_activations(struct gr_bench *b)
{
    int64_t n = b->shape.rows, hidden = b->shape.hidden, ffn = b->shape.ffn;
    double size = (double)gr_dtype_bytes(b->dtype), c = size * (double)(n * hidden);
    double f = size * (double)(n * ffn),
           q = size * (double)(n * b->shape.heads * b->shape.head_dim);
    struct rows norm = {.y = values(b, n, hidden),
                        .x = values(b, n, hidden),
                        .z = values(b, n, hidden),
                        .again = values(b, n, hidden),
                        .w = zeros(b, b->dtype, hidden),
                        .rstd = zeros(b, GR_F32, n)};
    struct rows turn = {.x = heads_of(b, n, b->shape.heads),
                        .cos = floats(b, n, b->shape.head_dim / 2),
                        .sin = floats(b, n, b->shape.head_dim / 2),
                        .positions = integers(b, n, 1, n)};
    struct rows glu = {.y = values(b, n, ffn),
                       .x = values(b, n, ffn),
                       .z = values(b, n, ffn),
                       .again = values(b, n, ffn)};

    gr_bench_measure(b, "embedding", GR_BENCH_BYTES, 2 * c, embedding,
                     &(struct rows){.y = norm.y, .x = norm.x, .positions = turn.positions});
    gr_bench_measure(b, "rmsnorm forward", GR_BENCH_BYTES, 2 * c, norm_forward, &norm);
    gr_bench_measure(b, "rmsnorm backward", GR_BENCH_BYTES, 5 * c, norm_backward, &norm);
    gr_bench_measure(b, "rope of q", GR_BENCH_BYTES, 2 * q, rope, &turn);
    gr_bench_measure(b, "swiglu forward", GR_BENCH_BYTES, 3 * f, swiglu_forward, &glu);
    gr_bench_measure(b, "swiglu backward", GR_BENCH_BYTES, 6 * f, swiglu_backward, &glu);
}

/* One token of a generation, all rows behind it: keys, values and weights are read once. */
static void bench_token(struct gr_bench *b)
{
    const struct gr_bench_shape *s = &b->shape;
    double size = (double)gr_dtype_bytes(b->dtype);
    struct rows attention = {.y = heads_of(b, 1, s->heads),
                             .x = heads_of(b, 1, s->heads),
                             .z = heads_of(b, s->rows, s->kv_heads),
                             .w = heads_of(b, s->rows, s->kv_heads),
                             .scale = 1 / sqrtf((float)s->head_dim)};
    struct rows head = {.y = floats(b, 1, s->vocab),
                        .x = values(b, 1, s->hidden),
                        .w = values(b, s->vocab, s->hidden),
                        .positions = integers(b, 1, 1, 1)};

    gr_bench_measure(b, "attention, one token", GR_BENCH_BYTES,
                     2 * size * (double)(s->rows * s->kv_heads * s->head_dim), attention_last,
                     &attention);
    gr_bench_measure(b, "logits, one token", GR_BENCH_BYTES, size * (double)(s->vocab * s->hidden),
                     head_logits, &head);
}

/* The flat state of an adapter. */
static void bench_state(struct gr_bench *b)
{
    int64_t count = b->shape.state;
    double bytes = 4.0 * (double)count;
    struct gr_adamw_span span = {0, count, 1e-4, 0, {0}};
    struct rows r = {
        .y = zeros(b, GR_F32, count), .x = floats(b, count, 1), .z = zeros(b, GR_F32, count)};
    struct rows sum = {.y = zeros(b, GR_F64, 1)};

    r.x = sum.x = gr_tensor_1d(r.x.data, GR_F32, count);
    gr_bench_measure(b, "zero", GR_BENCH_BYTES, bytes, zero, &r);
    gr_bench_measure(b, "copy", GR_BENCH_BYTES, 2 * bytes, copy_rows, &r);
    gr_bench_measure(b, "add", GR_BENCH_BYTES, 3 * bytes, add, &r);
    gr_bench_measure(b, "sum of squares", GR_BENCH_BYTES, bytes, sum_squares, &sum);
    r.adamw = (struct gr_adamw){.param = r.y,
                                .moment1 = r.z,
                                .moment2 = zeros(b, GR_F32, count),
                                .grad = r.x,
                                .grad_scale = 1,
                                .spans = 1,
                                .span = &span,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .step = 1};
    gr_bench_measure(b, "adamw", GR_BENCH_BYTES, 7 * bytes, adamw, &r);
}

/* ---- all of it ---- */

static void run_cases(struct gr_bench *b)
{
    static void (*const cases[])(struct gr_bench *) = {
        bench_groups, bench_attentions, bench_head, bench_activations, bench_state, bench_token};
    int64_t mark = b->arena.used;

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        cases[i](b);
        gr_bench_end_case(b, mark);
    }
}

/* Ends the program if the device has failed. */
static void check(gr_status status)
{
    if (status == GR_OK)
        return;
    gr_print_error();
    exit(gr_status_exit_code(status));
}

static void print_device(const struct gr_bench *b)
{
    struct gr_device_peak peak = gr_device_peak(b->dev);

    printf("{\"device\": \"%s\", \"peak_giga_flop_per_s\": %.1f, \"peak_giga_bytes_per_s\": %.1f, "
           "\"free_bytes\": %lld}\n",
           gr_device_isa(b->dev), peak.flop_per_s * 1e-9, peak.bytes_per_s * 1e-9,
           (long long)gr_device_memory_available(b->dev));
    fflush(stdout);
}

/* Once to see how much memory it takes, then with it. */
static void measure_ops(struct gr_bench *b)
{
    gr_tensor workspace;
    int64_t bytes;

    run_cases(b);
    gr_arena_tensor_1d(&b->arena, GR_U8, b->workspace_most);
    gr_bench_make_ceilings(b);
    bytes = b->arena.used + GR_ARENA_ALIGN + b->most; /* cases begin behind the last of those */
    check(gr_device_arena_create(b->dev, &b->arena, "bench", bytes));
    workspace = gr_arena_tensor_1d(&b->arena, GR_U8, b->workspace_most);
    gr_device_set_workspace(b->dev, workspace.data, b->workspace_most);
    gr_bench_make_ceilings(b);
    run_cases(b);
    check(gr_device_sync(b->dev));
    gr_device_arena_release(b->dev, &b->arena);
    gr_free(b->product);
}

int main(int argc, char **argv)
{
    enum { FIRST_OF_SHAPE = 7 };
    int threads = argc > 1 ? atoi(argv[1]) : 1, next = FIRST_OF_SHAPE;
    const char *device = argc > 5 ? argv[5] : "cpu";
    struct gr_bench b = {.dtype = argc > 2 && strcmp(argv[2], "bf16") == 0 ? GR_BF16 : GR_F32,
                         .only = argc > 3 ? argv[3] : "",
                         .seconds = argc > 4 ? atof(argv[4]) : 0.5,
                         .shape = smollm2};

#define X(name)                                                                                    \
    if (next < argc)                                                                               \
        b.shape.name = atoll(argv[next++]);
    GR_BENCH_SHAPE(X)
#undef X
    if (argc > FIRST_OF_SHAPE && argc != next) {
        fprintf(stderr, "usage: see bench_ops.c\n");
        return 2;
    }
    check(gr_device_create(&b.dev, device, threads < 1 ? 1 : threads, GR_ISA_NAME));
    if (argc > 6 && argv[6][0] != '\0')
        gr_device_set_cache(b.dev, argv[6]);
    if (!gr_device_uses_host_memory(b.dev))
        print_device(&b);
    if (argc != 6)
        measure_ops(&b);
    gr_device_destroy(b.dev);
    return 0;
}
