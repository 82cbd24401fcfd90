/* LoRA adapters: which linears have one, how large, where in the flat buffers its matrices lie.
 * Knows nothing of files (peft_files.c) and of training (run/). */
#ifndef GR_TRAINER_LORA_H
#define GR_TRAINER_LORA_H

#include "kernels/ops.h"
#include "trainer/model/arch.h"

/* The linears of a layer in the order of the groups: enum, name under the layer, group. */
#define GR_MODULE_LIST(X)                                                                          \
    X(Q, "self_attn.q_proj", QKV)                                                                  \
    X(K, "self_attn.k_proj", QKV)                                                                  \
    X(V, "self_attn.v_proj", QKV)                                                                  \
    X(O, "self_attn.o_proj", O)                                                                    \
    X(GATE, "mlp.gate_proj", GATE_UP)                                                              \
    X(UP, "mlp.up_proj", GATE_UP)                                                                  \
    X(DOWN, "mlp.down_proj", DOWN)

enum gr_module {
#define X(module, name, group) GR_MODULE_##module,
    GR_MODULE_LIST(X)
#undef X
        GR_MODULE_COUNT
};
enum gr_group { GR_GROUP_QKV, GR_GROUP_O, GR_GROUP_GATE_UP, GR_GROUP_DOWN, GR_GROUP_COUNT };

/* Modules [first, first + count) make a group: they share their input. */
struct gr_group_shape {
    enum gr_module first;
    int count;
};
extern const struct gr_group_shape gr_group_shapes[GR_GROUP_COUNT];

const char *gr_module_name(enum gr_module module); /* "self_attn.q_proj" */
enum gr_group gr_module_group(enum gr_module module);
int64_t gr_module_in(const struct gr_model_config *config, enum gr_module module);
int64_t gr_module_out(const struct gr_model_config *config, enum gr_module module);

/* A map of PEFT's: module-name pattern -> number, in file order. */
struct gr_name_map {
    char **key;
    double *value;
    int64_t count;
};

/* PEFT's init_lora_weights: what A and B start as. */
enum gr_lora_init {
    GR_LORA_INIT_TRUE,     /* A uniform in +-1/sqrt(in), B zero */
    GR_LORA_INIT_GAUSSIAN, /* A normal with deviation 1/r, B zero */
    GR_LORA_INIT_FALSE     /* A as above, B uniform in +-1/sqrt(r): not the base model at first */
};

/* The word of PEFT and of the configuration for it: "true", "gaussian", "false". */
const char *gr_lora_init_word(enum gr_lora_init init);
bool gr_lora_init_find(enum gr_lora_init *init, const char *word);

enum { GR_LORA_MAX_R = 65536 }; /* as the configuration has it */

/* The words of PEFT's LoraConfig. */
struct gr_lora_config {
    int64_t r;
    double lora_alpha, lora_dropout;
    bool use_rslora;
    enum gr_lora_init init;
    char **target_modules; /* names or suffixes; NULL when target_regex is set */
    int64_t target_count;
    char *target_regex; /* matched whole; "all-linear": every linear but the head */
    struct gr_name_map rank_pattern, alpha_pattern;
    /* A run's, not that of a file of PEFT's.  Refused then: keys of patterns that no adapted linear
     * takes, which PEFT lets be, and expressions that not every Python has. */
    bool is_new;
};
void gr_lora_config_release(struct gr_lora_config *config);

/* One adapted linear. */
struct gr_lora_matrix {
    int layer;
    enum gr_module module;
    int64_t r, in, out;
    double alpha;
    float scale;     /* alpha / r, or alpha / sqrt(r) */
    int64_t a_begin; /* A (r, in) in the flat buffer */
    int64_t b_begin; /* B (out, r) */
    int64_t end;
};

struct gr_adapter {
    struct gr_lora_config config;
    struct gr_lora_matrix *matrix; /* [count] by layer, then module */
    int64_t count;
    int64_t *place;   /* [L][GR_MODULE_COUNT] number in matrix[], -1: not adapted */
    int64_t elements; /* of the flat buffer */
    /* On the device; set by who owns the state arena. */
    gr_tensor param; /* (elements) f32: the masters */
    gr_tensor copy;  /* (elements) rounded to the compute dtype; none: param is computed with */
};

/* Decides what is adapted.  Errors: ERR_USAGE when r < 1, when a name or the expression matches no
 * linear (naming it and what there is), when an expression is broken or not the same to PEFT,
 * when a key of a pattern is for none and config->is_new. */
gr_status gr_adapter_create(struct gr_adapter **adapter, const struct gr_model_config *model,
                            const struct gr_lora_config *config);
void gr_adapter_destroy(struct gr_adapter *adapter);

/* "model.layers.3.self_attn.q_proj" into text. */
void gr_lora_matrix_name(char text[64], const struct gr_lora_matrix *matrix);

/* The adapter before step 1, as its config's init says.  values (elements), host memory. */
void gr_adapter_init_values(float *values, const struct gr_adapter *adapter, uint64_t seed);

/* Its r, 0 where the linear is not adapted. */
int64_t gr_adapter_rank(const struct gr_adapter *adapter, int layer, enum gr_module module);

/* The op's view of one linear: its A and B in the adapter's flat buffer, its gradients in
 * `gradient` (elements; none when there is no backward).  A linear that is not adapted gives
 * tensors that are none. */
struct gr_lora gr_adapter_view(const struct gr_adapter *adapter, int layer, enum gr_module module,
                               gr_tensor gradient);

#endif
