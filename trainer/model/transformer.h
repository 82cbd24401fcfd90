/* The transformer: forward and backward of one pass over stacked rows.
 *
 * A pass owns nothing: gr_pass_layout runs twice, over an arena that measures and one that carves.
 * Rows come in segments, one micro-batch of one trial each, every trial with an adapter of its own
 * over the same base. */
#ifndef GR_TRAINER_TRANSFORMER_H
#define GR_TRAINER_TRANSFORMER_H

#include "data/loader.h"
#include "trainer/model/lora.h"
#include "trainer/model/weights.h"

struct gr_model {
    struct gr_device *dev;
    enum gr_dtype dtype; /* of activations, their gradients and copies of adapters; matrices may be
                            BF16 in any case */
    struct gr_model_config config;
    struct gr_weights weights;
    struct gr_joined_weights joined;
    gr_tensor cos, sin; /* (positions, HD/2) f32 */
};

/* What the device reads for one pass; the arrays of gr_batch, uploaded. */
struct gr_pass_inputs {
    gr_tensor ids;        /* (N) i32 */
    gr_tensor positions;  /* (N) i32 */
    gr_tensor docs;       /* (D, 2) i32 */
    gr_tensor label_rows; /* (N) i32, the first label_count padded to 64 are used */
    gr_tensor targets;    /* (N) i32 */
    gr_tensor loss_spans; /* (segments, 2) i32: labels of each segment */
};

/* The same on the host: filled by gr_pass_add, read by gr_pass_upload. */
struct gr_pass_host {
    int32_t *ids, *positions, *docs, *label_rows, *targets, *loss_spans;
};

/* Keys (rotated) and values of the one document that is being generated: what later tokens need of
 * the earlier ones.  The passes that extend it share it. */
struct gr_kv_cache {
    int64_t room, length; /* tokens it can hold, tokens it holds */
    gr_tensor k, v;       /* (L * room, NKV * HD), layer after layer */
};

void gr_kv_cache_layout(struct gr_kv_cache *cache, const struct gr_model *model,
                        struct gr_arena *arena);

/* What a layer does not keep for its backward, which computes it again first: each level drops what
 * the one before does, and more. */
enum gr_recompute {
    GR_REDO_NOTHING,
    GR_REDO_GATE_UP, /* gate and up: the widest */
    GR_REDO_QKV,     /* q, k and v too */
    GR_REDO_MID,     /* the residual stream after attention too */
    GR_REDO_ALL,     /* attention too: the layer's input alone is kept */
    GR_OFFLOAD,      /* and that waits in the host's memory */
};

/* The stages of a layer's forward, in their order: what it leaves for the backward is dropped from
 * this level on. */
#define GR_LAYER_STAGES(X)                                                                         \
    X(QKV, qkv, GR_REDO_QKV)                                                                       \
    X(ATTENTION, attention, GR_REDO_ALL)                                                           \
    X(MID, mid, GR_REDO_MID)                                                                       \
    X(GATE_UP, gate_up, GR_REDO_GATE_UP)
enum gr_stage {
#define X(NAME, name, dropped_from) GR_STAGE_##NAME,
    GR_LAYER_STAGES(X)
#undef X
        GR_STAGE_COUNT
};

/* Kept by the forward for the backward, per layer, in the model's dtype; rstd* and lse f32.  What
 * the level drops is memory that all such layers share.  R: sum of the group's largest ranks. */
struct gr_layer_acts {
    enum gr_recompute level;
    gr_tensor x;                 /* (N, C) the layer's input: the residual stream */
    gr_tensor away;              /* (N, C) of a stash: x, while other layers have its place */
    gr_tensor rstd1;             /* (N) */
    gr_tensor qkv;               /* (N, Q+2KV): rotated in place, unless qk_norm */
    gr_tensor qk;                /* (N, Q+KV): rotated; a view of qkv, unless qk_norm */
    gr_tensor rstd_q, rstd_k;    /* (N, NH), (N, NKV); qk_norm only */
    gr_tensor o;                 /* (N, Q) output of attention */
    gr_tensor lse;               /* (N, NH) */
    gr_tensor mid;               /* (N, C) residual stream after attention */
    gr_tensor rstd2;             /* (N) */
    gr_tensor gate_up;           /* (N, 2F); the backward writes its gradient over it */
    gr_tensor s[GR_GROUP_COUNT]; /* (N, R) per group; where joined, o's lies behind o */
    struct gr_lora *lora[GR_GROUP_COUNT]; /* [adapters][linears of the group] */
};

struct gr_pass {
    const struct gr_model *model;
    int64_t rows; /* N */
    int adapters;
    struct gr_adapter *const *adapter; /* [adapters] */
    bool is_joined;                    /* the adapter is computed with in model->joined */
    bool has_backward;                 /* false: layers share one set of activations */
    struct {
        int64_t layer;
        enum gr_group group;
    } lowest;                  /* where the first adapter is: the backward ends there */
    struct gr_kv_cache *cache; /* NULL: none; else the pass's document extends it */
    struct gr_pass_inputs in;
    struct gr_pass_host host;
    struct gr_segment *segment; /* [segments] */
    int segments;
    int64_t row_count;   /* rows filled so far */
    int64_t doc_count;   /* D */
    int64_t label_count; /* S, padded to 64 per segment */

    struct gr_layer_acts *layer;     /* [L] */
    struct gr_layer_acts shared;     /* what layers do not keep */
    gr_tensor place[GR_STASH_LANES]; /* (N, C) that the inputs of GR_OFFLOAD layers have in turn */
    gr_tensor x_final;               /* (N, C) output of the last layer */
    gr_tensor rstd_final;            /* (N) */
    gr_tensor h_final;               /* (N, C) after the final norm */
    gr_tensor row_loss;              /* (N) f64 */
    gr_tensor loss; /* (adapters or 1) f64: sum of row_loss per segment; may be put elsewhere */

    gr_tensor xn;      /* (N, C) scratch: normed input of a group */
    gr_tensor ffn;     /* (N, F) scratch: silu(gate)*up */
    gr_tensor dr, dxn; /* (N, C) gradient of the residual stream, of a group's input */
    gr_tensor d_o;     /* (N, Q) */
    gr_tensor dqkv;    /* (N, Q+2KV) */
    gr_tensor dffn;    /* (N, F) */
    gr_tensor ds;      /* (N, largest R); not where joined: there dS lies behind dy */
    int64_t workspace_bytes;
    void *workspace;
};

/* Heap parts (layer table, segments).  adapters may be 0: the base model alone.  An adapter that
 * fits into model->joined is computed with there; x and dy of its groups then have room for S and
 * dS behind their rows (ops.h). */
struct gr_pass *gr_pass_create(const struct gr_model *model, int64_t rows,
                               struct gr_adapter *const *adapter, int adapters, bool has_backward);
void gr_pass_destroy(struct gr_pass *pass);

/* How much is computed again, before the layout; no bit depends on it.  0: nothing, the state after
 * create; L more are one level more for each layer; gr_pass_recompute_most: all; up to
 * gr_pass_offload_most the inputs of layers go to the host's memory besides (not without a
 * backward).
 */
void gr_pass_set_recompute(struct gr_pass *pass, int64_t amount);
int64_t gr_pass_recompute_most(const struct gr_pass *pass);
int64_t gr_pass_offload_most(const struct gr_pass *pass);
/* How many layers compute each stage again. */
void gr_pass_count_redone(int64_t layers[GR_STAGE_COUNT], const struct gr_pass *pass);

/* How many layers have their input away between forward and backward. */
int64_t gr_pass_count_away(const struct gr_pass *pass);

/* away: a stash (device.h), or one that measures; NULL where nothing is offloaded. */
void gr_pass_layout(struct gr_pass *pass, struct gr_arena *step, struct gr_arena *away);
/* For the layout, behind the tensors: what attention takes of the workspace. */
int64_t gr_pass_attention_bytes(const struct gr_pass *pass);

/* Where each adapter's gradients go from now on: gradient[adapters], flat (elements); NULL when the
 * pass has no backward.  To be called after each adapter's param is set. */
void gr_pass_bind(struct gr_pass *pass, const gr_tensor *gradient);

/* What the next forward works on: begin, add each trial's micro-batch (all rows must be filled),
 * upload.  adapter: index, -1 for the base alone. */
void gr_pass_begin(struct gr_pass *pass);
void gr_pass_add(struct gr_pass *pass, const struct gr_batch *batch, int adapter,
                 struct gr_rng rng);
void gr_pass_upload(struct gr_pass *pass);

/* Errors of the three: the device's, sticky.
 * Hidden states of all rows.  train: dropout is on.  With a cache the pass is one document, whose
 * keys and values are added; what is in the cache already is seen by a pass of one row only. */
gr_status gr_pass_forward(struct gr_pass *pass, bool train);
/* Sum of the losses per segment, and (with a backward) the gradient of that sum in h_final. */
gr_status gr_pass_loss(struct gr_pass *pass);
/* All adapter gradients of the sum of losses; overwrites them.  Consumes the activations. */
gr_status gr_pass_backward(struct gr_pass *pass);

#endif
