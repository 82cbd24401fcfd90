/* How fast the ops that multiply matrices are: time and GF/s at the shapes of one model layer
 * (SmolLM2-135M, R 16, 640 rows).  Only the useful operations are counted: what the backward of
 * attention computes twice counts once.
 *   bench_ops [THREADS] [v3|v4] [WORD]     WORD: only cases whose name has it
 * Best of several repetitions, by the clock on the wall (an idle machine shows its rate here) and
 * by the processor time of all threads (one thread's rate, also on a busy machine). */
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/cpu/matmul.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 640, C = 576, F = 1536, V = 49152, NH = 9, NKV = 3, HD = 64, R = 16 };

static const double seconds_per_case = 0.5;

struct bench {
    struct gr_device *dev;
    const char *only; /* "": all cases */
    struct gr_arena arena;
    gr_tensor workspace;
};

static gr_tensor floats(struct bench *b, int64_t rows, int64_t columns)
{
    gr_tensor t = gr_arena_tensor_2d(&b->arena, GR_F32, rows, columns);
    float *data = t.data;

    for (int64_t i = 0; i < rows * columns; i++)
        data[i] = gr_uniform((uint32_t)i * 2654435761u) - 0.5f;
    return t;
}

static gr_tensor integers(struct bench *b, int64_t rows, int64_t columns)
{
    return gr_arena_tensor_2d(&b->arena, GR_I32, rows, columns);
}

static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Runs `body` for a while and prints the best time. */
static void measure(struct bench *b, const char *name, double operations,
                    void (*body)(struct gr_device *dev, void *arguments), void *arguments)
{
    int64_t best = INT64_MAX, best_cpu = INT64_MAX, begin = gr_clock_ns();

    if (strstr(name, b->only) == NULL)
        return;
    body(b->dev, arguments); /* warm-up */
    do {
        int64_t start = gr_clock_ns(), start_cpu = cpu_ns();

        body(b->dev, arguments);
        best_cpu = smaller(best_cpu, cpu_ns() - start_cpu);
        best = smaller(best, gr_clock_ns() - start);
    } while ((double)(gr_clock_ns() - begin) < seconds_per_case * 1e9);
    if (gr_device_status(b->dev) != GR_OK) {
        gr_print_error();
        exit(gr_status_exit_code(gr_device_status(b->dev)));
    }
    printf("%-34s %9.3f ms %7.1f GF/s %9.3f CPU ms %7.1f GF/s\n", name, (double)best * 1e-6,
           operations / (double)best, (double)best_cpu * 1e-6, operations / (double)best_cpu);
    fflush(stdout);
}

/* ---- one plain product on every thread: what the ops can hope for ---- */

static void product(struct gr_device *dev, void *arguments)
{
    const gr_tensor *t = arguments;

#pragma omp parallel for schedule(dynamic) num_threads(gr_device_threads(dev))
    for (int i = 0; i < 32; i++)
        gr_cpu_matmul_nt(gr_tensor_columns(t[0], i * 96, i * 96 + 96), t[1],
                         gr_tensor_rows(t[2], i * 96, i * 96 + 96), 1.0f, 0.0f);
}

static void bench_product(struct bench *b)
{
    gr_tensor t[3] = {floats(b, 256, 3072), floats(b, 256, C), floats(b, 3072, C)};

    measure(b, "products 256 x 96 x 576", 2.0 * 256 * 3072 * C, product, t);
}

/* ---- linear groups ---- */

struct group_shape {
    const char *name;
    int64_t in;
    int linears;
    int64_t out[3];
};
static const struct group_shape groups[] = {{"qkv", C, 3, {NH * HD, NKV *HD, NKV *HD}},
                                            {"o", NH *HD, 1, {C}},
                                            {"gate+up", C, 2, {F, F}},
                                            {"down", F, 1, {C}}};

static void group_forward(struct gr_device *dev, void *arguments)
{
    gr_lora_group_forward(dev, arguments);
}

static void group_backward(struct gr_device *dev, void *arguments)
{
    gr_lora_group_backward(dev, arguments);
}

static void bench_group(struct bench *b, const struct group_shape *shape, float dropout)
{
    struct gr_linear linear[3] = {0};
    struct gr_lora lora[3] = {0};
    struct gr_segment segment = {0, N, 0, {1, 2, 3}};
    struct gr_lora_group g = {.linears = shape->linears,
                              .linear = linear,
                              .adapters = 1,
                              .lora = lora,
                              .segments = 1,
                              .segment = &segment,
                              .train = true};
    double out = 0, in = (double)shape->in, base, small;
    char name[64];

    for (int i = 0; i < g.linears; i++) {
        linear[i].weight = floats(b, shape->out[i], shape->in);
        lora[i] = (struct gr_lora){.a = floats(b, R, shape->in),
                                   .b = floats(b, shape->out[i], R),
                                   .da = floats(b, R, shape->in),
                                   .db = floats(b, shape->out[i], R),
                                   .scale = 2,
                                   .dropout = dropout};
        out += (double)shape->out[i];
    }
    g.x = floats(b, N, shape->in);
    g.y = floats(b, N, (int64_t)out);
    g.s = floats(b, N, g.linears * R);
    g.ds = floats(b, N, g.linears * R);
    g.dy = g.y;
    g.dx = floats(b, N, shape->in);
    base = 2.0 * N * in * out;
    small = 2.0 * N * R * (in * g.linears + out);
    snprintf(name, sizeof name, "%s forward, dropout %g", shape->name, (double)dropout);
    measure(b, name, base + small, group_forward, &g);
    snprintf(name, sizeof name, "%s backward, dropout %g", shape->name, (double)dropout);
    measure(b, name, base + 2 * small, group_backward, &g);
}

/* ---- the head ---- */

static void head_loss(struct gr_device *dev, void *arguments)
{
    gr_head_loss(dev, arguments);
}

static void bench_head(struct bench *b)
{
    struct gr_head_loss a = {.row_loss = gr_arena_tensor_1d(&b->arena, GR_F64, N),
                             .dh = floats(b, N, C),
                             .h = floats(b, N, C),
                             .weight = floats(b, V, C),
                             .rows = gr_arena_tensor_1d(&b->arena, GR_I32, N),
                             .targets = gr_arena_tensor_1d(&b->arena, GR_I32, N)};

    for (int32_t i = 0; i < N; i++) {
        ((int32_t *)a.rows.data)[i] = i;
        ((int32_t *)a.targets.data)[i] = i * 71;
    }
    measure(b, "head and loss, with dh", 4.0 * N * C * V, head_loss, &a);
    a.dh = (gr_tensor){0};
    measure(b, "head and loss, forward only", 2.0 * N * C * V, head_loss, &a);
}

/* ---- attention ---- */

static void attention_forward(struct gr_device *dev, void *arguments)
{
    gr_attention_forward(dev, arguments);
}

static void attention_backward(struct gr_device *dev, void *arguments)
{
    gr_attention_backward(dev, arguments);
}

static gr_tensor heads_of(struct bench *b, int64_t n, int64_t heads)
{
    return gr_tensor_heads(floats(b, n, heads * HD), heads);
}

static void bench_attention(struct bench *b, int32_t n, int32_t length)
{
    int32_t documents = n / length;
    double pairs = 0.5 * length * (length + 1.0) * documents * NH * HD;
    struct gr_attention a = {.q = heads_of(b, n, NH),
                             .k = heads_of(b, n, NKV),
                             .v = heads_of(b, n, NKV),
                             .docs = integers(b, documents, 2),
                             .scale = 0.125f,
                             .o = heads_of(b, n, NH),
                             .lse = floats(b, n, NH),
                             .d_o = heads_of(b, n, NH),
                             .dq = heads_of(b, n, NH),
                             .dk = heads_of(b, n, NKV),
                             .dv = heads_of(b, n, NKV)};
    char name[64];

    for (int32_t d = 0; d < documents; d++) {
        ((int32_t *)a.docs.data)[2 * d] = d * length;
        ((int32_t *)a.docs.data)[2 * d + 1] = (d + 1) * length;
    }
    snprintf(name, sizeof name, "attention %d x %d forward", documents, length);
    measure(b, name, 4.0 * pairs, attention_forward, &a);
    snprintf(name, sizeof name, "attention %d x %d backward", documents, length);
    measure(b, name, 10.0 * pairs, attention_backward, &a);
}

static void open_bench(struct bench *b, int threads, const char *isa)
{
    int64_t bytes;

    *b = (struct bench){0};
    if (gr_device_create(&b->dev, "cpu", threads, isa) != GR_OK ||
        gr_device_arena_create(b->dev, &b->arena, "bench", (int64_t)2 << 30) != GR_OK) {
        gr_print_error();
        exit(1);
    }
    bytes = gr_head_loss_workspace_bytes(b->dev, C, V) + /* the largest, and then some */
            gr_lora_group_workspace_bytes(b->dev, N, F, 2 * F, 2 * R) +
            gr_attention_workspace_bytes(b->dev, 2048, NH, HD);
    b->workspace = gr_arena_tensor_1d(&b->arena, GR_U8, bytes);
    gr_device_set_workspace(b->dev, b->workspace.data, bytes);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    struct bench b;

    open_bench(&b, threads < 1 ? 1 : threads, argc > 2 ? argv[2] : NULL);
    b.only = argc > 3 ? argv[3] : "";
    printf("%s %s, %d threads\n", gr_device_name(b.dev), gr_device_isa(b.dev),
           gr_device_threads(b.dev));
    bench_product(&b);
    for (int64_t i = 0; i < GR_COUNT(groups); i++) {
        bench_group(&b, &groups[i], 0.0f);
        bench_group(&b, &groups[i], 0.1f);
    }
    bench_attention(&b, N, N);
    bench_attention(&b, N, 64);
    bench_attention(&b, 2048, 2048);
    bench_head(&b);
    gr_device_arena_release(b.dev, &b.arena);
    gr_device_destroy(b.dev);
    return 0;
}
