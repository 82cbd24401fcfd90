/* Every matrix product of one training step, alone: a Llama with adapters on all linears, one
 * document whose tokens are all supervised, forward and backward, nothing computed twice.
 *
 *   bench_step_ISA THREADS f32|bf16 SECONDS ROWS HIDDEN FFN LAYERS HEADS KV_HEADS HEAD_DIM VOCAB R
 *
 * One JSON object per product and size: how often a step does it, the milliseconds of one with its
 * operands as they lie in memory, and those of packing them alone; both are medians over SECONDS,
 * taken in turns.  What is left is the product of packed operands.  bench/ops --step runs it beside
 * `graft train` and makes the table. */
#include "bench/operands.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/tiles.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLIM_ROWS = 64,   /* of a task where c has few columns; packed by a thread at a time */
    HEAD_ROWS = 256,  /* whose logits exist at once */
    REPEATS_MOST = 64 /* whose times are kept */
};

#define SHAPE(X) X(rows) X(hidden) X(ffn) X(layers) X(heads) X(kv_heads) X(head_dim) X(vocab) X(r)

struct shape {
#define X(name) int64_t name;
    SHAPE(X)
#undef X
};

/* The products of attention: m tokens of every head against those before them, tile by tile as
 * kernels/cpu/attention*.c has it; n and k are unused. */
enum causal {
    NOT_CAUSAL, /* c (m, n) = a b over an inner dimension of k */
    SCORES,     /* keys, packed before, by queries */
    SUMS,       /* of values by weights, per query */
    SPREAD      /* of weights by queries, per key */
};

struct product {
    const char *part, *name;
    int64_t m, n, k, times;
    bool a_transposed, b_transposed;
    enum causal causal;
    enum gr_dtype a_dtype;
};

struct bench {
    struct gr_device *dev;
    enum gr_dtype dtype;
    struct shape shape;
    double seconds;
    struct gr_arena arena;
    uint32_t *rooms; /* [threads][gr_gemm_room_words()] */
};

/* One product with its memory. */
struct work {
    const struct product *p;
    const struct bench *b;
    gr_tensor c;
    struct gr_operand left, right;
    uint32_t *packed;    /* the left one; causal: [kv heads][gr_packed_words(m, head_dim)] */
    gr_tensor tile, sum; /* causal, of each thread: scores, and what they sum up */
    bool pack_only;
};

static struct gr_gemm_room room_of(const struct bench *b)
{
    return gr_gemm_room_at(b->dev, b->rooms + omp_get_thread_num() * gr_gemm_room_words());
}

static struct gr_operand left_rows(struct gr_operand o, int64_t begin, int64_t end)
{
    o.t = o.transposed ? gr_tensor_columns(o.t, begin, end) : gr_tensor_rows(o.t, begin, end);
    return o;
}

static struct gr_operand right_columns(struct gr_operand o, int64_t begin, int64_t end)
{
    o.t = o.transposed ? gr_tensor_rows(o.t, begin, end) : gr_tensor_columns(o.t, begin, end);
    return o;
}

/* ---- a product of whole matrices ---- */

/* What multiply packs of the right operand. */
static void pack_right(uint32_t *words, struct gr_operand b, int64_t n, int64_t depth, bool pairs)
{
    for (int64_t begin = 0; begin < depth; begin += GR_DEPTH) {
        int64_t end = gr_smaller(depth, begin + GR_DEPTH);

        for (int64_t column = 0; column < n; column += gr_right_columns(pairs)) {
            int64_t count = gr_smaller(gr_right_columns(pairs), n - column);
            int64_t width = gr_pieces(count, GR_VECTOR) * GR_VECTOR;

            GR_CPU(pack_right)
            (words + column * (end - begin), b, pairs, begin, end, column, count, width);
        }
    }
}

static void whole(const struct work *w)
{
    const struct product *p = w->p;
    bool pairs = gr_packs_pairs(w->b->dtype);
    struct gr_left left = gr_left_at(w->packed, p->m, p->k, pairs);
    int64_t height = p->n > GR_RIGHT_BLOCK ? p->m : SLIM_ROWS;
    int64_t blocks = gr_pieces(p->n, GR_RIGHT_BLOCK);

#pragma omp parallel num_threads(gr_device_threads(w->b->dev))
    {
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < p->m; row += SLIM_ROWS)
            GR_CPU(pack_left)
        (left.words + row * left.depth, left_rows(w->left, row, gr_smaller(p->m, row + SLIM_ROWS)),
         pairs);
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < gr_pieces(p->m, height) * blocks; t++) {
            int64_t row = t / blocks * height, bottom = gr_smaller(p->m, row + height);
            int64_t begin = t % blocks * GR_RIGHT_BLOCK;
            int64_t end = gr_smaller(p->n, begin + GR_RIGHT_BLOCK);
            struct gr_operand right = right_columns(w->right, begin, end);
            struct gr_gemm_room room = room_of(w->b);

            if (w->pack_only)
                pack_right(room.right, right, end - begin, left.depth, pairs);
            else
                GR_CPU(multiply)
            (gr_tensor_columns(gr_tensor_rows(w->c, row, bottom), begin, end), GR_OVERWRITE, 1.0f,
             gr_left_part(left, row, bottom), right, room);
        }
    }
}

/* ---- those of attention ---- */

/* Keys or values of a kv head. */
static struct gr_left packed_head(const struct work *w, int64_t kv_head)
{
    int64_t width = w->b->shape.head_dim, rows = w->p->m;
    uint32_t *words = w->packed + kv_head * gr_packed_words(rows, width);

    return w->p->causal == SUMS ? gr_left_at(words, width, rows, gr_packs_pairs(w->b->dtype))
                                : gr_left_at(words, rows, width, gr_packs_pairs(w->b->dtype));
}

static gr_tensor of_thread(gr_tensor t, int64_t rows, int64_t columns)
{
    int64_t each = t.dim[0] / omp_get_num_threads(), first = omp_get_thread_num() * each;

    return gr_tensor_columns(gr_tensor_rows(t, first, first + rows), 0, columns);
}

static gr_tensor of_head(const struct work *w, gr_tensor t, int64_t head, int64_t begin,
                         int64_t end)
{
    int64_t width = w->b->shape.head_dim;

    return gr_tensor_columns(gr_tensor_rows(t, begin, end), head * width, (head + 1) * width);
}

/* Queries [begin, ...) against keys [other, ...). */
static void tile(const struct work *w, int64_t head, int64_t begin, int64_t other)
{
    enum causal kind = w->p->causal;
    int64_t width = w->b->shape.head_dim, rows = gr_smaller(GR_TILE_ROWS, w->p->m - begin);
    int64_t end = gr_smaller(other + GR_BLOCK_ROWS, begin + rows);
    struct gr_gemm_room room = room_of(w->b);
    struct gr_left left = packed_head(w, head * w->b->shape.kv_heads / w->b->shape.heads);
    gr_tensor scores = of_thread(w->tile, end - other, rows), c = scores;
    struct gr_operand right = {of_head(w, w->right.t, head, begin, begin + rows), kind == SCORES};

    if (kind == SCORES) {
        left = gr_left_part(left, other, end);
    } else if (kind == SUMS) {
        left = gr_left_columns(left, other, end);
        right.t = scores;
        c = of_thread(w->sum, width, rows);
    } else {
        left = GR_CPU(pack_left)(room.left, (struct gr_operand){scores, false}, left.pairs);
        c = of_head(w, w->c, head, other, end);
    }
    if (w->pack_only)
        pack_right(room.right, right, c.dim[1], left.depth, left.pairs);
    else
        GR_CPU(multiply)(c, GR_OVERWRITE, 1.0f, left, right, room);
}

static void attention(const struct work *w)
{
    int64_t heads = w->b->shape.heads, kv_heads = w->b->shape.kv_heads;
    bool transposed = w->p->causal == SUMS;

#pragma omp parallel num_threads(gr_device_threads(w->b->dev))
    {
#pragma omp for schedule(dynamic)
        for (int64_t head = 0; head < (w->p->causal == SPREAD ? 0 : kv_heads); head++) {
            struct gr_operand rows = {of_head(w, w->left.t, head, 0, w->p->m), transposed};

            GR_CPU(pack_left)(packed_head(w, head).words, rows, gr_packs_pairs(w->b->dtype));
        }
#pragma omp for schedule(dynamic)
        for (int64_t head = 0; head < heads; head++)
            for (int64_t begin = 0; begin < w->p->m; begin += GR_TILE_ROWS)
                for (int64_t other = 0; other < begin + GR_TILE_ROWS; other += GR_BLOCK_ROWS)
                    tile(w, head, begin, other);
    }
}

/* ---- measuring ---- */

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static double median_ms(int64_t *ns, int count)
{
    qsort(ns, (size_t)count, sizeof *ns, by_size);
    return (double)(ns[count / 2] + ns[(count - 1) / 2]) * 0.5e-6;
}

static int64_t timed_ns(struct work *w, bool pack_only)
{
    int64_t begin = gr_clock_ns();

    w->pack_only = pack_only;
    (w->p->causal == NOT_CAUSAL ? whole : attention)(w);
    return gr_clock_ns() - begin;
}

/* Multiply-adds of a causal product over all heads, those of masked scores included. */
static double causal_size(const struct bench *b, const struct product *p)
{
    double pairs = 0;

    for (int64_t begin = 0; begin < p->m; begin += GR_TILE_ROWS) {
        int64_t end = gr_smaller(p->m, begin + GR_TILE_ROWS);

        pairs += (double)(end - begin) * (double)end;
    }
    return pairs * (double)b->shape.heads * (double)b->shape.head_dim;
}

static struct work prepare(struct bench *b, const struct product *p)
{
    int64_t wide = b->shape.heads * b->shape.head_dim, threads = gr_device_threads(b->dev);
    struct work w = {.p = p, .b = b};

    if (p->causal != NOT_CAUSAL) {
        w.left.t = gr_bench_values(&b->arena, b->dtype, p->m, wide);
        w.right.t = gr_bench_values(&b->arena, b->dtype, p->m, wide);
        w.c = gr_bench_values(&b->arena, GR_F32, p->m, wide);
        w.tile = gr_bench_values(&b->arena, GR_F32, threads * GR_BLOCK_ROWS, GR_TILE_ROWS);
        w.sum = gr_bench_values(&b->arena, GR_F32, threads * b->shape.head_dim, GR_TILE_ROWS);
        w.packed = gr_bench_values(&b->arena, GR_F32, b->shape.kv_heads,
                                   gr_packed_words(p->m, b->shape.head_dim))
                       .data;
        return w;
    }
    w.left =
        (struct gr_operand){gr_bench_values(&b->arena, p->a_dtype, p->a_transposed ? p->k : p->m,
                                            p->a_transposed ? p->m : p->k),
                            p->a_transposed};
    w.right =
        (struct gr_operand){gr_bench_values(&b->arena, b->dtype, p->b_transposed ? p->n : p->k,
                                            p->b_transposed ? p->k : p->n),
                            p->b_transposed};
    w.c = gr_bench_values(&b->arena, GR_F32, p->m, p->n);
    w.packed =
        gr_bench_values(&b->arena, GR_F32, gr_left_words(p->m, p->k, gr_packs_pairs(b->dtype)), 1)
            .data;
    return w;
}

static void measure(struct bench *b, struct product p)
{
    int64_t ns[REPEATS_MOST], packing_ns[REPEATS_MOST], used = b->arena.used, begin;
    struct work w = prepare(b, &p);
    double size =
        p.causal != NOT_CAUSAL ? causal_size(b, &p) : (double)p.m * (double)p.n * (double)p.k;
    int count = 0;

    timed_ns(&w, false); /* warm-up */
    begin = gr_clock_ns();
    do {
        ns[count] = timed_ns(&w, false);
        packing_ns[count++] = timed_ns(&w, true);
    } while (count < REPEATS_MOST && (double)(gr_clock_ns() - begin) < b->seconds * 1e9);
    printf("{\"part\": \"%s\", \"product\": \"%s\", \"m\": %lld, \"n\": %lld, \"k\": %lld, "
           "\"times\": %lld, \"giga_operations\": %.6f, \"ms\": %.5f, \"packing_ms\": %.5f}\n",
           p.part, p.name, (long long)p.m, (long long)p.n, (long long)p.k, (long long)p.times,
           2e-9 * size, median_ms(ns, count), median_ms(packing_ns, count));
    fflush(stdout);
    b->arena.used = used;
}

/* ---- what a step multiplies ---- */

/* `times` linears of this size with their adapters, of which `turned` have a dx. */
static void linears(struct bench *b, int64_t in, int64_t out, int64_t times, int64_t turned)
{
    const struct shape *s = &b->shape;
    const struct product products[] = {
        {"linears, forward", "x WT", s->rows, out, in, times, .b_transposed = true},
        {"linears, dx", "dy W", s->rows, in, out, .times = turned},
        {"adapters", "S = x AT", s->rows, s->r, in, times, .b_transposed = true},
        {"adapters", "S BT", s->rows, out, s->r, times, .b_transposed = true},
        {"adapters", "dS = dy B", s->rows, s->r, out, .times = times},
        {"adapters", "dBT = ST dy", s->r, out, s->rows, times, .a_transposed = true},
        {"adapters", "dA = dST x", s->r, in, s->rows, times, .a_transposed = true},
        {"adapters", "dS A", s->rows, in, s->r, .times = turned},
    };

    for (int64_t i = 0; i < GR_COUNT(products); i++) {
        struct product p = products[i];

        p.a_dtype = b->dtype;
        measure(b, p);
    }
}

static void all_products(struct bench *b)
{
    const struct shape *s = &b->shape;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim, below = s->layers - 1;
    int64_t chunk = gr_smaller(HEAD_ROWS, s->rows), chunks = gr_pieces(s->rows, chunk);
    const struct product others[] = {
        {"attention", "p, dp", .m = s->rows, .times = 3 * s->layers, .causal = SCORES},
        {"attention", "o, dq", .m = s->rows, .times = 2 * s->layers, .causal = SUMS},
        {"attention", "dk, dv", .m = s->rows, .times = 2 * s->layers, .causal = SPREAD},
        {"head", "logits", chunk, s->vocab, s->hidden, chunks, .b_transposed = true},
        {"head", "dh", chunk, s->hidden, s->vocab, .times = chunks},
    };

    linears(b, s->hidden, q, s->layers, below); /* q; nothing below layer 0 learns */
    linears(b, s->hidden, kv, 2 * s->layers, 2 * below);
    linears(b, q, s->hidden, s->layers, s->layers);
    linears(b, s->hidden, s->ffn, 2 * s->layers, 2 * s->layers);
    linears(b, s->ffn, s->hidden, s->layers, s->layers);
    for (int64_t i = 0; i < GR_COUNT(others); i++) {
        struct product p = others[i];

        p.a_dtype = GR_F32; /* h is gathered as f32, and so are the logits */
        measure(b, p);
    }
}

static int64_t arena_bytes(const struct bench *b)
{
    const struct shape *s = &b->shape;
    int64_t wide = gr_larger(gr_larger(s->ffn, s->hidden), s->heads * s->head_dim);
    int64_t rows = gr_larger(s->rows, wide); /* of linears; the head: logits, packed, weight */

    return 4 * (6 * rows * wide + s->vocab * (2 * HEAD_ROWS + s->hidden) +
                gr_device_threads(b->dev) *
                    (gr_gemm_room_words() + 2 * GR_TILE_ROWS * GR_BLOCK_ROWS)) +
           (1 << 20);
}

int main(int argc, char **argv)
{
    struct bench b = {.dtype = argc > 2 && strcmp(argv[2], "bf16") == 0 ? GR_BF16 : GR_F32};
    int next = 4, threads = argc > 1 ? atoi(argv[1]) : 1;

#define X(name)                                                                                    \
    if (next < argc)                                                                               \
        b.shape.name = atoll(argv[next++]);
    SHAPE(X)
#undef X
    if (argc != next || b.shape.r < 1) {
        fprintf(stderr, "usage: see bench/ops --step\n");
        return 2;
    }
    b.seconds = atof(argv[3]);
    if (gr_device_create(&b.dev, "cpu", threads, GR_ISA_NAME) != GR_OK ||
        gr_device_arena_create(b.dev, &b.arena, "bench", arena_bytes(&b)) != GR_OK) {
        gr_print_error();
        return 1;
    }
    b.rooms = gr_bench_values(&b.arena, GR_F32, threads, gr_gemm_room_words()).data;
    all_products(&b);
    gr_device_arena_release(b.dev, &b.arena);
    gr_device_destroy(b.dev);
    return 0;
}
