/* See gpu_work.h.  Each line is a launch of kernels/cuda: (launches, loaded, stored, FLOPs). */
#include "bench/gpu_work.h"

enum {
    BF16 = 2,
    F32 = 4,
    F64 = 8,
    I32 = 4,
    HEAD_ROWS = 1024, /* whose logits exist at once: kernels/cuda/head_loss.cu */
    SPANS = 64        /* of a launch of AdamW, and pairs of one that copies */
};

/* The linears of a group. */
struct group {
    double in, out[3];
    int linears;
    bool adds_residual, biased;
};

enum { QKV, O, GATE_UP, DOWN, GROUPS };

static double q_width(const struct gpu_shape *s)
{
    return (double)(s->heads * s->head_dim);
}

static double kv_width(const struct gpu_shape *s)
{
    return (double)(s->kv_heads * s->head_dim);
}

static struct group group_of(const struct gpu_shape *s, int group)
{
    double h = (double)s->hidden, f = (double)s->ffn;

    switch (group) {
    case QKV:
        return (struct group){.in = h,
                              .out = {q_width(s), kv_width(s), kv_width(s)},
                              .linears = 3,
                              .biased = s->biased};
    case O:
        return (struct group){.in = q_width(s), .out = {h}, .linears = 1, .adds_residual = true};
    case GATE_UP:
        return (struct group){.in = h, .out = {f, f}, .linears = 2};
    default:
        return (struct group){.in = f, .out = {h}, .linears = 1, .adds_residual = true};
    }
}

static double out_of(const struct group *g)
{
    return g->out[0] + g->out[1] + g->out[2];
}

double gpu_layer_weights(const struct gpu_shape *s)
{
    double weights = 0;

    for (int i = 0; i < GROUPS; i++) {
        struct group g = group_of(s, i);

        weights += g.in * out_of(&g);
    }
    return weights;
}

double gpu_layer_adapter(const struct gpu_shape *s)
{
    double elements = 0;

    for (int i = 0; i < GROUPS; i++) {
        struct group g = group_of(s, i);

        elements += (double)s->r * (g.linears * g.in + out_of(&g));
    }
    return elements;
}

static void add(struct gpu_works *w, enum gpu_part part, double loaded, double stored, double flops)
{
    w->part[part].launches++;
    w->part[part].loaded += loaded;
    w->part[part].stored += stored;
    w->part[part].flops += flops;
}

/* c (m, n) <- a (m, k) b (k, n), of bf16; `size`: bytes of an element of c. */
static void add_product(struct gpu_works *w, enum gpu_part part, double m, double n, double k,
                        double size)
{
    add(w, part, BF16 * (m * k + k * n), size * m * n, 2 * m * n * k);
}

/* ---- linear groups: kernels/cuda/lora_group.cu ---- */

static void add_group_forward(struct gpu_works *w, const struct gpu_shape *s, int group)
{
    struct group g = group_of(s, group);
    double n = (double)s->rows, r = (double)s->r * g.linears, out = out_of(&g);

    add_product(w, GPU_lora, n, r, g.in, BF16); /* S <- x A' */
    if (group != O)                             /* where S lies behind x, which is kept */
        add(w, GPU_lora, BF16 * n * r, BF16 * n * r, 0);
    for (int i = 0; i < g.linears && g.biased; i++) /* y <- bias */
        add(w, GPU_linear, BF16 * g.out[i], BF16 * n * g.out[i], 0);
    add_product(w, GPU_linear, n, out, g.in + r, BF16); /* y += [x|S] [W|B]' */
    if (g.adds_residual || g.biased)
        w->part[GPU_linear].loaded += BF16 * n * out;
}

static void add_group_backward(struct gpu_works *w, const struct gpu_shape *s, int group,
                               bool has_dx)
{
    struct group g = group_of(s, group);
    double n = (double)s->rows, r = (double)s->r * g.linears, out = out_of(&g);

    add_product(w, GPU_lora, n, r, out, BF16); /* dS <- dy B */
    for (int i = 0; i < g.linears; i++)        /* dB <- dy' S */
        add_product(w, GPU_lora, g.out[i], (double)s->r, n, F32);
    add_product(w, GPU_lora, r, g.in, n, F32); /* dA <- dS' x */
    if (g.linears > 1)                         /* to its places */
        add(w, GPU_lora, F32 * r * g.in, F32 * r * g.in, 0);
    if (has_dx) /* dx <- [dy|dS] [W|A] */
        add_product(w, GPU_linear, n, g.in, out + r, BF16);
}

/* ---- what passes over memory: rmsnorm.cu, rope.cu, swiglu.cu ---- */

/* Weights and rstd besides the rows. */
static void add_norm(struct gpu_works *w, enum gpu_part part, const struct gpu_shape *s,
                     double rows_in, double rows_out, bool is_forward)
{
    double n = (double)s->rows, h = (double)s->hidden;

    add(w, part, BF16 * h * (rows_in * n + 1) + (is_forward ? 0 : F32 * n),
        BF16 * h * rows_out * n + (is_forward ? F32 * n : 0), 0);
}

/* q and k in place; cosines and sines of every position that a document has. */
static void add_rope(struct gpu_works *w, const struct gpu_shape *s)
{
    double n = (double)s->rows, bytes = BF16 * n * (q_width(s) + kv_width(s));

    add(w, GPU_rope, bytes + F32 * (double)(s->document * s->head_dim) + I32 * n, bytes, 0);
}

/* ---- attention: attention.cu, attention_backward.cu ---- */

/* Pairs of a query and a key that are computed in tiles: warps of `own` rows, which pass over the
 * tiles of `step` that none of theirs sees. */
static double tiled_pairs(const struct gpu_shape *s, int64_t own, int64_t step)
{
    int64_t pairs = 0;

    for (int64_t row = 0; row < s->document; row += own)
        pairs += own * ((row + own + step - 1) / step * step);
    return (double)pairs * (double)s->rows / (double)s->document;
}

static double pair_flops(const struct gpu_shape *s)
{
    return 2 * q_width(s); /* of one product */
}

/* Causal pairs, half of all. */
static double causal_pairs(const struct gpu_shape *s)
{
    return (double)s->rows * (double)s->document / 2;
}

double gpu_attention_forward_flops(const struct gpu_shape *s)
{
    return 2 * causal_pairs(s) * pair_flops(s);
}

double gpu_attention_backward_flops(const struct gpu_shape *s)
{
    return 5 * causal_pairs(s) * pair_flops(s);
}

/* Who sees whom. */
static void add_reach(struct gpu_works *w, const struct gpu_shape *s)
{
    double n = (double)s->rows;

    add(w, GPU_attention, 2 * I32 * n / (double)s->document, 2 * I32 * n, 0);
}

static void add_attention_forward(struct gpu_works *w, const struct gpu_shape *s)
{
    double n = (double)s->rows, q = BF16 * n * q_width(s), kv = BF16 * n * kv_width(s);
    double of_heads = F32 * n * (double)s->heads;

    add_reach(w, s);
    add(w, GPU_attention, q + 2 * kv + I32 * n, q + of_heads,
        2 * tiled_pairs(s, 32, 64) * pair_flops(s));
}

static void add_attention_backward(struct gpu_works *w, const struct gpu_shape *s)
{
    double n = (double)s->rows, q = BF16 * n * q_width(s), kv = BF16 * n * kv_width(s);
    double of_heads = F32 * n * (double)s->heads;

    add_reach(w, s);
    add(w, GPU_attention, 2 * q + of_heads, 2 * of_heads, 0); /* delta and lse */
    add(w, GPU_attention, 2 * q + 2 * kv + I32 * n + 2 * of_heads, q,
        3 * tiled_pairs(s, 16, 32) * pair_flops(s)); /* dq: scores, dp, ds k */
    add(w, GPU_attention, 2 * q + 2 * kv + I32 * n + 2 * of_heads, 2 * kv,
        4 * tiled_pairs(s, 16, 32) * pair_flops(s)); /* dk, dv: scores, dp, p' do, ds' q */
}

/* ---- layers ---- */

void gpu_add_layer_forward(struct gpu_works *w, const struct gpu_shape *s)
{
    double bytes = BF16 * (double)(s->rows * s->ffn);

    add_norm(w, GPU_norm, s, 1, 1, true);
    add_group_forward(w, s, QKV);
    add_rope(w, s);
    add_attention_forward(w, s);
    add_group_forward(w, s, O);
    add_norm(w, GPU_norm, s, 1, 1, true);
    add_group_forward(w, s, GATE_UP);
    add(w, GPU_swiglu, 2 * bytes, bytes, 0);
    add_group_forward(w, s, DOWN);
}

void gpu_add_layer_backward(struct gpu_works *w, const struct gpu_shape *s, bool is_first)
{
    double bytes = BF16 * (double)(s->rows * s->ffn);

    add_group_backward(w, s, DOWN, true);
    add(w, GPU_swiglu, 3 * bytes, 3 * bytes, 0); /* h again */
    add_group_backward(w, s, GATE_UP, true);
    add_norm(w, GPU_norm, s, 3, 2, false); /* xn again */
    add_group_backward(w, s, O, true);
    add_attention_backward(w, s);
    add_rope(w, s);
    add_group_backward(w, s, QKV, !is_first);
    if (is_first)
        add_norm(w, GPU_norm, s, 1, 1, true); /* xn again */
    else
        add_norm(w, GPU_norm, s, 3, 2, false);
}

/* ---- the ends: head_loss.cu, embedding.cu, adamw.cu, flat.cu ---- */

void gpu_add_head(struct gpu_works *w, const struct gpu_shape *s)
{
    double n = (double)s->rows, h = (double)s->hidden, v = (double)s->vocab;

    add(w, GPU_head_rows, 0, BF16 * n * h, 0); /* dh <- 0 */
    for (int64_t begin = 0; begin < s->labels; begin += HEAD_ROWS) {
        double m = (double)(s->labels - begin < HEAD_ROWS ? s->labels - begin : HEAD_ROWS);

        add(w, GPU_head_rows, BF16 * m * h + I32 * m, BF16 * m * h, 0);
        add_product(w, GPU_head_product, m, v, h, F32); /* logits */
        add(w, GPU_head_rows, F32 * m * v + 2 * I32 * m, BF16 * m * v + F64 * m, 0);
        add_product(w, GPU_head_product, m, h, v, BF16); /* dh */
        add(w, GPU_head_rows, BF16 * m * h + I32 * m, BF16 * m * h, 0);
    }
    add(w, GPU_head_rows, F64 * (double)s->labels + 2 * I32, F64, 0); /* sum of the losses */
}

void gpu_add_ends(struct gpu_works *w, const struct gpu_shape *s)
{
    double n = (double)s->rows, bytes = BF16 * n * (double)s->hidden;

    add(w, GPU_rest, bytes + I32 * n, bytes, 0);
    add_norm(w, GPU_rest, s, 1, 1, true);
    add_norm(w, GPU_rest, s, 2, 1, false);
}

void gpu_add_update(struct gpu_works *w, const struct gpu_shape *s)
{
    double elements = gpu_layer_adapter(s) * (double)s->layers, matrices = 7 * (double)s->layers;

    for (int i = 0; i < 2; i++) { /* norms: of the micro-batch, and of the step */
        add(w, GPU_rest, F32 * elements, 0, 0);
        add(w, GPU_rest, 0, 0, 0);
    }
    add(w, GPU_rest, 0, 0, 0); /* the clip factor */
    add(w, GPU_rest, 4 * F32 * elements, 3 * F32 * elements, 0);
    for (double pair = 0; pair < 2 * matrices; pair += SPANS)
        w->part[GPU_rest].launches++;
    w->part[GPU_rest].loaded += F32 * elements;
    w->part[GPU_rest].stored += BF16 * elements;
}

void gpu_add_step(struct gpu_works *w, const struct gpu_shape *s)
{
    for (int64_t layer = 0; layer < s->layers; layer++) {
        gpu_add_layer_forward(w, s);
        gpu_add_layer_backward(w, s, layer == 0);
    }
    gpu_add_head(w, s);
    gpu_add_ends(w, s);
    gpu_add_update(w, s);
}

double gpu_useful_flops_per_token(const struct gpu_shape *s)
{
    double linears = 4 * gpu_layer_weights(s) + 6 * gpu_layer_adapter(s);
    double attention = gpu_attention_forward_flops(s) + gpu_attention_backward_flops(s);

    return (double)s->layers * (linears + attention / (double)s->rows) +
           4 * (double)(s->hidden * s->vocab) * (double)s->labels / (double)s->rows;
}

/* ---- times ---- */

/* H200: 769 to 798 TF/s were seen on random data and 4.3 of its 4.8 TB/s in a copy; the H100 has
 * the same multiprocessors and 3.35 TB/s, of which as large a part is taken.  mma.sync: what
 * FlashAttention 2 reaches there (Shah et al. 2024, arXiv:2407.08608).  None of them is ours. */
const struct gpu_rates gpu_rates[GPU_RATES] = {
    {"H100", 790e12, 370e12, 3.0e12},
    {"H200", 790e12, 370e12, 4.3e12},
};

double gpu_seconds(const struct gpu_rates *rates, enum gpu_part part, const struct gpu_work *work)
{
    double rate = part == GPU_attention ? rates->attention_flops_per_s : rates->product_flops_per_s;
    double by_flops = work->flops / rate;
    double by_bytes = (work->loaded + work->stored) / rates->bytes_per_s;

    return by_flops > by_bytes ? by_flops : by_bytes;
}
