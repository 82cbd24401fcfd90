/* Reading and writing PEFT's two files.  See peft_files.h. */
#include "trainer/model/peft_files.h"

#include "data/json.h"
#include "kernels/base/alloc.h"
#include "kernels/base/widen.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HINT_FIT                                                                                   \
    "give the model that the adapter was trained on; else the adapter's two files do not belong "  \
    "together"

static const char config_name[] = "adapter_config.json";
static const char weights_name[] = "adapter_model.safetensors";

/* Settings graft does not compute with: key and the one JSON value that is neutral.  They are
 * written with it, and refused with any other. */
static const struct {
    const char *key, *neutral;
} fixed_settings[] = {
    {"auto_mapping", "null"},
    {"bias", "\"none\""},
    {"exclude_modules", "null"},
    {"fan_in_fan_out", "false"},
    {"layer_replication", "null"},
    {"layers_pattern", "null"},
    {"layers_to_transform", "null"},
    {"loftq_config", "{}"},
    {"lora_bias", "false"},
    {"megatron_config", "null"},
    {"modules_to_save", "null"},
    {"peft_type", "\"LORA\""},
    {"target_parameters", "null"},
    {"task_type", "\"CAUSAL_LM\""},
    {"trainable_token_indices", "null"},
    {"use_dora", "false"},
};
/* Written for readers that expect them; their value does not matter to the computation. */
static const struct {
    const char *key, *value;
} free_settings[] = {
    {"inference_mode", "true"},
    {"megatron_core", "\"megatron.core\""},
    {"peft_version", "\"0.21.2\""},
    {"revision", "null"},
};
/* Settings of gr_lora_config, and two that say nothing alone. */
static const char *const other_settings[] = {
    "alpha_pattern",
    "base_model_name_or_path",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
};

static json_t *parse_value(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);

    GR_CHECK(value != NULL, "%s", text);
    return value;
}

static json_t *number(double value)
{
    return value == floor(value) && fabs(value) < 1e15 ? json_integer((json_int_t)value)
                                                       : json_real(value);
}

/* true, false or a text. */
static json_t *init_value(enum gr_lora_init init)
{
    const char *word = gr_lora_init_word(init);

    return init == GR_LORA_INIT_GAUSSIAN ? json_string(word) : parse_value(word);
}

static json_t *pattern_object(const struct gr_name_map *pattern)
{
    json_t *object = json_object();

    for (int64_t i = 0; i < pattern->count; i++)
        json_object_set_new(object, pattern->key[i], number(pattern->value[i]));
    return object;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The list as given, sorted; for all-linear the names it stands for; an expression as it is. */
static json_t *target_modules(const struct gr_lora_config *config)
{
    const char *names[GR_MODULE_COUNT];
    json_t *list = json_array();
    bool is_all = config->target_regex != NULL && strcmp(config->target_regex, "all-linear") == 0;
    int64_t count = is_all ? GR_MODULE_COUNT : config->target_count;
    const char **sorted = GR_NEW_ARRAY(const char *, count);

    if (config->target_regex != NULL && !is_all) {
        json_decref(list);
        gr_free(sorted);
        return json_string(config->target_regex);
    }
    for (int module = 0; module < GR_MODULE_COUNT; module++)
        names[module] = strrchr(gr_module_name((enum gr_module)module), '.') + 1;
    for (int64_t i = 0; i < count; i++)
        sorted[i] = is_all ? names[i] : config->target_modules[i];
    qsort(sorted, (size_t)count, sizeof *sorted, compare_text);
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(list, json_string(sorted[i]));
    gr_free(sorted);
    return list;
}

void gr_peft_write_config(struct gr_buffer *json, const struct gr_adapter *adapter,
                          const char *base_model)
{
    const struct gr_lora_config *config = &adapter->config;
    json_t *object = json_object();
    char *text = NULL;

    for (int64_t i = 0; i < GR_COUNT(fixed_settings); i++)
        json_object_set_new(object, fixed_settings[i].key, parse_value(fixed_settings[i].neutral));
    for (int64_t i = 0; i < GR_COUNT(free_settings); i++)
        json_object_set_new(object, free_settings[i].key, parse_value(free_settings[i].value));
    json_object_set_new(object, "base_model_name_or_path", json_string(base_model));
    json_object_set_new(object, "init_lora_weights", init_value(config->init));
    json_object_set_new(object, "r", json_integer(config->r));
    json_object_set_new(object, "lora_alpha", number(config->lora_alpha));
    json_object_set_new(object, "lora_dropout", json_real(config->lora_dropout));
    json_object_set_new(object, "use_rslora", json_boolean(config->use_rslora));
    json_object_set_new(object, "target_modules", target_modules(config));
    json_object_set_new(object, "rank_pattern", pattern_object(&config->rank_pattern));
    json_object_set_new(object, "alpha_pattern", pattern_object(&config->alpha_pattern));
    text = json_dumps(object, JSON_SORT_KEYS | JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    gr_buffer_add_text(json, text);
    gr_buffer_add_text(json, "\n");
    free(text); /* jansson's allocation */
    json_decref(object);
}

static void tensor_key(char key[160], const struct gr_lora_matrix *matrix, char letter)
{
    char name[64];

    gr_lora_matrix_name(name, matrix);
    snprintf(key, 160, "base_model.model.%s.lora_%c.weight", name, letter);
}

void gr_peft_write_weights(struct gr_buffer *bytes, const struct gr_adapter *adapter,
                           const float *values)
{
    int64_t count = 2 * adapter->count;
    struct gr_safetensors_item *item = GR_NEW_ARRAY(struct gr_safetensors_item, count);
    char(*key)[160] = gr_alloc(count, sizeof *key);

    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *m = &adapter->matrix[i];

        tensor_key(key[2 * i], m, 'A');
        tensor_key(key[2 * i + 1], m, 'B');
        item[2 * i] = (struct gr_safetensors_item){.name = key[2 * i],
                                                   .dtype = GR_F32,
                                                   .ndim = 2,
                                                   .dim = {m->r, m->in},
                                                   .data = values + m->a_begin};
        item[2 * i + 1] = (struct gr_safetensors_item){.name = key[2 * i + 1],
                                                       .dtype = GR_F32,
                                                       .ndim = 2,
                                                       .dim = {m->out, m->r},
                                                       .data = values + m->b_begin};
    }
    gr_safetensors_write(bytes, item, count, NULL);
    gr_free(key);
    gr_free(item);
}

/* The JSON value a setting must have; NULL where any will do. */
static const char *expected_value(const char *key)
{
    for (int64_t i = 0; i < GR_COUNT(fixed_settings); i++) {
        if (strcmp(fixed_settings[i].key, key) == 0)
            return fixed_settings[i].neutral;
    }
    for (int64_t i = 0; i < GR_COUNT(free_settings); i++) {
        if (strcmp(free_settings[i].key, key) == 0)
            return NULL;
    }
    for (int64_t i = 0; i < GR_COUNT(other_settings); i++) {
        if (strcmp(other_settings[i], key) == 0)
            return NULL;
    }
    return "null"; /* a variant of LoRA that PEFT has learned since */
}

/* null, false and what is empty switch nothing on. */
static bool is_off(const json_t *value)
{
    return json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static gr_status refuse_settings(const struct gr_json *json)
{
    const char *key;
    json_t *found;

    json_object_foreach(json->value, key, found)
    {
        const char *expected = expected_value(key);
        json_t *neutral = parse_value(expected == NULL ? "null" : expected);
        bool is_right = expected == NULL || json_equal(found, neutral) || json_is_null(found) ||
                        (is_off(neutral) && is_off(found));

        json_decref(neutral);
        if (!is_right) {
            char *text = json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT);

            gr_fail(GR_ERR_DATA, json->place, "graft computes plain LoRA and rsLoRA adapters",
                    "%.80s (found %.80s, expected %s)", key, text, expected);
            free(text); /* jansson's allocation */
            return GR_ERR_DATA;
        }
    }
    return GR_OK;
}

/* The other kinds change the base weights, or are made from them. */
static gr_status read_init(enum gr_lora_init *init, const struct gr_json *json)
{
    const char *key = "init_lora_weights";
    const json_t *found = json_object_get(json->value, key);
    const char *word = json_string_value(found);

    if (found == NULL || json_is_null(found))
        return GR_OK;
    if (json_is_boolean(found))
        word = json_is_true(found) ? "true" : "false";
    if (word == NULL || !gr_lora_init_find(init, word))
        return gr_fail(
            GR_ERR_DATA, json->place,
            "convert it in PEFT: save_pretrained(path_initial_model_for_weight_conversion=...)",
            "%s (found %.80s, expected true, false or \"gaussian\")", key,
            word == NULL ? gr_json_type_name(found) : word);
    return GR_OK;
}

static gr_status read_targets(struct gr_lora_config *config, const struct gr_json *json)
{
    json_t *targets = json_object_get(json->value, "target_modules");
    json_t *name;
    size_t i;

    if (json_is_string(targets)) {
        config->target_regex = gr_strdup(json_string_value(targets));
        return GR_OK;
    }
    config->target_modules = GR_NEW_ARRAY(char *, (int64_t)json_array_size(targets));
    json_array_foreach(targets, i, name)
    {
        if (json_is_string(name))
            config->target_modules[config->target_count++] = gr_strdup(json_string_value(name));
    }
    if (config->target_count == 0 || config->target_count != (int64_t)json_array_size(targets))
        return gr_fail(GR_ERR_DATA, json->place, "the file is damaged",
                       "target_modules (found %s, expected a list of names or an expression)",
                       gr_json_type_name(targets));
    return GR_OK;
}

static gr_status read_pattern(struct gr_name_map *pattern, const struct gr_json *json,
                              const char *key, double min, double below)
{
    gr_status status = GR_OK;
    struct gr_json object = {0};
    const char *name;
    json_t *value;

    GR_TRY(gr_json_object(&object, json, key));
    pattern->key = GR_NEW_ARRAY(char *, (int64_t)json_object_size(object.value));
    pattern->value = GR_NEW_ARRAY(double, (int64_t)json_object_size(object.value));
    json_object_foreach(object.value, name, value)
    {
        GR_TRY(gr_json_need(&object, name));
        GR_TRY(gr_json_number_in(&pattern->value[pattern->count], &object, name, min, below));
        pattern->key[pattern->count++] = gr_strdup(name);
    }
out:
    gr_json_release(&object);
    return status;
}

static gr_status read_config(struct gr_lora_config *config, const struct gr_json *json)
{
    gr_status status = GR_OK;

    *config = (struct gr_lora_config){.r = 8, .lora_alpha = 8};
    GR_TRY(gr_json_need(json, "peft_type"));
    GR_TRY(refuse_settings(json));
    GR_TRY(gr_json_int(&config->r, json, "r", 1, GR_LORA_MAX_R));
    GR_TRY(gr_json_number(&config->lora_alpha, json, "lora_alpha"));
    GR_TRY(gr_json_number_in(&config->lora_dropout, json, "lora_dropout", 0, 1));
    GR_TRY(gr_json_bool(&config->use_rslora, json, "use_rslora"));
    GR_TRY(read_init(&config->init, json));
    GR_TRY(read_targets(config, json));
    GR_TRY(read_pattern(&config->rank_pattern, json, "rank_pattern", 1, GR_LORA_MAX_R + 1));
    GR_TRY(read_pattern(&config->alpha_pattern, json, "alpha_pattern", -HUGE_VAL, HUGE_VAL));
out:
    if (status != GR_OK)
        gr_lora_config_release(config);
    return status;
}

gr_status gr_peft_read_config(struct gr_lora_config *config, const char *directory)
{
    gr_status status = GR_OK;
    struct gr_json json = {0};
    char *path = gr_format("%s/%s", directory, config_name);

    memset(config, 0, sizeof *config);
    GR_TRY(gr_json_load(&json, path));
    GR_TRY(read_config(config, &json));
out:
    gr_json_release(&json);
    gr_free(path);
    return status;
}

gr_status gr_peft_parse_config(struct gr_lora_config *config, const struct gr_buffer *bytes,
                               const char *place)
{
    gr_status status = GR_OK;
    struct gr_json json = {0};

    memset(config, 0, sizeof *config);
    GR_TRY(gr_json_parse(&json, bytes->data, (int64_t)bytes->length, place));
    GR_TRY(read_config(config, &json));
out:
    gr_json_release(&json);
    return status;
}

/* values[0..count) <- the tensor, widened. */
static gr_status read_matrix(float *values, const struct gr_safetensors *file, const char *key,
                             int64_t rows, int64_t columns)
{
    const struct gr_safetensors_entry *entry = gr_safetensors_find(file, key);
    const int64_t dim[2] = {rows, columns};
    char found[200], expected[64];

    if (entry == NULL)
        return gr_fail(GR_ERR_DATA, file->path, HINT_FIT,
                       "tensor \"%s\" is missing (found nothing, expected shape %s)", key,
                       gr_shape_describe(dim, 2, expected, sizeof expected));
    if (entry->ndim != 2 || entry->dim[0] != rows || entry->dim[1] != columns)
        return gr_fail(GR_ERR_DATA, file->path, HINT_FIT,
                       "tensor \"%s\" has the wrong shape (found %s, expected %s)", key,
                       gr_shape_describe(entry->dim, entry->ndim, found, sizeof found),
                       gr_shape_describe(dim, 2, expected, sizeof expected));
    if (!gr_widen(values, gr_safetensors_data(file, entry), entry->dtype, rows * columns))
        return gr_fail(GR_ERR_DATA, file->path, "save the adapter as f32, f16 or bf16",
                       "tensor \"%s\" has the wrong dtype (found %s, expected F32, F16 or BF16)",
                       key, entry->dtype_name);
    for (int64_t i = 0; i < rows * columns; i++) {
        if (!isfinite(values[i]))
            return gr_fail(
                GR_ERR_DATA, file->path, "the adapter is damaged or has diverged",
                "tensor \"%s\": element %lld is not finite (found %g, expected a number)", key,
                (long long)i, (double)values[i]);
    }
    return GR_OK;
}

/* Every tensor of the file must be one of the adapter's. */
static gr_status refuse_extra(const struct gr_safetensors *file, const struct gr_adapter *adapter)
{
    for (int64_t e = 0; e < file->count; e++) {
        bool is_ours = false;
        char key[160];

        for (int64_t i = 0; i < adapter->count && !is_ours; i++) {
            tensor_key(key, &adapter->matrix[i], 'A');
            is_ours = strcmp(key, file->entry[e].name) == 0;
            tensor_key(key, &adapter->matrix[i], 'B');
            is_ours = is_ours || strcmp(key, file->entry[e].name) == 0;
        }
        if (!is_ours)
            return gr_fail(GR_ERR_DATA, file->path, HINT_FIT,
                           "tensor \"%.200s\" is not part of the adapter (found it here, expected "
                           "only what adapter_config.json describes)",
                           file->entry[e].name);
    }
    return GR_OK;
}

gr_status gr_peft_copy_weights(float *values, const struct gr_adapter *adapter,
                               const struct gr_safetensors *file)
{
    gr_status status = GR_OK;
    char key[160];

    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *m = &adapter->matrix[i];

        tensor_key(key, m, 'A');
        GR_TRY(read_matrix(values + m->a_begin, file, key, m->r, m->in));
        tensor_key(key, m, 'B');
        GR_TRY(read_matrix(values + m->b_begin, file, key, m->out, m->r));
    }
    if (file->count != 2 * adapter->count)
        GR_TRY(refuse_extra(file, adapter));
out:
    return status;
}

gr_status gr_peft_read_weights(float *values, const struct gr_adapter *adapter,
                               const char *directory)
{
    gr_status status = GR_OK;
    struct gr_safetensors file = {0};
    char *path = gr_format("%s/%s", directory, weights_name);

    GR_TRY(gr_safetensors_open(&file, path));
    GR_TRY(gr_peft_copy_weights(values, adapter, &file));
out:
    gr_safetensors_close(&file);
    gr_free(path);
    return status;
}

gr_status gr_peft_read(struct gr_adapter **adapter, float **values,
                       const struct gr_model_config *model, const char *directory)
{
    gr_status status = GR_OK;
    struct gr_lora_config config = {0};

    *adapter = NULL;
    *values = NULL;
    GR_TRY(gr_peft_read_config(&config, directory));
    GR_TRY(gr_adapter_create(adapter, model, &config));
    *values = GR_NEW_ARRAY(float, (*adapter)->elements);
    GR_TRY(gr_peft_read_weights(*values, *adapter, directory));
out:
    gr_lora_config_release(&config);
    return status;
}

void gr_peft_hash(char hex[GR_SHA256_HEX_BYTES], const struct gr_adapter *adapter,
                  const float *values)
{
    struct gr_buffer text = {0};

    gr_peft_write_config(&text, adapter, "");
    gr_sha256_hex(hex, text.data, (int64_t)text.length);
    gr_buffer_clear(&text);
    gr_hash_list_add(&text, "config", hex);
    gr_sha256_hex(hex, values, adapter->elements * (int64_t)sizeof *values);
    gr_hash_list_add(&text, "values", hex);
    gr_sha256_hex(hex, text.data, (int64_t)text.length);
    gr_buffer_release(&text);
}
