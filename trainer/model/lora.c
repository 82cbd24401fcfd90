/* Choosing linears, laying out their matrices, initial values.  See lora.h.
 * The rules for names and patterns are PEFT's (tuners/tuners_utils.py check_target_module_exists,
 * utils/other.py get_pattern_key). */
#include "trainer/model/lora.h"

#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"
#include "kernels/base/philox.h"
#include "trainer/model/name_match.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const module_names[GR_MODULE_COUNT] = {
#define X(module, name, group) [GR_MODULE_##module] = name,
    GR_MODULE_LIST(X)
#undef X
};

static const enum gr_group module_groups[GR_MODULE_COUNT] = {
#define X(module, name, group) [GR_MODULE_##module] = GR_GROUP_##group,
    GR_MODULE_LIST(X)
#undef X
};

const struct gr_group_shape gr_group_shapes[GR_GROUP_COUNT] = {
    [GR_GROUP_QKV] = {GR_MODULE_Q, 3},
    [GR_GROUP_O] = {GR_MODULE_O, 1},
    [GR_GROUP_GATE_UP] = {GR_MODULE_GATE, 2},
    [GR_GROUP_DOWN] = {GR_MODULE_DOWN, 1},
};

const char *gr_module_name(enum gr_module module)
{
    return module_names[module];
}

enum gr_group gr_module_group(enum gr_module module)
{
    return module_groups[module];
}

int64_t gr_module_in(const struct gr_model_config *config, enum gr_module module)
{
    switch (module) {
    case GR_MODULE_O:
        return config->heads * config->head_dim;
    case GR_MODULE_DOWN:
        return config->intermediate_size;
    default:
        return config->hidden_size;
    }
}

int64_t gr_module_out(const struct gr_model_config *config, enum gr_module module)
{
    switch (module) {
    case GR_MODULE_Q:
        return config->heads * config->head_dim;
    case GR_MODULE_K:
    case GR_MODULE_V:
        return config->kv_heads * config->head_dim;
    case GR_MODULE_GATE:
    case GR_MODULE_UP:
        return config->intermediate_size;
    default:
        return config->hidden_size;
    }
}

static const char *const init_words[] = {
    [GR_LORA_INIT_TRUE] = "true",
    [GR_LORA_INIT_GAUSSIAN] = "gaussian",
    [GR_LORA_INIT_FALSE] = "false",
};

const char *gr_lora_init_word(enum gr_lora_init init)
{
    return init_words[init];
}

bool gr_lora_init_find(enum gr_lora_init *init, const char *word)
{
    for (int i = 0; i < (int)GR_COUNT(init_words); i++) {
        if (strcmp(init_words[i], word) == 0) {
            *init = (enum gr_lora_init)i;
            return true;
        }
    }
    return false;
}

static void copy_pattern(struct gr_name_map *to, const struct gr_name_map *from)
{
    to->count = from->count;
    to->key = GR_NEW_ARRAY(char *, from->count);
    to->value = GR_NEW_ARRAY(double, from->count);
    for (int64_t i = 0; i < from->count; i++) {
        to->key[i] = gr_strdup(from->key[i]);
        to->value[i] = from->value[i];
    }
}

static void release_pattern(struct gr_name_map *pattern)
{
    for (int64_t i = 0; i < pattern->count; i++)
        gr_free(pattern->key[i]);
    gr_free(pattern->key);
    gr_free(pattern->value);
}

static void copy_config(struct gr_lora_config *to, const struct gr_lora_config *from)
{
    *to = *from;
    to->target_modules = GR_NEW_ARRAY(char *, from->target_count);
    for (int64_t i = 0; i < from->target_count; i++)
        to->target_modules[i] = gr_strdup(from->target_modules[i]);
    to->target_regex = from->target_regex == NULL ? NULL : gr_strdup(from->target_regex);
    copy_pattern(&to->rank_pattern, &from->rank_pattern);
    copy_pattern(&to->alpha_pattern, &from->alpha_pattern);
}

void gr_lora_config_release(struct gr_lora_config *config)
{
    for (int64_t i = 0; i < config->target_count; i++)
        gr_free(config->target_modules[i]);
    gr_free(config->target_modules);
    gr_free(config->target_regex);
    release_pattern(&config->rank_pattern);
    release_pattern(&config->alpha_pattern);
    memset(config, 0, sizeof *config);
}

static void linear_name(char text[64], int64_t layer, enum gr_module module)
{
    snprintf(text, 64, "model.layers.%lld.%s", (long long)layer, module_names[module]);
}

void gr_lora_matrix_name(char text[64], const struct gr_lora_matrix *matrix)
{
    linear_name(text, matrix->layer, matrix->module);
}

/* name == target, or name ends with "." target */
static bool is_suffix(const char *name, const char *target)
{
    size_t n = strlen(name), t = strlen(target);

    if (n < t || strcmp(name + n - t, target) != 0)
        return false;
    return n == t || name[n - t - 1] == '.';
}

/* The expressions of a configuration, compiled, and which entries of its lists were used. */
struct matcher {
    struct gr_name_patterns target, rank, alpha;
    bool *used, *rank_used, *alpha_used;
};

static gr_status matcher_init(struct matcher *m, const struct gr_lora_config *config)
{
    gr_status status = GR_OK;
    const char *target = config->target_regex;

    m->used = GR_NEW_ARRAY(bool, config->target_count);
    m->rank_used = GR_NEW_ARRAY(bool, config->rank_pattern.count);
    m->alpha_used = GR_NEW_ARRAY(bool, config->alpha_pattern.count);
    if (target != NULL && strcmp(target, "all-linear") == 0)
        target = ".*";
    if (target != NULL)
        GR_TRY(gr_name_patterns_init(&m->target, target, "lora.target_modules", config->is_new));
    GR_TRY(gr_name_patterns_init_map(&m->rank, &config->rank_pattern, "lora.rank_pattern",
                                     config->is_new));
    GR_TRY(gr_name_patterns_init_map(&m->alpha, &config->alpha_pattern, "lora.alpha_pattern",
                                     config->is_new));
out:
    return status;
}

static void matcher_release(struct matcher *m)
{
    gr_name_patterns_release(&m->target);
    gr_name_patterns_release(&m->rank);
    gr_name_patterns_release(&m->alpha);
    gr_free(m->used);
    gr_free(m->rank_used);
    gr_free(m->alpha_used);
}

static bool is_target(struct matcher *m, const struct gr_lora_config *config, const char *name)
{
    bool result = gr_name_patterns_find(&m->target, name) >= 0;

    for (int64_t i = 0; i < config->target_count; i++) {
        if (is_suffix(name, config->target_modules[i]))
            result = m->used[i] = true;
    }
    return result;
}

static double value_for(const struct gr_name_patterns *patterns, bool *used, const char *name,
                        double otherwise)
{
    int64_t i = gr_name_patterns_find(patterns, name);

    if (i < 0)
        return otherwise;
    used[i] = true;
    return patterns->value[i];
}

static void add_matrix(struct gr_adapter *adapter, const struct gr_model_config *model,
                       int64_t layer, enum gr_module module, const char *name, struct matcher *m)
{
    const struct gr_lora_config *config = &adapter->config;
    struct gr_lora_matrix *matrix = &adapter->matrix[adapter->count];
    double r = value_for(&m->rank, m->rank_used, name, (double)config->r);
    double alpha = value_for(&m->alpha, m->alpha_used, name, config->lora_alpha);

    *matrix = (struct gr_lora_matrix){.layer = (int)layer,
                                      .module = module,
                                      .r = (int64_t)r,
                                      .in = gr_module_in(model, module),
                                      .out = gr_module_out(model, module),
                                      .alpha = alpha};
    matrix->scale = (float)(config->use_rslora ? alpha / sqrt(r) : alpha / r);
    matrix->a_begin = adapter->elements;
    matrix->b_begin = matrix->a_begin + gr_mul(matrix->r, matrix->in);
    matrix->end = matrix->b_begin + gr_mul(matrix->out, matrix->r);
    adapter->elements = matrix->end;
    adapter->count++;
}

static gr_status check_sizes(const struct gr_lora_config *config)
{
    if (config->r < 1)
        return gr_fail(GR_ERR_USAGE, "lora.r", "common values are 8, 16 and 32",
                       "the rank of the adapter (found %lld, expected at least 1)",
                       (long long)config->r);
    for (int64_t i = 0; i < config->rank_pattern.count; i++) {
        double r = config->rank_pattern.value[i];

        if (!(r >= 1) || r != floor(r))
            return gr_fail(GR_ERR_USAGE, "lora.rank_pattern", "ranks are whole numbers",
                           "%s (found %g, expected at least 1)", config->rank_pattern.key[i], r);
    }
    return GR_OK;
}

/* A misspelt key would leave every linear as it is. */
static gr_status report_unused(const struct gr_name_map *pattern, const bool *used, const char *key)
{
    for (int64_t i = 0; i < pattern->count; i++) {
        if (!used[i])
            return gr_fail(GR_ERR_USAGE, key,
                           "a key is a module name like q_proj or layers.0.self_attn.q_proj, or an "
                           "expression; of those that match, the first counts",
                           "no adapted linear is left for a key (found \"%s\", expected one that "
                           "matches)",
                           pattern->key[i]);
    }
    return GR_OK;
}

static gr_status report_unmatched(const struct gr_adapter *adapter, const struct matcher *m)
{
    static const char hint[] = "the linears of a layer are q_proj, k_proj, v_proj, o_proj, "
                               "gate_proj, up_proj and down_proj; all-linear takes them all";
    const struct gr_lora_config *config = &adapter->config;

    for (int64_t i = 0; i < config->target_count; i++) {
        if (!m->used[i])
            return gr_fail(GR_ERR_USAGE, "lora.target_modules", hint,
                           "no linear of the model matches (found \"%s\", expected a module name)",
                           config->target_modules[i]);
    }
    if (adapter->count == 0 && config->target_regex == NULL)
        return gr_fail(GR_ERR_USAGE, "lora.target_modules", hint,
                       "no linear is named (found an empty list, expected names, an expression or "
                       "all-linear)");
    if (adapter->count == 0)
        return gr_fail(GR_ERR_USAGE, "lora.target_modules",
                       "a text that is not in a list is an expression for the whole of a name like "
                       "model.layers.0.self_attn.q_proj; write [q_proj] for all of that name",
                       "no linear of the model matches (found the expression \"%s\", expected one "
                       "that matches, a list of names, or all-linear)",
                       config->target_regex);
    return GR_OK;
}

gr_status gr_adapter_create(struct gr_adapter **out, const struct gr_model_config *model,
                            const struct gr_lora_config *config)
{
    gr_status status = GR_OK;
    struct gr_adapter *adapter = GR_NEW(struct gr_adapter);
    struct matcher matcher = {0};
    char name[64];

    *out = NULL;
    copy_config(&adapter->config, config);
    GR_TRY(check_sizes(config));
    GR_TRY(matcher_init(&matcher, &adapter->config));
    adapter->matrix = GR_NEW_ARRAY(struct gr_lora_matrix, gr_mul(model->layers, GR_MODULE_COUNT));
    adapter->place = GR_NEW_ARRAY(int64_t, gr_mul(model->layers, GR_MODULE_COUNT));
    for (int64_t layer = 0; layer < model->layers; layer++) {
        for (int module = 0; module < GR_MODULE_COUNT; module++) {
            linear_name(name, layer, (enum gr_module)module);
            adapter->place[layer * GR_MODULE_COUNT + module] = -1;
            if (!is_target(&matcher, config, name))
                continue;
            adapter->place[layer * GR_MODULE_COUNT + module] = adapter->count;
            add_matrix(adapter, model, layer, (enum gr_module)module, name, &matcher);
        }
    }
    GR_TRY(report_unmatched(adapter, &matcher));
    if (config->is_new) {
        GR_TRY(report_unused(&config->rank_pattern, matcher.rank_used, "lora.rank_pattern"));
        GR_TRY(report_unused(&config->alpha_pattern, matcher.alpha_used, "lora.alpha_pattern"));
    }
    *out = adapter;
    adapter = NULL;
out:
    matcher_release(&matcher);
    gr_adapter_destroy(adapter);
    return status;
}

void gr_adapter_destroy(struct gr_adapter *adapter)
{
    if (adapter == NULL)
        return;
    gr_lora_config_release(&adapter->config);
    gr_free(adapter->matrix);
    gr_free(adapter->place);
    gr_free(adapter);
}

/* values[0..count) uniform in [-bound, bound) */
static void fill_uniform(float *values, int64_t count, double bound, uint64_t seed, uint32_t stream)
{
    for (int64_t e = 0; e < count; e++) {
        struct gr_philox_block block = gr_philox(seed, (uint32_t)(e / 4), stream, 0, 0);

        values[e] = (2 * gr_uniform(block.word[e % 4]) - 1) * (float)bound;
    }
}

/* Normal with this deviation: Box-Muller, a pair of words for each value. */
static void fill_normal(float *values, int64_t count, double deviation, uint64_t seed,
                        uint32_t stream)
{
    for (int64_t e = 0; e < count; e++) {
        struct gr_philox_block block = gr_philox(seed, (uint32_t)(e / 2), stream, 0, 0);
        double radius = sqrt(-2 * log(1 - (double)gr_uniform(block.word[2 * (e % 2)])));
        double angle = 6.283185307179586 * (double)gr_uniform(block.word[2 * (e % 2) + 1]);

        values[e] = (float)(deviation * radius * cos(angle));
    }
}

void gr_adapter_init_values(float *values, const struct gr_adapter *adapter, uint64_t seed)
{
    enum { MODULE_B = 128 }; /* tells B's stream from A's */
    enum gr_lora_init init = adapter->config.init;

    memset(values, 0, (size_t)adapter->elements * sizeof *values);
    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *m = &adapter->matrix[i];
        uint32_t a = gr_rng_stream(GR_RNG_LORA_INIT, m->layer, (int)m->module);
        uint32_t b = gr_rng_stream(GR_RNG_LORA_INIT, m->layer, MODULE_B + (int)m->module);

        if (init == GR_LORA_INIT_GAUSSIAN)
            fill_normal(values + m->a_begin, m->r * m->in, 1.0 / (double)m->r, seed, a);
        else
            fill_uniform(values + m->a_begin, m->r * m->in, 1 / sqrt((double)m->in), seed, a);
        if (init == GR_LORA_INIT_FALSE)
            fill_uniform(values + m->b_begin, m->out * m->r, 1 / sqrt((double)m->r), seed, b);
    }
}

static gr_tensor flat_matrix(gr_tensor flat, int64_t begin, int64_t rows, int64_t columns)
{
    if (flat.ndim == 0)
        return (gr_tensor){0};
    return gr_tensor_2d(gr_tensor_rows(flat, begin, begin + rows * columns).data, flat.dtype, rows,
                        columns);
}

static const struct gr_lora_matrix *find_matrix(const struct gr_adapter *adapter, int layer,
                                                enum gr_module module)
{
    int64_t place = adapter->place[layer * GR_MODULE_COUNT + (int)module];

    return place < 0 ? NULL : &adapter->matrix[place];
}

int64_t gr_adapter_rank(const struct gr_adapter *adapter, int layer, enum gr_module module)
{
    const struct gr_lora_matrix *matrix = find_matrix(adapter, layer, module);

    return matrix == NULL ? 0 : matrix->r;
}

struct gr_lora gr_adapter_view(const struct gr_adapter *adapter, int layer, enum gr_module module,
                               gr_tensor gradient)
{
    const struct gr_lora_matrix *matrix = find_matrix(adapter, layer, module);
    gr_tensor computed = adapter->copy.ndim == 0 ? adapter->param : adapter->copy;
    struct gr_lora view = {0};

    if (matrix == NULL)
        return view;
    view.a = flat_matrix(computed, matrix->a_begin, matrix->r, matrix->in);
    view.b = flat_matrix(computed, matrix->b_begin, matrix->out, matrix->r);
    view.da = flat_matrix(gradient, matrix->a_begin, matrix->r, matrix->in);
    view.db = flat_matrix(gradient, matrix->b_begin, matrix->out, matrix->r);
    view.scale = matrix->scale;
    view.dropout = (float)adapter->config.lora_dropout;
    return view;
}
