/* The time per token that the work of a training step implies on an H100 and an H200: a bound that
 * no measurement passes, and what each part of a step is to be compared with.
 *
 *   bench_gpu_model [--json] [KEY=VALUE...]
 *
 * Without KEY=VALUE for three models and three lengths; with them for one shape, whose other keys
 * are those of Llama-3-8B: hidden, ffn, layers, heads, kv_heads, head_dim, vocab, biased, r, rows
 * (4,096), document and labels (as rows).  Markdown, or an object per line: shape and GPU.  The
 * work is that of gpu_work.c, which tests/cuda/test_cuda_budget.c has counted. */
#include "bench/gpu_work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTHS = 3, MODELS = 3 };

static const int64_t lengths[LENGTHS] = {2048, 4096, 8192};

struct model {
    const char *name;
    struct gpu_shape shape;
};

static const struct model models[MODELS] = {
    {"Llama-3.2-1B",
     {.hidden = 2048,
      .ffn = 8192,
      .layers = 16,
      .heads = 32,
      .kv_heads = 8,
      .head_dim = 64,
      .vocab = 128256,
      .r = 16}},
    {"Qwen2.5-7B",
     {.hidden = 3584,
      .ffn = 18944,
      .layers = 28,
      .heads = 28,
      .kv_heads = 4,
      .head_dim = 128,
      .vocab = 152064,
      .biased = true,
      .r = 16}},
    {"Llama-3-8B", {GPU_LLAMA_8B}},
};

/* One document fills the pack, and all of it is supervised. */
static struct gpu_shape packed(const struct model *m, int64_t length)
{
    struct gpu_shape s = m->shape;

    s.rows = s.document = s.labels = length;
    return s;
}

/* Rates of cuDNN 9.19's attention, forward and backward, on an H200 with heads of 128, of causal
 * FLOPs: NVIDIA/cudnn-frontend, benchmark/sdpa_benchmark_training. */
static const struct {
    int64_t length;
    double forward, backward;
} cudnn[LENGTHS] = {{2048, 484e12, 370e12}, {4096, 591e12, 474e12}, {8192, 644e12, 541e12}};

/* Of all layers; the nearest length below. */
static double cudnn_seconds(const struct gpu_shape *s)
{
    int i = LENGTHS - 1;

    while (i > 0 && cudnn[i].length > s->document)
        i--;
    return (double)s->layers * (gpu_attention_forward_flops(s) / cudnn[i].forward +
                                gpu_attention_backward_flops(s) / cudnn[i].backward);
}

/* Microseconds per token of the columns of the table. */
struct times {
    double products, attention, passes, lora, loss, rest;
    double sum, with_cudnn;
};

static struct times times_of(const struct gpu_rates *rates, const struct gpu_shape *s)
{
    struct gpu_works w = {0};
    double part[GPU_PART_COUNT], us = 1e6 / (double)s->rows;
    struct times t;

    gpu_add_step(&w, s);
    for (int i = 0; i < GPU_PART_COUNT; i++)
        part[i] = us * gpu_seconds(rates, (enum gpu_part)i, &w.part[i]);
    t.products = part[GPU_linear] + part[GPU_head_product];
    t.attention = part[GPU_attention];
    t.passes = part[GPU_norm] + part[GPU_rope] + part[GPU_swiglu];
    t.lora = part[GPU_lora];
    t.loss = part[GPU_head_rows];
    t.rest = part[GPU_rest];
    t.sum = t.products + t.attention + t.passes + t.lora + t.loss + t.rest;
    t.with_cudnn = t.sum - t.attention + us * cudnn_seconds(s);
    return t;
}

/* ---- Markdown ---- */

static void print_work(const char *name, const struct gpu_shape *s)
{
    struct gpu_works forward = {0}, backward = {0}, step = {0};
    double launches = 0, all = 0, flops = 0, kb = 1e-3 / (double)s->rows, bytes[2] = {0, 0};
    const struct gpu_work *lora[2] = {&forward.part[GPU_lora], &backward.part[GPU_lora]};

    gpu_add_layer_forward(&forward, s);
    gpu_add_layer_backward(&backward, s, false);
    gpu_add_step(&step, s);
    for (int i = 0; i < GPU_PART_COUNT; i++) {
        launches += forward.part[i].launches + backward.part[i].launches;
        all += step.part[i].launches;
        flops += step.part[i].flops;
    }
    for (int i = GPU_norm; i <= GPU_swiglu; i++) {
        bytes[0] += forward.part[i].loaded + forward.part[i].stored;
        bytes[1] += backward.part[i].loaded + backward.part[i].stored;
    }
    printf("| %s | %lld | %.0f | %.0f | %.1f | %.1f | %.1f | %.1f | %.1f |\n", name,
           (long long)s->rows, launches, all, kb * bytes[0], kb * bytes[1],
           kb * (lora[0]->loaded + lora[0]->stored + lora[1]->loaded + lora[1]->stored),
           flops * 1e-9 / (double)s->rows, gpu_useful_flops_per_token(s) * 1e-9);
}

static void print_times(const char *name, const struct gpu_rates *rates, const struct gpu_shape *s)
{
    struct times t = times_of(rates, s);

    printf("| %s | %lld | %s | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | **%.0f** | %.0f | "
           "%.0f |\n",
           name, (long long)s->rows, rates->name, t.products, t.attention, t.passes, t.lora, t.loss,
           t.rest, t.sum, 1e6 / t.sum, gpu_useful_flops_per_token(s) / t.sum * 1e-6,
           1e6 / t.with_cudnn);
}

static void print_head(void)
{
    printf("# What a training step asks of a GPU, and the time that implies\n\n"
           "LoRA on all linears, bf16, nothing computed again, one document per pack, every token "
           "supervised. Not measured: the work is\n"
           "counted (each kernel's distinct bytes and FLOPs, under emulation, "
           "tests/cuda/test_cuda_budget.c), then computed for these shapes by\n"
           "the same formulae; the time is work by rate, launches are free. Rates, which are not "
           "ours:");
    for (int i = 0; i < GPU_RATES; i++)
        printf(" %s %.0f TF/s in products,\n%.0f in attention by mma.sync, %.1f TB/s%s",
               gpu_rates[i].name, gpu_rates[i].product_flops_per_s * 1e-12,
               gpu_rates[i].attention_flops_per_s * 1e-12, gpu_rates[i].bytes_per_s * 1e-12,
               i + 1 < GPU_RATES ? ";" : ".\n");
}

static void print_tables(const struct model *m, int count, const int64_t *length, int lengths_of_it)
{
    print_head();
    printf("\n## Work\n\nLaunches and kB per token of one layer in the middle; launches and GFLOP "
           "per token of all. Useful: without what\nattention's tiles mask and its backward "
           "computes twice.\n\n"
           "| model | tokens | launches, layer | launches, step | forward passes, kB | backward "
           "passes, kB | LoRA, kB | GFLOP | useful |\n"
           "|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < count; i++)
        for (int k = 0; k < lengths_of_it; k++) {
            struct gpu_shape s = length == NULL ? m[i].shape : packed(&m[i], length[k]);

            print_work(m[i].name, &s);
        }
    printf("\n## Time per token, us\n\nLast column: with attention at the rate that cuDNN 9.19 is "
           "said to reach.\n\n"
           "| model | tokens | GPU | products | attention | passes | LoRA | cross-entropy | rest | "
           "sum | tokens/s, at most | useful TF/s | tokens/s with cuDNN |\n"
           "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < count; i++)
        for (int k = 0; k < lengths_of_it; k++)
            for (int g = 0; g < GPU_RATES; g++) {
                struct gpu_shape s = length == NULL ? m[i].shape : packed(&m[i], length[k]);

                print_times(m[i].name, &gpu_rates[g], &s);
            }
}

/* ---- JSON ---- */

static void print_json(const char *name, const struct gpu_rates *rates, const struct gpu_shape *s)
{
    static const char *const parts[GPU_PART_COUNT] = {
#define X(name, text) [GPU_##name] = #name,
        GPU_PARTS(X)
#undef X
    };
    struct times t = times_of(rates, s);
    struct gpu_works w = {0};

    gpu_add_step(&w, s);
    printf("{\"model\": \"%s\", \"gpu\": \"%s\", \"rows\": %lld, \"us_per_token\": %.6g, "
           "\"tokens_per_s\": %.6g, \"tokens_per_s_with_cudnn\": %.6g, \"parts\": {",
           name, rates->name, (long long)s->rows, t.sum, 1e6 / t.sum, 1e6 / t.with_cudnn);
    for (int i = 0; i < GPU_PART_COUNT; i++)
        printf("%s\"%s\": {\"launches\": %.0f, \"loaded\": %.0f, \"stored\": %.0f, \"flops\": "
               "%.6g, \"us_per_token\": %.6g}",
               i > 0 ? ", " : "", parts[i], w.part[i].launches, w.part[i].loaded, w.part[i].stored,
               w.part[i].flops,
               1e6 / (double)s->rows * gpu_seconds(rates, (enum gpu_part)i, &w.part[i]));
    printf("}}\n");
}

/* ---- the command line ---- */

static bool set_key(struct gpu_shape *s, const char *assignment)
{
    const struct {
        const char *key;
        int64_t *value;
    } keys[] = {{"hidden", &s->hidden},     {"ffn", &s->ffn},
                {"layers", &s->layers},     {"heads", &s->heads},
                {"kv_heads", &s->kv_heads}, {"head_dim", &s->head_dim},
                {"vocab", &s->vocab},       {"r", &s->r},
                {"rows", &s->rows},         {"document", &s->document},
                {"labels", &s->labels}};
    const char *equals = strchr(assignment, '=');
    size_t length = equals == NULL ? 0 : (size_t)(equals - assignment);
    long long value = equals == NULL ? 0 : atoll(equals + 1);

    if (length == strlen("biased") && strncmp(assignment, "biased", length) == 0) {
        s->biased = value != 0;
        return true;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (length == strlen(keys[i].key) && strncmp(assignment, keys[i].key, length) == 0) {
            *keys[i].value = value;
            return value > 0;
        }
    return false;
}

/* What was not given; false, with a message: what cannot be. */
static bool complete(struct gpu_shape *s)
{
    enum { MULTIPLE = 64 };

    s->document = s->document == 0 ? s->rows : s->document;
    s->labels = s->labels == 0 ? s->rows : s->labels;
    if (s->document % MULTIPLE == 0 && s->rows % s->document == 0 && s->labels <= s->rows)
        return true;
    fprintf(stderr,
            "bench_gpu_model: documents are multiples of %d and fill the rows, labels are "
            "among them (found %lld, %lld and %lld)\n",
            MULTIPLE, (long long)s->document, (long long)s->rows, (long long)s->labels);
    return false;
}

int main(int argc, char **argv)
{
    struct model given = models[MODELS - 1];
    bool json = false, is_given = false;

    given.name = "given";
    given.shape.rows = 4096;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (set_key(&given.shape, argv[i])) {
            is_given = true;
        } else {
            fprintf(stderr, "bench_gpu_model: what is %s? (expected --json, KEY=VALUE)\n", argv[i]);
            return 2;
        }
    }
    if (!complete(&given.shape))
        return 2;
    if (!json) {
        print_tables(is_given ? &given : models, is_given ? 1 : MODELS, is_given ? NULL : lengths,
                     is_given ? 1 : LENGTHS);
        return 0;
    }
    for (int i = 0; i < (is_given ? 1 : MODELS); i++)
        for (int k = 0; k < (is_given ? 1 : LENGTHS); k++)
            for (int g = 0; g < GPU_RATES; g++) {
                struct gpu_shape s = is_given ? given.shape : packed(&models[i], lengths[k]);

                print_json(is_given ? given.name : models[i].name, &gpu_rates[g], &s);
            }
    return 0;
}
