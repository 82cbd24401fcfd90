/* Architectures: what a Hugging Face config.json means.  An architecture is one row of the table in
 * arch.c: which tensors it has beyond the common ones and how its config keys read.  Everything
 * else in trainer/model asks the resulting gr_model_config, never the architecture's name. */
#ifndef GR_TRAINER_ARCH_H
#define GR_TRAINER_ARCH_H

#include "kernels/base/status.h"

#include <stdint.h>

enum gr_rope_kind { GR_ROPE_DEFAULT, GR_ROPE_LINEAR, GR_ROPE_LLAMA3, GR_ROPE_YARN };

/* Rotary position embedding, in the words of Hugging Face's rope_parameters. */
struct gr_rope_config {
    enum gr_rope_kind kind;
    double theta;
    double factor;                            /* linear, llama3, yarn */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double original_max_position_embeddings;  /* llama3, yarn */
    double beta_fast, beta_slow;              /* yarn */
    double attention_factor;                  /* yarn: multiplies cos and sin; 1 otherwise */
    bool truncate;                            /* yarn: correction range rounded to whole dims */
};

enum { GR_MODEL_MAX_EOS = 16 };

struct gr_model_config {
    const char *model_type;
    int64_t vocab_size;        /* V */
    int64_t hidden_size;       /* C */
    int64_t intermediate_size; /* F */
    int64_t layers;            /* L */
    int64_t heads, kv_heads;   /* NH, NKV */
    int64_t head_dim;          /* HD */
    int64_t max_position_embeddings;
    double rms_norm_eps;
    bool tie_word_embeddings;
    bool qkv_bias, o_bias, mlp_bias;
    bool qk_norm;           /* RMSNorm over each head of q and k before the rotation */
    int64_t sliding_window; /* rows; 0: none */
    int64_t window_from;    /* layers >= this one slide (0: all) */
    struct gr_rope_config rope;
    int64_t eos[GR_MODEL_MAX_EOS]; /* eos_token_id: each ends a text */
    int64_t eos_count;
};

/* Reads directory/config.json.  Errors: ERR_DATA / ERR_NOT_FOUND naming the key, with what was
 * found and what is supported. */
gr_status gr_model_config_load(struct gr_model_config *config, const char *directory);

/* Rows of attention window of a layer, 0 for none. */
int64_t gr_model_window(const struct gr_model_config *config, int64_t layer);

/* What scores are multiplied by: 1/sqrt(HD). */
float gr_model_attention_scale(const struct gr_model_config *config);

/* cos and sin (positions, HD/2), host memory, f32: angle = fl32(position * inv_freq).
 * Source of the kinds: transformers/modeling_rope_utils.py. */
void gr_rope_table(float *cos_table, float *sin_table, const struct gr_model_config *config,
                   int64_t positions);

#endif
