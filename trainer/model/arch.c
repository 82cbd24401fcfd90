/* The table of architectures and the reader of config.json.  See arch.h. */
#include "trainer/model/arch.h"

#include "data/json.h"
#include "data/model_files.h"
#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"

#include <math.h>
#include <string.h>

/* A feature of an architecture: never, always, or as a config key says. */
struct feature {
    bool value;      /* without a key, or when the key is absent */
    const char *key; /* NULL: fixed */
};

struct arch {
    const char *model_type;
    struct feature qkv_bias, o_bias, mlp_bias;
    bool qk_norm;
    int64_t head_dim;          /* when the config has none; 0: hidden_size / heads */
    const char *window_switch; /* key that must be true for sliding_window to count; NULL: none */
    int64_t sliding_window;    /* when the config has no such key; 0: has no window at all */
    int64_t max_window_layers; /* when the config has none */
    double rope_theta;         /* when the config has none */
};

enum { HEAD_DIM_MOST = 1024 /* what attention has room for; models have up to 256 */ };

static const struct arch archs[] = {
    {.model_type = "llama",
     .qkv_bias = {false, "attention_bias"},
     .o_bias = {false, "attention_bias"},
     .mlp_bias = {false, "mlp_bias"},
     .rope_theta = 10000.0},
    {.model_type = "mistral", .sliding_window = 4096, .rope_theta = 10000.0},
    {.model_type = "qwen2",
     .qkv_bias = {true, NULL},
     .window_switch = "use_sliding_window",
     .sliding_window = 4096,
     .max_window_layers = 28,
     .rope_theta = 10000.0},
    {.model_type = "qwen3",
     .qkv_bias = {false, "attention_bias"},
     .o_bias = {false, "attention_bias"},
     .qk_norm = true,
     .head_dim = 128,
     .window_switch = "use_sliding_window",
     .sliding_window = 4096,
     .max_window_layers = 28,
     .rope_theta = 10000.0},
};

static const struct {
    const char *name;
    enum gr_rope_kind kind;
} rope_kinds[] = {
    {"default", GR_ROPE_DEFAULT},
    {"linear", GR_ROPE_LINEAR},
    {"llama3", GR_ROPE_LLAMA3},
    {"yarn", GR_ROPE_YARN},
};

static const struct arch *find_arch(const char *model_type)
{
    for (int64_t i = 0; i < GR_COUNT(archs); i++) {
        if (strcmp(archs[i].model_type, model_type) == 0)
            return &archs[i];
    }
    return NULL;
}

static gr_status read_feature(bool *value, struct feature feature, const struct gr_json *config)
{
    *value = feature.value;
    return feature.key == NULL ? GR_OK : gr_json_bool(value, config, feature.key);
}

static gr_status refuse_partial_rotary(const struct gr_json *json)
{
    gr_status status = GR_OK;
    double partial_rotary = 1;

    GR_TRY(gr_json_number(&partial_rotary, json, "partial_rotary_factor"));
    if (partial_rotary != 1)
        status = gr_fail(GR_ERR_DATA, json->place, "partly rotated heads are not implemented",
                         "partial_rotary_factor (found %g, expected 1)", partial_rotary);
out:
    return status;
}

/* Values the engine does not compute with, and must therefore have their neutral value. */
static gr_status refuse_unsupported(const struct gr_json *config)
{
    gr_status status = GR_OK;
    const char *act = "silu";
    double dropout = 0;

    GR_TRY(gr_json_text(&act, config, "hidden_act"));
    if (strcmp(act, "silu") != 0)
        return gr_fail(GR_ERR_DATA, config->place, "this activation is not implemented",
                       "hidden_act (found \"%s\", expected \"silu\")", act);
    GR_TRY(gr_json_number(&dropout, config, "attention_dropout"));
    if (dropout != 0)
        return gr_fail(GR_ERR_DATA, config->place, "set attention_dropout to 0 in config.json",
                       "attention_dropout (found %g, expected 0)", dropout);
    GR_TRY(refuse_partial_rotary(config));
    if (gr_json_has(config, "quantization_config"))
        return gr_fail(GR_ERR_DATA, config->place,
                       "use the unquantized model directory (bf16, f16 or f32 safetensors)",
                       "quantization_config (found a quantized model, expected plain weights)");
out:
    return status;
}

static gr_status read_yarn(struct gr_rope_config *rope, const struct gr_json *dict)
{
    gr_status status = GR_OK;
    double mscale = 0, mscale_all_dim = 0, attention_factor = 0;
    double log_factor = rope->factor <= 1 ? 0 : log(rope->factor);

    rope->beta_fast = 32;
    rope->beta_slow = 1;
    rope->truncate = true;
    GR_TRY(gr_json_number_in(&rope->beta_fast, dict, "beta_fast", 1e-6, 1e6));
    GR_TRY(gr_json_number_in(&rope->beta_slow, dict, "beta_slow", 1e-6, 1e6));
    GR_TRY(gr_json_bool(&rope->truncate, dict, "truncate"));
    GR_TRY(gr_json_number(&attention_factor, dict, "attention_factor"));
    GR_TRY(gr_json_number(&mscale, dict, "mscale"));
    GR_TRY(gr_json_number(&mscale_all_dim, dict, "mscale_all_dim"));
    if (attention_factor != 0)
        rope->attention_factor = attention_factor;
    else if (mscale != 0 && mscale_all_dim != 0)
        rope->attention_factor =
            (0.1 * mscale * log_factor + 1) / (0.1 * mscale_all_dim * log_factor + 1);
    else
        rope->attention_factor = 0.1 * log_factor + 1;
out:
    return status;
}

/* The length before stretching.  It may stand outside the dict, where transformers 4 does not look
 * and transformers 5 looks first. */
static gr_status read_original_length(struct gr_model_config *c, const struct gr_json *config,
                                      const struct gr_json *dict)
{
    gr_status status = GR_OK;
    const char key[] = "original_max_position_embeddings";
    double outside = (double)c->max_position_embeddings, length;

    GR_TRY(gr_json_number_in(&outside, config, key, 1, 1e12));
    length = outside;
    GR_TRY(gr_json_number_in(&length, dict, key, 1, 1e12));
    if (gr_json_has(config, key) && length != outside)
        return gr_fail(GR_ERR_DATA, dict->place,
                       "versions of transformers read different ones of the two; remove the one "
                       "that the model was not trained with",
                       "%s (found %.15g, expected %.15g as outside the dict)", key, length,
                       outside);
    c->rope.original_max_position_embeddings = length;
out:
    return status;
}

static gr_status read_llama3(struct gr_rope_config *rope, const struct gr_json *dict)
{
    gr_status status = GR_OK;

    GR_TRY(gr_json_need(dict, "low_freq_factor"));
    GR_TRY(gr_json_need(dict, "high_freq_factor"));
    GR_TRY(gr_json_number_in(&rope->low_freq_factor, dict, "low_freq_factor", 1e-6, 1e6));
    GR_TRY(gr_json_number_in(&rope->high_freq_factor, dict, "high_freq_factor", 1e-6, 1e6));
    if (rope->high_freq_factor <= rope->low_freq_factor)
        return gr_fail(GR_ERR_DATA, dict->place, "config.json is damaged",
                       "high_freq_factor (found %g, expected more than low_freq_factor %g)",
                       rope->high_freq_factor, rope->low_freq_factor);
out:
    return status;
}

/* rope_theta and rope_scaling, or rope_parameters (transformers 5).  Of both dicts every version
 * takes rope_scaling, unless it is empty. */
static gr_status read_rope(struct gr_model_config *c, const struct gr_json *config, double theta)
{
    gr_status status = GR_OK;
    struct gr_rope_config *rope = &c->rope;
    struct gr_json dict = {0};
    const char *kind = "default";
    bool is_known = false;

    *rope = (struct gr_rope_config){.theta = theta, .factor = 1, .attention_factor = 1};
    GR_TRY(gr_json_number(&rope->theta, config, "rope_theta"));
    GR_TRY(gr_json_object(&dict, config, "rope_scaling"));
    if (json_object_size(dict.value) == 0) {
        gr_json_release(&dict);
        GR_TRY(gr_json_object(&dict, config, "rope_parameters"));
    }
    if (dict.value == NULL)
        goto out;
    GR_TRY(refuse_partial_rotary(&dict));
    GR_TRY(gr_json_number(&rope->theta, &dict, "rope_theta"));
    GR_TRY(gr_json_text(&kind, &dict, "type"));
    GR_TRY(gr_json_text(&kind, &dict, "rope_type"));
    for (int64_t i = 0; i < GR_COUNT(rope_kinds); i++) {
        if (strcmp(rope_kinds[i].name, kind) == 0) {
            rope->kind = rope_kinds[i].kind;
            is_known = true;
        }
    }
    if (!is_known)
        GR_TRY(gr_fail(GR_ERR_DATA, dict.place, "choose a model with one of these rotations",
                       "rope_type (found \"%s\", expected one of default, linear, llama3, yarn)",
                       kind));
    if (rope->kind == GR_ROPE_DEFAULT)
        goto out;
    GR_TRY(gr_json_need(&dict, "factor"));
    GR_TRY(gr_json_number(&rope->factor, &dict, "factor"));
    if (rope->kind == GR_ROPE_LLAMA3 || rope->kind == GR_ROPE_YARN)
        GR_TRY(read_original_length(c, config, &dict));
    if (rope->kind == GR_ROPE_LLAMA3)
        GR_TRY(read_llama3(rope, &dict));
    if (rope->kind == GR_ROPE_YARN)
        GR_TRY(read_yarn(rope, &dict));
    if (!(rope->factor >= 1))
        status = gr_fail(GR_ERR_DATA, dict.place, "config.json is damaged",
                         "factor (found %g, expected at least 1)", rope->factor);
out:
    gr_json_release(&dict);
    return status;
}

/* Absent keys have the defaults of transformers, the same from 4.34 to 5.23; null is no window. */
static gr_status read_window(struct gr_model_config *c, const struct arch *arch,
                             const struct gr_json *config)
{
    gr_status status = GR_OK;
    bool is_on = arch->window_switch == NULL;

    if (arch->sliding_window == 0)
        return GR_OK;
    if (arch->window_switch != NULL)
        GR_TRY(gr_json_bool(&is_on, config, arch->window_switch));
    if (!is_on || json_is_null(json_object_get(config->value, "sliding_window")))
        return GR_OK;
    c->sliding_window = arch->sliding_window;
    GR_TRY(gr_json_int(&c->sliding_window, config, "sliding_window", 1, INT32_MAX));
    c->window_from = arch->max_window_layers;
    if (arch->window_switch != NULL)
        GR_TRY(gr_json_int(&c->window_from, config, "max_window_layers", 0, INT32_MAX));
out:
    return status;
}

/* The list of newer files says for each layer what the keys of read_window said before. */
static gr_status check_layer_types(const struct gr_model_config *c, const struct gr_json *config)
{
    const json_t *list = json_object_get(config->value, "layer_types");

    if (list == NULL || json_is_null(list))
        return GR_OK;
    if (!json_is_array(list) || (int64_t)json_array_size(list) != c->layers)
        return gr_fail(GR_ERR_DATA, config->place, "config.json is damaged",
                       "layer_types (found %s of %zu, expected a list of %lld)",
                       gr_json_type_name(list), json_array_size(list), (long long)c->layers);
    for (int64_t i = 0; i < c->layers; i++) {
        const char *found = json_string_value(json_array_get(list, (size_t)i));
        const char *expected = gr_model_window(c, i) > 0 ? "sliding_attention" : "full_attention";

        if (found == NULL || strcmp(found, expected) != 0)
            return gr_fail(GR_ERR_DATA, config->place,
                           "layers of other types, or in another order, are not implemented",
                           "layer_types: layer %lld (found %.80s, expected %s)", (long long)i,
                           found == NULL ? "no text" : found, expected);
    }
    return GR_OK;
}

struct size_key {
    const char *key;
    int64_t *value;
    bool is_needed;
};

static gr_status read_sizes(struct gr_model_config *c, const struct gr_json *config)
{
    gr_status status = GR_OK;
    const struct size_key keys[] = {
        {"vocab_size", &c->vocab_size, true},
        {"hidden_size", &c->hidden_size, true},
        {"intermediate_size", &c->intermediate_size, true},
        {"num_hidden_layers", &c->layers, true},
        {"num_attention_heads", &c->heads, true},
        {"num_key_value_heads", &c->kv_heads, false},
        {"head_dim", &c->head_dim, false},
        {"max_position_embeddings", &c->max_position_embeddings, true},
    };

    for (int64_t i = 0; i < GR_COUNT(keys); i++) {
        if (keys[i].is_needed)
            GR_TRY(gr_json_need(config, keys[i].key));
        GR_TRY(gr_json_int(keys[i].value, config, keys[i].key, 1, INT32_MAX));
    }
    if (c->kv_heads == 0)
        c->kv_heads = c->heads;
    if (c->layers > UINT16_MAX)
        return gr_fail(GR_ERR_DATA, config->place, "config.json is damaged",
                       "num_hidden_layers (found %lld, expected at most %d)", (long long)c->layers,
                       UINT16_MAX);
out:
    return status;
}

static gr_status check_heads(struct gr_model_config *c, const struct arch *arch,
                             const struct gr_json *config)
{
    if (c->heads % c->kv_heads != 0)
        return gr_fail(GR_ERR_DATA, config->place, "config.json is damaged",
                       "num_key_value_heads (found %lld, expected a divisor of %lld heads)",
                       (long long)c->kv_heads, (long long)c->heads);
    if (c->head_dim == 0)
        c->head_dim = arch->head_dim > 0 ? arch->head_dim : c->hidden_size / c->heads;
    if (c->head_dim < 2 || c->head_dim % 2 != 0 || c->head_dim > HEAD_DIM_MOST)
        return gr_fail(GR_ERR_DATA, config->place, "config.json is damaged",
                       "head_dim (found %lld, expected an even number from 2 to %d)",
                       (long long)c->head_dim, HEAD_DIM_MOST);
    return GR_OK;
}

static gr_status refuse_type(const char *path, const char *model_type)
{
    struct gr_buffer known = {0};

    for (int64_t i = 0; i < GR_COUNT(archs); i++)
        gr_buffer_add_format(&known, "%s%s", i == 0 ? "" : ", ", archs[i].model_type);
    gr_fail(GR_ERR_DATA, path, "choose a model of one of these types",
            "model_type (found \"%s\", expected one of %s)", model_type, known.data);
    gr_buffer_release(&known);
    return GR_ERR_DATA;
}

gr_status gr_model_config_load(struct gr_model_config *c, const char *directory)
{
    gr_status status = GR_OK;
    struct gr_json config = {0};
    const struct arch *arch = NULL;
    const char *model_type = NULL;
    char *path = gr_format("%s/config.json", directory);

    memset(c, 0, sizeof *c);
    GR_TRY(gr_model_directory_check(directory));
    GR_TRY(gr_json_load(&config, path));
    GR_TRY(gr_json_need(&config, "model_type"));
    GR_TRY(gr_json_text(&model_type, &config, "model_type"));
    arch = find_arch(model_type);
    if (arch == NULL)
        GR_TRY(refuse_type(path, model_type));
    c->model_type = arch->model_type;
    c->qk_norm = arch->qk_norm;
    GR_TRY(read_sizes(c, &config));
    GR_TRY(check_heads(c, arch, &config));
    c->rms_norm_eps = 1e-6;
    GR_TRY(gr_json_number_in(&c->rms_norm_eps, &config, "rms_norm_eps", 1e-20, 1));
    GR_TRY(gr_json_bool(&c->tie_word_embeddings, &config, "tie_word_embeddings"));
    GR_TRY(read_feature(&c->qkv_bias, arch->qkv_bias, &config));
    GR_TRY(read_feature(&c->o_bias, arch->o_bias, &config));
    GR_TRY(read_feature(&c->mlp_bias, arch->mlp_bias, &config));
    GR_TRY(read_window(c, arch, &config));
    GR_TRY(check_layer_types(c, &config));
    GR_TRY(read_rope(c, &config, arch->rope_theta));
    if (!(c->rope.theta > 0))
        GR_TRY(gr_fail(GR_ERR_DATA, path, "config.json is damaged",
                       "rope_theta (found %g, expected more than 0)", c->rope.theta));
    GR_TRY(gr_json_ints(c->eos, &c->eos_count, GR_MODEL_MAX_EOS, &config, "eos_token_id"));
    GR_TRY(refuse_unsupported(&config));
out:
    gr_json_release(&config);
    gr_free(path);
    return status;
}

int64_t gr_model_window(const struct gr_model_config *config, int64_t layer)
{
    return layer >= config->window_from ? config->sliding_window : 0;
}

float gr_model_attention_scale(const struct gr_model_config *config)
{
    return (float)(1.0 / sqrt((double)config->head_dim));
}
