/* What a layer and a step ask of a GPU, counted on the emulated one: launches, FLOPs, and the
 * distinct bytes that each launch really loads and stores.
 *
 * Counted are a model of one layer and a model of two; their difference is a layer in the middle.
 * It is held to the budget of the design, within 10 %, whose formulae give for Llama-3-8B, per
 * token, 139 kB of passes over memory forward and 274 kB backward, 279 kB for LoRA, and 45
 * launches; and, part by part and closely, to bench/gpu_work.c, which computes the same for shapes
 * too large to emulate. */
#include "bench/gpu_work.h"
#include "kernels/base/alloc.h"
#include "tests/cuda/counter.h"
#include "tests/engine_rig.h"
#include "tests/files.h"
#include "tests/test.h"

#include <stdlib.h>

static const double budget_tolerance = 0.1, model_tolerance = 0.01;

/* Small, but its rows outweigh what does not grow with them: weights of norms, A, B and their
 * gradients. */
static const struct gpu_shape llama = {.hidden = 256,
                                       .ffn = 896,
                                       .layers = 2,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .head_dim = 64,
                                       .vocab = 640,
                                       .r = 4,
                                       .rows = 256,
                                       .document = 256,
                                       .labels = 256};
static const struct gpu_shape llama_8b = {GPU_LLAMA_8B, .rows = 4096, .document = 4096,
                                          .labels = 4096};

static const char *const part_texts[GPU_PART_COUNT] = {
#define X(name, text) [GPU_##name] = (text),
    GPU_PARTS(X)
#undef X
};

/* ---- counting ---- */

static struct counter emu;

static bool is_product(const struct emu_operation *o)
{
    return o->m > 0;
}

/* Whether it is one of those that have r rows or columns for each linear of a group. */
static bool is_slim(const struct emu_operation *o, const struct gpu_shape *s)
{
    int64_t most = GR_LINEARS_MOST * s->r;

    return o->m <= most || o->n <= most || o->k <= most;
}

/* Of an operation of a layer.  A kernel that is not known passes over activations: it is counted
 * where there is no room for it. */
static enum gpu_part part_of(const struct emu_operation *o, const struct gpu_shape *s)
{
    static const struct {
        const char *word;
        enum gpu_part part;
    } kernels[] = {
        {"rotate", GPU_rope},          {"forward_runs", GPU_swiglu}, {"backward_runs", GPU_swiglu},
        {"find_reach", GPU_attention}, {"k->run", GPU_attention},    {"chosen", GPU_attention},
        {"kernel", GPU_attention},     {"copy_all", GPU_lora},
    };

    if (is_product(o))
        return is_slim(o, s) ? GPU_lora : GPU_linear;
    if (strstr(o->name, "start_rows") != NULL) /* S, or a bias */
        return o->loaded >= 2 * s->r * s->rows ? GPU_lora : GPU_linear;
    for (int64_t i = 0; i < GR_COUNT(kernels); i++)
        if (strstr(o->name, kernels[i].word) != NULL)
            return kernels[i].part;
    return GPU_norm;
}

static enum gpu_part part_of_head(const struct emu_operation *o, const struct gpu_shape *s)
{
    (void)s;
    return is_product(o) ? GPU_head_product : GPU_head_rows;
}

static bool is_copy_with_the_host(const struct emu_operation *o)
{
    return strstr(o->name, "copy to") != NULL || strstr(o->name, "copy from") != NULL;
}

typedef enum gpu_part part_function(const struct emu_operation *o, const struct gpu_shape *s);

/* What has run since the last call. */
static struct gpu_works take(struct engine_rig *r, const struct gpu_shape *s, part_function *part)
{
    struct gpu_works w = {0};

    ASSERT_OK(gr_device_sync(r->dev));
    for (int64_t i = 0; i < emu.counted(); i++) {
        struct emu_operation o = emu.operation(i);
        struct gpu_work *to = &w.part[part(&o, s)];

        if (is_copy_with_the_host(&o))
            continue;
        if (getenv("GRAFT_BUDGET_LIST") != NULL)
            printf("%-18s %-34s %9" PRId64 " %9" PRId64 " %12.0f %5" PRId64 " %5" PRId64
                   " %5" PRId64 "\n",
                   part_texts[part(&o, s)], o.name, o.loaded, o.stored, o.flops, o.m, o.n, o.k);
        to->launches++;
        to->loaded += (double)o.loaded;
        to->stored += (double)o.stored;
        to->flops += o.flops;
    }
    emu.count(1);
    return w;
}

/* ---- what is counted ---- */

/* A model with random weights of the shape, in the current folder. */
static void make_model(const char *type, const struct gpu_shape *s)
{
    char *command = gr_format(
        "%s model-%lld model_type=%s hidden_size=%lld intermediate_size=%lld "
        "num_hidden_layers=%lld num_attention_heads=%lld num_key_value_heads=%lld head_dim=%lld "
        "vocab_size=%lld",
        TOOL_RANDOM_MODEL, (long long)s->layers, type, (long long)s->hidden, (long long)s->ffn,
        (long long)s->layers, (long long)s->heads, (long long)s->kv_heads, (long long)s->head_dim,
        (long long)s->vocab);

    ASSERT_MSG(system(command) == 0, "%s", command);
    gr_free(command);
}

/* One document of other tokens each, all supervised. */
static void make_document(struct gr_documents *documents, const struct gpu_shape *s)
{
    uint32_t *tokens = GR_NEW_ARRAY(uint32_t, s->document);
    uint8_t *labels = GR_NEW_ARRAY(uint8_t, s->document);

    for (int64_t i = 0; i < s->document; i++) {
        tokens[i] = (uint32_t)(7 * i % s->vocab);
        labels[i] = 1;
    }
    gr_documents_release(documents);
    gr_documents_add(documents, tokens, labels, (int32_t)s->document, 0);
    gr_free(tokens);
    gr_free(labels);
}

/* Ready for its second step: the first one chooses what computes the products. */
static void open_rig(struct engine_rig *r, const struct gpu_shape *s)
{
    char *model = gr_format("model=model-%lld", (long long)s->layers);
    char *rank = gr_format("lora.r=%lld", (long long)s->r);
    char *length = gr_format("data.max_length=%lld", (long long)s->rows);
    const char *const keys[] = {model,
                                rank,
                                length,
                                "device.dtype=bf16",
                                "device.recompute=none",
                                "train.micro_batches=1",
                                "train.max_steps=2",
                                NULL};
    struct gr_update update;

    engine_rig_open(r, "cuda", keys);
    emu = counter_of_plugin();
    make_document(&r->documents, s);
    engine_rig_prepare(r, 1);
    ASSERT(r->engine.is_joined && r->engine.pass->rows == s->rows);
    engine_rig_step(r, &update, 1);
    emu.count(1);
    gr_free(model);
    gr_free(rank);
    gr_free(length);
}

struct counts {
    struct gpu_works forward, head, backward;
};

/* A pass; planted: passes over [T, C] besides, in each direction. */
static struct counts count_pass(const char *type, const struct gpu_shape *s, int64_t planted)
{
    struct engine_rig r;
    struct gr_pass *p;
    struct counts c;

    make_model(type, s);
    open_rig(&r, s);
    p = r.engine.pass;
    ASSERT_OK(gr_pass_forward(p, true));
    for (int64_t i = 0; i < planted; i++)
        gr_copy(r.dev, p->dxn, p->xn);
    c.forward = take(&r, s, part_of);
    ASSERT_OK(gr_pass_loss(p));
    c.head = take(&r, s, part_of_head);
    ASSERT_OK(gr_pass_backward(p));
    for (int64_t i = 0; i < planted; i++)
        gr_copy(r.dev, p->dxn, p->xn);
    c.backward = take(&r, s, part_of);
    engine_rig_close(&r);
    return c;
}

static void subtract(struct gpu_works *w, const struct gpu_works *less)
{
    for (int i = 0; i < GPU_PART_COUNT; i++) {
        w->part[i].launches -= less->part[i].launches;
        w->part[i].loaded -= less->part[i].loaded;
        w->part[i].stored -= less->part[i].stored;
        w->part[i].flops -= less->part[i].flops;
    }
}

/* A layer in the middle: what a second one adds.  The head is that of the one. */
static struct counts count_layer(const char *type, const struct gpu_shape *s, int64_t planted)
{
    struct gpu_shape one = *s, two = *s;
    struct counts layer, less;

    gr_test_enter_folder();
    one.layers = 1;
    two.layers = 2;
    less = count_pass(type, &one, planted);
    layer = count_pass(type, &two, 2 * planted);
    subtract(&layer.forward, &less.forward);
    subtract(&layer.backward, &less.backward);
    return layer;
}

/* ---- judging ---- */

/* 1 where it is off by more. */
static int is_off(const char *what, double counted, double expected, double tolerance)
{
    bool off = !(fabs(counted - expected) <= tolerance * expected);

    printf("  %-34s %14.1f of %14.1f  %+6.2f %%%s\n", what, counted, expected,
           expected == 0 ? 0 : 100 * (counted / expected - 1), off ? "  OFF" : "");
    return off;
}

/* A part beside the formulae; returns how many numbers are off. */
static int compare_part(const char *when, int part, const struct gpu_work *counted,
                        const struct gpu_work *expected)
{
    const double found[] = {counted->launches, counted->loaded, counted->stored, counted->flops};
    const double wanted[] = {expected->launches, expected->loaded, expected->stored,
                             expected->flops};
    static const char *const texts[] = {"launches", "loaded", "stored", "FLOPs"};
    int off = 0;

    for (int i = 0; i < GR_COUNT(texts); i++) {
        char *what = gr_format("%s, %s, %s", when, part_texts[part], texts[i]);

        if (found[i] != 0 || wanted[i] != 0)
            off += is_off(what, found[i], wanted[i], i == 0 ? 0 : model_tolerance);
        gr_free(what);
    }
    return off;
}

static int compare(const char *when, const struct gpu_works *counted,
                   const struct gpu_works *expected)
{
    int off = 0;

    for (int i = 0; i < GPU_PART_COUNT; i++)
        off += compare_part(when, i, &counted->part[i], &expected->part[i]);
    return off;
}

/* The formulae's own. */
static struct counts formulae(const struct gpu_shape *s)
{
    struct counts c = {0};

    gpu_add_layer_forward(&c.forward, s);
    gpu_add_layer_backward(&c.backward, s, false);
    gpu_add_head(&c.head, s);
    return c;
}

static double bytes_of(const struct gpu_works *w, enum gpu_part part)
{
    return w->part[part].loaded + w->part[part].stored;
}

static double passes_of(const struct gpu_works *w)
{
    return bytes_of(w, GPU_norm) + bytes_of(w, GPU_rope) + bytes_of(w, GPU_swiglu);
}

static double launches_of(const struct gpu_works *w)
{
    double launches = 0;

    for (int i = 0; i < GPU_PART_COUNT; i++)
        launches += w->part[i].launches;
    return launches;
}

/* The budget, bytes per token and layer, bf16: RMSNorm reads and writes a row twice; RoPE is in
 * place; SwiGLU reads two and writes one.  Backward: RMSNorm reads dy, x and the residual's
 * gradient, writes that and its output again; SwiGLU reads dh, gate, up, writes h and both
 * gradients.  LoRA: xA and dA read each group's input once, dS and dB its output's gradient. */
struct budget {
    double forward, backward, lora;
};

static struct budget budget_of(const struct gpu_shape *s)
{
    double h = (double)s->hidden, f = (double)s->ffn, q = (double)(s->heads * s->head_dim);
    double kv = (double)(s->kv_heads * s->head_dim);

    return (struct budget){.forward = 2 * (2 * 2 * h + 2 * (q + kv) + 3 * f),
                           .backward = 2 * (2 * 5 * h + 2 * (q + kv) + 6 * f),
                           .lora = 2 * 2 * ((h + q + h + f) + (q + 2 * kv + h + 2 * f + h))};
}

/* How many of its numbers a layer is off; LAUNCHES: those of both directions. */
static int judge(const struct counts *c, const struct gpu_shape *s)
{
    enum { LAUNCHES = 45 };
    struct budget budget = budget_of(s);
    double n = (double)s->rows, p = gpu_layer_weights(s), adapter = gpu_layer_adapter(s);
    double lora = bytes_of(&c->forward, GPU_lora) + bytes_of(&c->backward, GPU_lora);
    const struct gpu_work *f = c->forward.part, *b = c->backward.part;
    double head = 2 * (double)(s->hidden * s->vocab * s->labels);
    int off = 0;

    off += is_off("bytes of passes forward, a token", passes_of(&c->forward) / n, budget.forward,
                  budget_tolerance);
    off += is_off("bytes of passes backward, a token", passes_of(&c->backward) / n, budget.backward,
                  budget_tolerance);
    off += is_off("bytes of LoRA, a token", lora / n, budget.lora, budget_tolerance);
    off += is_off("launches", launches_of(&c->forward) + launches_of(&c->backward), LAUNCHES,
                  budget_tolerance);
    off +=
        is_off("FLOPs of linears forward, a token", (f[GPU_linear].flops + f[GPU_lora].flops) / n,
               2 * p + 2 * adapter, budget_tolerance);
    off +=
        is_off("FLOPs of linears backward, a token", (b[GPU_linear].flops + b[GPU_lora].flops) / n,
               2 * p + 4 * adapter, budget_tolerance);
    off += is_off("FLOPs of the head, both, a label",
                  c->head.part[GPU_head_product].flops / (double)s->labels,
                  2 * head / (double)s->labels, budget_tolerance);
    return off;
}

static void print_times(const struct counts *c, const struct gpu_shape *s)
{
    for (int g = 0; g < GPU_RATES; g++) {
        double us = 0;

        for (int i = 0; i < GPU_PART_COUNT; i++)
            us += 1e6 * (gpu_seconds(&gpu_rates[g], (enum gpu_part)i, &c->forward.part[i]) +
                         gpu_seconds(&gpu_rates[g], (enum gpu_part)i, &c->backward.part[i]));
        printf("  %s: a layer takes %.4f us a token, at least\n", gpu_rates[g].name,
               us / (double)s->rows);
    }
}

static void need_counters(void)
{
    if (strstr(getenv("GRAFT_CUDA_PLUGIN"), "checked") == NULL)
        SKIP("bytes are counted in the checked plug-in");
}

TEST(cuda_budget_of_a_layer_is_kept)
{
    struct counts layer, expected = formulae(&llama);

    need_counters();
    layer = count_layer("llama", &llama, 0);
    ASSERT_INT(judge(&layer, &llama), 0);
    ASSERT_INT(compare("forward", &layer.forward, &expected.forward) +
                   compare("head", &layer.head, &expected.head) +
                   compare("backward", &layer.backward, &expected.backward),
               0);
    print_times(&layer, &llama);
}

/* Biases are passes of their own; the formulae know them. */
TEST(cuda_budget_of_a_biased_layer_is_that_of_the_formulae)
{
    struct gpu_shape qwen = llama;
    struct counts layer, expected;

    need_counters();
    qwen.biased = true;
    expected = formulae(&qwen);
    layer = count_layer("qwen2", &qwen, 0);
    ASSERT_INT(compare("forward", &layer.forward, &expected.forward) +
                   compare("backward", &layer.backward, &expected.backward),
               0);
}

/* One more pass over [T, C] in each direction: forward it breaks the budget, and backward, where it
 * is a smaller part, the formulae. */
TEST(cuda_budget_extra_pass_is_noticed)
{
    struct counts layer, expected = formulae(&llama);
    struct budget budget = budget_of(&llama);

    need_counters();
    layer = count_layer("llama", &llama, 1);
    ASSERT(judge(&layer, &llama) > 0);
    ASSERT(passes_of(&layer.forward) / (double)llama.rows >
           (1 + budget_tolerance) * budget.forward);
    ASSERT(compare_part("forward", GPU_norm, &layer.forward.part[GPU_norm],
                        &expected.forward.part[GPU_norm]) == 3);
    ASSERT(compare_part("backward", GPU_norm, &layer.backward.part[GPU_norm],
                        &expected.backward.part[GPU_norm]) == 3);
}

static enum gpu_part whole(const struct emu_operation *o, const struct gpu_shape *s)
{
    (void)o;
    (void)s;
    return GPU_rest;
}

/* A step of one micro-batch: what is in no layer, too. */
TEST(cuda_budget_of_a_step_is_that_of_the_formulae)
{
    struct engine_rig r;
    struct gr_update update;
    struct gpu_works found, expected = {0};
    struct gpu_work sum = {0};

    need_counters();
    gr_test_enter_folder();
    make_model("llama", &llama);
    open_rig(&r, &llama);
    engine_rig_step(&r, &update, 2);
    found = take(&r, &llama, whole);
    engine_rig_close(&r);
    gpu_add_step(&expected, &llama);
    for (int i = 0; i < GPU_PART_COUNT; i++) {
        sum.launches += expected.part[i].launches;
        sum.loaded += expected.part[i].loaded;
        sum.stored += expected.part[i].stored;
        sum.flops += expected.part[i].flops;
    }
    ASSERT_INT(compare_part("step", GPU_rest, &found.part[GPU_rest], &sum), 0);
}

/* At the shape that the budget was made for, by the formulae that the emulator has confirmed. */
TEST(cuda_budget_of_llama_3_8b_is_kept)
{
    const struct gpu_shape *s = &llama_8b;
    struct budget budget = budget_of(s);
    struct counts c = formulae(s);
    double n = (double)s->rows;

    ASSERT_NEAR(budget.forward, 139e3, 500);
    ASSERT_NEAR(budget.backward, 274e3, 500);
    ASSERT_NEAR(budget.lora, 279e3, 1000);
    ASSERT_INT(judge(&c, s), 0);
    ASSERT_INT(is_off("FLOPs of attention forward, a token",
                      c.forward.part[GPU_attention].flops / n, gpu_attention_forward_flops(s) / n,
                      budget_tolerance),
               0);
    /* Two kernels, of queries and of keys, both with scores and dp, are 7 products where 5 would
     * do: what one kernel would add up by atomics has no fixed order. */
    ASSERT_INT(is_off("FLOPs of attention backward, a token",
                      c.backward.part[GPU_attention].flops / n,
                      7.0 / 5 * gpu_attention_backward_flops(s) / n, budget_tolerance),
               0);
    print_times(&c, s);
}
