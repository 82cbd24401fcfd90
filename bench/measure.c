/* Timing ops and their ceilings.  See measure.h. */
#include "bench/measure.h"

#include "bench/operands.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/tiles.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PRODUCT_ROWS = 1024, PRODUCT_COLUMNS = 3072, PRODUCT_PART = GR_RIGHT_BLOCK };
enum { TIMES_MOST = 1024, CALLS_MOST = 256 };

static const double batch_ns = 2e6; /* on a GPU */

/* ---- the ceilings ---- */

/* CPU: a left operand that is packed before, and a right one as it lies in memory.  GPU: a linear
 * without an adapter, forward or backward. */
struct gr_bench_product {
    gr_tensor y;
    struct gr_left left;
    struct gr_operand right;
    float *rooms; /* [threads][gr_gemm_room_words()] */
    struct gr_linear linear;
    struct gr_lora_group group;
    bool turned;
};

static void make_cpu_product(struct gr_bench *b, struct gr_bench_product *p, bool transposed)
{
    int64_t depth = b->shape.hidden, words, threads = gr_device_threads(b->dev);
    bool pairs = gr_packs_pairs(b->dtype);
    gr_tensor x = gr_bench_operand(b->dev, &b->arena, b->dtype, PRODUCT_ROWS, depth);
    void *room;

    words = gr_left_words(PRODUCT_ROWS, depth, pairs);
    room = gr_arena_tensor_1d(&b->arena, GR_F32, words).data;
    p->y = gr_arena_tensor_2d(&b->arena, GR_F32, PRODUCT_ROWS, PRODUCT_COLUMNS);
    p->right.t = gr_bench_operand(b->dev, &b->arena, b->dtype, transposed ? PRODUCT_COLUMNS : depth,
                                  transposed ? depth : PRODUCT_COLUMNS);
    p->right.transposed = transposed;
    p->rooms = gr_arena_tensor_1d(&b->arena, GR_F32, threads * gr_gemm_room_words()).data;
    if (!gr_arena_measures(&b->arena))
        p->left = GR_CPU(pack_left)(room, (struct gr_operand){x, false}, pairs);
}

static void make_gpu_product(struct gr_bench *b, struct gr_bench_product *p, bool transposed)
{
    int64_t edge = b->shape.edge;

    p->turned = !transposed;
    p->linear.weight = gr_bench_operand(b->dev, &b->arena, b->dtype, edge, edge);
    p->group = (struct gr_lora_group){.linears = 1, .linear = &p->linear};
    p->group.x = gr_bench_operand(b->dev, &b->arena, b->dtype, edge, edge);
    p->group.y = p->group.dy = gr_bench_operand(b->dev, &b->arena, b->dtype, edge, edge);
    p->group.dx = gr_bench_operand(b->dev, &b->arena, b->dtype, edge, edge);
}

void gr_bench_make_ceilings(struct gr_bench *b)
{
    int64_t count = (int64_t)(b->copied_most / 8) + 1;

    if (b->product == NULL)
        b->product = GR_NEW_ARRAY(struct gr_bench_product, 2);
    for (int i = 0; i < 2; i++) {
        if (gr_device_uses_host_memory(b->dev))
            make_cpu_product(b, &b->product[i], i == 1);
        else
            make_gpu_product(b, &b->product[i], i == 1);
    }
    b->copy_from = gr_bench_operand(b->dev, &b->arena, GR_F32, count, 1);
    b->copy_to = gr_bench_operand(b->dev, &b->arena, GR_F32, count, 1);
}

static double product_size(const struct gr_bench *b)
{
    double edge = (double)b->shape.edge;

    return gr_device_uses_host_memory(b->dev)
               ? 2.0 * PRODUCT_ROWS * PRODUCT_COLUMNS * (double)b->shape.hidden
               : 2 * edge * edge * edge;
}

/* One plain product; on the CPU a part on every thread. */
static void product(struct gr_device *dev, const void *arguments)
{
    const struct gr_bench_product *p = arguments;

    if (!gr_device_uses_host_memory(dev)) {
        (p->turned ? gr_lora_group_backward : gr_lora_group_forward)(dev, &p->group);
        return;
    }
#pragma omp parallel for schedule(dynamic) num_threads(gr_device_threads(dev))
    for (int64_t i = 0; i < PRODUCT_COLUMNS; i += PRODUCT_PART) {
        int64_t end = gr_smaller(i + PRODUCT_PART, PRODUCT_COLUMNS);
        struct gr_operand part = p->right;

        part.t =
            part.transposed ? gr_tensor_rows(part.t, i, end) : gr_tensor_columns(part.t, i, end);
        GR_CPU(multiply)
        (gr_tensor_columns(p->y, i, end), GR_OVERWRITE, 1, p->left, part,
         gr_gemm_room_at(dev, p->rooms + omp_get_thread_num() * gr_gemm_room_words()));
    }
}

/* One copy, on the CPU a part on every thread, that reads and writes as many bytes as an op. */
struct copy {
    gr_tensor to, from;
};

static void copy(struct gr_device *dev, const void *arguments)
{
    const struct copy *c = arguments;
    int64_t parts = gr_device_threads(dev), bytes = c->to.dim[0] * (int64_t)sizeof(float);

    if (!gr_device_uses_host_memory(dev)) {
        gr_copy(dev, c->to, c->from);
        return;
    }
#pragma omp parallel for num_threads(gr_device_threads(dev))
    for (int64_t i = 0; i < parts; i++) {
        int64_t begin = bytes * i / parts, end = bytes * (i + 1) / parts;

        memcpy((char *)c->to.data + begin, (const char *)c->from.data + begin,
               (size_t)(end - begin));
    }
}

void gr_bench_need_workspace(struct gr_bench *b, int64_t bytes)
{
    b->workspace_most = gr_larger(b->workspace_most, bytes);
}

void gr_bench_end_case(struct gr_bench *b, int64_t mark)
{
    b->most = gr_larger(b->most, b->arena.used - mark);
    gr_arena_reset(&b->arena, mark);
}

/* ---- times ---- */

/* Of one body: its calls are queued `calls` at a time. */
struct timed {
    gr_bench_body *body;
    const void *arguments;
    int64_t calls;
    int64_t best_ns, best_cpu_ns; /* of one call */
    double ns[TIMES_MOST];        /* of one call, the first batches */
    int count;
};

static int64_t batch(struct gr_bench *b, struct timed *t)
{
    int64_t begin = gr_clock_ns();

    for (int64_t i = 0; i < t->calls; i++)
        t->body(b->dev, t->arguments);
    gr_device_sync(b->dev); /* a failure sticks */
    return gr_clock_ns() - begin;
}

/* The first call warms up; the second tells how many make a batch. */
static void warm_up(struct gr_bench *b, struct timed *t)
{
    t->calls = 1;
    t->best_ns = t->best_cpu_ns = INT64_MAX;
    t->count = 0;
    batch(b, t);
    if (gr_device_uses_host_memory(b->dev))
        return;
    t->calls = (int64_t)(batch_ns / (double)gr_larger(batch(b, t), 1)) + 1;
    t->calls = gr_smaller(t->calls, CALLS_MOST);
}

static void once(struct gr_bench *b, struct timed *t)
{
    int64_t begin_cpu = gr_processor_ns(), ns = batch(b, t);

    t->best_cpu_ns = gr_smaller(t->best_cpu_ns, (gr_processor_ns() - begin_cpu) / t->calls);
    t->best_ns = gr_smaller(t->best_ns, ns / t->calls);
    if (t->count < TIMES_MOST)
        t->ns[t->count++] = (double)ns / (double)t->calls;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of one call, as measure.h says it. */
static double time_ns(const struct gr_bench *b, struct timed *t)
{
    if (gr_device_uses_host_memory(b->dev))
        return (double)t->best_ns;
    qsort(t->ns, (size_t)t->count, sizeof *t->ns, by_size);
    return (t->ns[t->count / 2] + t->ns[(t->count - 1) / 2]) / 2;
}

static void print(const struct gr_bench *b, const char *name, enum gr_bench_kind kind,
                  double amount, double ceiling_amount, struct timed *op,
                  struct timed ceiling[static 2])
{
    double ns = time_ns(b, op), ceiling_ns = time_ns(b, &ceiling[0]), scale;
    int64_t cpu_ns = op->best_cpu_ns, ceiling_cpu_ns = ceiling[0].best_cpu_ns;

    if (kind == GR_BENCH_OPERATIONS) {
        double other_ns = time_ns(b, &ceiling[1]);

        ceiling_ns = other_ns < ceiling_ns ? other_ns : ceiling_ns;
        ceiling_cpu_ns = gr_smaller(ceiling_cpu_ns, ceiling[1].best_cpu_ns);
    }
    if (!gr_device_uses_host_memory(b->dev))
        cpu_ns = ceiling_cpu_ns = 0; /* the host only waits */
    scale = amount / ceiling_amount;
    printf("{\"op\": \"%s\", \"ceiling\": \"%s\", \"ms\": %.4f, \"cpu_ms\": %.4f, "
           "\"giga_per_s\": %.2f, \"ceiling_giga_per_s\": %.2f, \"share\": %.4f, "
           "\"cpu_share\": %.4f}\n",
           name, kind == GR_BENCH_OPERATIONS ? "product" : "copy", ns * 1e-6, (double)cpu_ns * 1e-6,
           amount / ns, ceiling_amount / ceiling_ns, ceiling_ns * scale / ns,
           (double)ceiling_cpu_ns * scale / (double)gr_larger(cpu_ns, 1));
    fflush(stdout);
}

static void end_on_failure(struct gr_bench *b)
{
    if (gr_device_status(b->dev) != GR_OK) {
        gr_print_error();
        exit(gr_status_exit_code(gr_device_status(b->dev)));
    }
}

void gr_bench_measure(struct gr_bench *b, const char *name, enum gr_bench_kind kind, double amount,
                      gr_bench_body *body, const void *arguments)
{
    static struct timed op, ceiling[2]; /* too large for the stack */
    int64_t count = (int64_t)(amount / 8), begin;
    struct copy copied;
    int ceilings = kind == GR_BENCH_OPERATIONS ? 2 : 1;

    if (kind == GR_BENCH_BYTES)
        b->copied_most = amount > b->copied_most ? amount : b->copied_most;
    if (gr_arena_measures(&b->arena) || strstr(name, b->only) == NULL)
        return;
    copied = (struct copy){gr_tensor_1d(b->copy_to.data, GR_F32, count),
                           gr_tensor_1d(b->copy_from.data, GR_F32, count)};
    op.body = body;
    op.arguments = arguments;
    for (int i = 0; i < ceilings; i++) {
        ceiling[i].body = kind == GR_BENCH_OPERATIONS ? product : copy;
        ceiling[i].arguments = kind == GR_BENCH_OPERATIONS ? (void *)&b->product[i] : &copied;
    }
    warm_up(b, &op);
    for (int i = 0; i < ceilings; i++)
        warm_up(b, &ceiling[i]);
    begin = gr_clock_ns();
    do {
        for (int i = 0; i < ceilings; i++)
            once(b, &ceiling[i]);
        once(b, &op);
    } while ((double)(gr_clock_ns() - begin) < b->seconds * 1e9);
    end_on_failure(b);
    print(b, name, kind, amount,
          kind == GR_BENCH_OPERATIONS ? product_size(b) : 8.0 * (double)count, &op, ceiling);
}
