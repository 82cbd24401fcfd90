/* What a training step asks of a GPU, by formulae in the model's shape: launches, FLOPs and
 * distinct bytes of device memory, part by part, for the usual adapter (one, on all linears,
 * without dropout), bf16, nothing computed again.  tests/cuda/test_cuda_budget.c holds every part
 * to what the emulated GPU counts of the real code; bench_gpu_model.c says what times they imply
 * for larger shapes. Nothing is measured here. */
#ifndef GR_BENCH_GPU_WORK_H
#define GR_BENCH_GPU_WORK_H

#include <stdbool.h>
#include <stdint.h>

struct gpu_shape {
    int64_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab;
    bool biased;            /* q, k and v have biases, as Qwen2's */
    int64_t r;              /* of the adapter on each linear */
    int64_t rows, document; /* of a micro-batch; of each of its documents, a multiple of 64 */
    int64_t labels;         /* rows that the head sees, padded to 64 */
};

/* Llama-3-8B with r = 16, the shape of the budget: all but the rows. */
#define GPU_LLAMA_8B                                                                               \
    .hidden = 4096, .ffn = 14336, .layers = 32, .heads = 32, .kv_heads = 8, .head_dim = 128,       \
    .vocab = 128256, .r = 16

#define GPU_PARTS(X)                                                                               \
    X(linear, "linears") /* base and adapter as one product, and dx */                             \
    X(lora, "LoRA")      /* S, dS, dA, dB: products with r rows or columns */                      \
    X(attention, "attention")                                                                      \
    X(norm, "RMSNorm")                                                                             \
    X(rope, "RoPE")                                                                                \
    X(swiglu, "SwiGLU")                                                                            \
    X(head_product, "head")       /* logits and dh */                                              \
    X(head_rows, "cross-entropy") /* gathered rows, loss, scattered rows */                        \
    X(rest, "embedding, AdamW, sums")

enum gpu_part {
#define X(name, text) GPU_##name,
    GPU_PARTS(X)
#undef X
        GPU_PART_COUNT
};

struct gpu_work {
    double launches;
    double loaded, stored; /* bytes; of a product each operand once */
    double flops;          /* 2 m n k of products, those of attention with what its tiles mask */
};

/* Of every part; each function adds to what is there. */
struct gpu_works {
    struct gpu_work part[GPU_PART_COUNT];
};

/* One layer.  is_first: the first of the model, behind which no backward goes on. */
void gpu_add_layer_forward(struct gpu_works *w, const struct gpu_shape *s);
void gpu_add_layer_backward(struct gpu_works *w, const struct gpu_shape *s, bool is_first);
/* The head with its loss, forward and backward. */
void gpu_add_head(struct gpu_works *w, const struct gpu_shape *s);
/* Embedding and final norm of a micro-batch.  Its tokens are of a vocabulary so large that each row
 * of the embedding is read for one of them. */
void gpu_add_ends(struct gpu_works *w, const struct gpu_shape *s);
/* Norms, AdamW and the adapter's copy beside the weights, of a step of one micro-batch. */
void gpu_add_update(struct gpu_works *w, const struct gpu_shape *s);
/* All of it: a step of one micro-batch. */
void gpu_add_step(struct gpu_works *w, const struct gpu_shape *s);

/* Frozen weights of the linears of a layer, and its adapter's elements. */
double gpu_layer_weights(const struct gpu_shape *s);
double gpu_layer_adapter(const struct gpu_shape *s);

/* FLOPs that no kernel can do without: of causal attention half of the square, 2 products of it
 * forward and 5 backward; of a token those of the model with its adapter. */
double gpu_attention_forward_flops(const struct gpu_shape *s);
double gpu_attention_backward_flops(const struct gpu_shape *s);
double gpu_useful_flops_per_token(const struct gpu_shape *s);

/* What a GPU reaches at best, in one direction at a time. */
struct gpu_rates {
    const char *name;
    double product_flops_per_s;   /* large products of bf16 by cuBLASLt */
    double attention_flops_per_s; /* of mma.sync in kernels/cuda/attention*.cu, masked ones too */
    double bytes_per_s;           /* of a copy */
};
enum { GPU_RATES = 2 };
extern const struct gpu_rates gpu_rates[GPU_RATES];

/* By whichever of FLOPs and bytes takes longer; launches are free. */
double gpu_seconds(const struct gpu_rates *rates, enum gpu_part part, const struct gpu_work *work);

#endif
