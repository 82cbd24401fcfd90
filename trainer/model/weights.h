/* The frozen base weights: every tensor a model has, listed once, loaded from a Hugging Face
 * directory or refused by name. */
#ifndef GR_TRAINER_WEIGHTS_H
#define GR_TRAINER_WEIGHTS_H

#include "kernels/ops.h"
#include "trainer/model/arch.h"
#include "trainer/model/joined_weights.h"

/* Sizes tensors are made of (see gr_model_config): Q = NH*HD, KV = NKV*HD. */
#define GR_SIZE_LIST(X)                                                                            \
    X(NONE, 0) /* the tensor has one dimension only */                                             \
    X(V, c->vocab_size)                                                                            \
    X(C, c->hidden_size)                                                                           \
    X(F, c->intermediate_size)                                                                     \
    X(Q, c->heads * c->head_dim)                                                                   \
    X(KV, c->kv_heads * c->head_dim)                                                               \
    X(HD, c->head_dim)

/* field of struct gr_layer_weights, name in the file under model.layers.{i}., dims, present if */
#define GR_LAYER_TENSOR_LIST(X)                                                                    \
    X(input_norm, "input_layernorm.weight", C, NONE, true)                                         \
    X(q, "self_attn.q_proj.weight", Q, C, true)                                                    \
    X(q_bias, "self_attn.q_proj.bias", Q, NONE, c->qkv_bias)                                       \
    X(k, "self_attn.k_proj.weight", KV, C, true)                                                   \
    X(k_bias, "self_attn.k_proj.bias", KV, NONE, c->qkv_bias)                                      \
    X(v, "self_attn.v_proj.weight", KV, C, true)                                                   \
    X(v_bias, "self_attn.v_proj.bias", KV, NONE, c->qkv_bias)                                      \
    X(q_norm, "self_attn.q_norm.weight", HD, NONE, c->qk_norm)                                     \
    X(k_norm, "self_attn.k_norm.weight", HD, NONE, c->qk_norm)                                     \
    X(o, "self_attn.o_proj.weight", C, Q, true)                                                    \
    X(o_bias, "self_attn.o_proj.bias", C, NONE, c->o_bias)                                         \
    X(post_norm, "post_attention_layernorm.weight", C, NONE, true)                                 \
    X(gate, "mlp.gate_proj.weight", F, C, true)                                                    \
    X(gate_bias, "mlp.gate_proj.bias", F, NONE, c->mlp_bias)                                       \
    X(up, "mlp.up_proj.weight", F, C, true)                                                        \
    X(up_bias, "mlp.up_proj.bias", F, NONE, c->mlp_bias)                                           \
    X(down, "mlp.down_proj.weight", C, F, true)                                                    \
    X(down_bias, "mlp.down_proj.bias", C, NONE, c->mlp_bias)

/* field of struct gr_weights, name in the file, dims, present if */
#define GR_MODEL_TENSOR_LIST(X)                                                                    \
    X(embedding, "model.embed_tokens.weight", V, C, true)                                          \
    X(final_norm, "model.norm.weight", C, NONE, true)                                              \
    X(head, "lm_head.weight", V, C, !c->tie_word_embeddings)

struct gr_layer_weights {
#define X(field, name, rows, columns, present) gr_tensor field;
    GR_LAYER_TENSOR_LIST(X)
#undef X
};

struct gr_weights {
#define X(field, name, rows, columns, present) gr_tensor field; /* head is embedding when tied */
    GR_MODEL_TENSOR_LIST(X)
#undef X
    struct gr_layer_weights *layer;  /* [L] */
    int64_t bytes;                   /* of all of them, as they are in memory */
    int64_t converted_bytes;         /* of those that are no mapped file */
    struct gr_weight_source *source; /* keeps the mappings alive */
};

/* How the processes of one host share converted weights. */
struct gr_weight_sharing {
    enum gr_dtype dtype; /* F32 or BF16: what is computed in; matrices may be BF16 in any case */
    int local_rank, local_size;
    const char *job_key;   /* the same on every rank of the job, another in every other job */
    int threads;           /* for converting and hashing */
    const char *cache_dir; /* for verdicts on files; NULL: none */
    double timeout_s;      /* waiting for the other ranks of this host */
};

/* Elements of all of them. */
int64_t gr_weights_parameters(const struct gr_model_config *config);

/* Two calls load all tensors.
 * load: what each rank does alone.  Missing, extra, misshapen or non-finite tensors: ERR_DATA with
 * the tensor's name, found and expected.  hash: 64 hex digits and NUL, over config.json
 * and all weight files.
 * share: the ranks of a host wait for each other, so first they agree that none has failed in load;
 * afterwards the tensors can be used. */
gr_status gr_weights_load(struct gr_weights *weights, char hash[65],
                          const struct gr_model_config *config, const char *directory,
                          const struct gr_weight_sharing *sharing);
gr_status gr_weights_share(struct gr_weights *weights, const struct gr_model_config *config,
                           const struct gr_weight_sharing *sharing);
/* For a device that has memory of its own: its copies of all tensors, which then take the place of
 * the host's; those of linears that are joined go into their matrices, which are laid out already.
 * Call it over an arena that measures, then over one with memory: the files are read in the order
 * of the tensors, ahead of the copies to the device, and the host's memory and mappings are given
 * back. Errors stick in the device. */
void gr_weights_layout(struct gr_weights *weights, const struct gr_model_config *config,
                       const struct gr_joined_weights *joined, struct gr_device *dev,
                       struct gr_arena *arena);
void gr_weights_release(struct gr_weights *weights);

/* Whether load would succeed, without its memory: the same errors.  *bytes: what all tensors take
 * on a host.  reads_values: also those for which every value is read (a scan
 * whose verdict is kept in the cache, where load finds it). */
gr_status gr_weights_examine(int64_t *bytes, const struct gr_model_config *config,
                             const char *directory, const struct gr_weight_sharing *sharing,
                             bool reads_values);

#endif
