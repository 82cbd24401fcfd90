/* The sources of the configuration: the file, the environment and --set.  Each is YAML text that
 * is parsed whole, then walked: sections, keys, values (config_value.c). */
#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "kernels/base/nearest.h"
#include "trainer/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- YAML text ---- */

static gr_status fail_yaml(const struct gr_config_source *source, const yaml_parser_t *parser,
                           const char *text)
{
    size_t line = parser->problem_mark.line + 1;
    char *place = NULL;

    if (parser->problem == NULL) /* YAML_MEMORY_ERROR; not everywhere does libyaml say so */
        gr_no_memory("libyaml asked");
    if (parser->error == YAML_READER_ERROR) { /* no line yet: a byte's offset */
        line = 1;
        for (size_t i = 0; i < parser->problem_offset && text[i] != '\0'; i++)
            line += text[i] == '\n';
    }
    place = source->has_lines ? gr_format("%s:%zu", source->place, line) : gr_strdup(source->place);
    gr_fail(GR_ERR_USAGE, place,
            source->has_lines ? "indent with spaces, and put a space after each colon"
                              : "quote the value: '...' takes everything as it stands",
            "this is not YAML (%s%s%s)", parser->context == NULL ? "" : parser->context,
            parser->context == NULL ? "" : ": ", parser->problem);
    gr_free(place);
    return GR_ERR_USAGE;
}

/* Parses one document; on success the caller deletes source->document. */
static gr_status parse_yaml(struct gr_config_source *source, yaml_document_t *document,
                            const char *text, size_t length)
{
    yaml_parser_t parser;
    yaml_document_t second;
    gr_status status = GR_OK;

    if (yaml_parser_initialize(&parser) == 0)
        gr_no_memory("libyaml asked");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    if (yaml_parser_load(&parser, document) == 0) {
        status = fail_yaml(source, &parser, text);
    } else if (yaml_parser_load(&parser, &second) == 0) {
        status = fail_yaml(source, &parser, text);
        yaml_document_delete(document);
    } else {
        const yaml_node_t *root = yaml_document_get_root_node(&second);

        if (root != NULL) {
            status = gr_config_fail_at(source, root, "keep one of them",
                                       "a second YAML document (found two, expected one)");
            yaml_document_delete(document);
        }
        yaml_document_delete(&second);
    }
    yaml_parser_delete(&parser);
    source->document = status == GR_OK ? document : NULL;
    return status;
}

/* ---- keys ---- */

/* Keys of other trainers that mean something graft does not have, and what to write instead. */
static const struct {
    const char *name;
    const char *hint;
} foreign_keys[] = {
    {"per_device_train_batch_size",
     "the batch does not depend on the number of ranks: set train.micro_batch_size to this value "
     "and train.micro_batches to gradient_accumulation_steps x ranks"},
    {"gradient_accumulation_steps",
     "the batch does not depend on the number of ranks: set train.micro_batches to this value x "
     "ranks, and train.micro_batch_size to per_device_train_batch_size"},
};

/* The known key nearest to an unknown one: by its whole name, or by its last part alone, for a key
 * in the wrong section. */
static const char *nearest_key(const char *key)
{
    const char *nearest = NULL;
    int least = gr_edit_limit(gr_config_last_name(key)) + 1;

    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        const char *candidate = gr_config_field_table[i].key;
        int whole = gr_edit_distance(key, candidate);
        int last = gr_edit_distance(gr_config_last_name(key), gr_config_last_name(candidate)) + 1;
        int distance = whole < last ? whole : last;

        if (distance < least) {
            least = distance;
            nearest = candidate;
        }
    }
    return nearest;
}

static gr_status fail_unknown_key(const struct gr_config_source *source, const yaml_node_t *node,
                                  const char *key)
{
    const char *last = gr_config_last_name(key);
    const char *nearest = nearest_key(key);

    for (int64_t i = 0; i < GR_COUNT(foreign_keys); i++) {
        if (strcmp(last, foreign_keys[i].name) == 0)
            return gr_config_fail_at(source, node, foreign_keys[i].hint,
                                     "%s is a key of TRL that graft does not take", key);
    }
    gr_config_fail_at(source, node, "graft config prints every key", "unknown key %s", key);
    if (nearest != NULL && strcmp(nearest, key) == 0)
        gr_hint("in a file the part before the dot is a section: `%.*s:` and `%s:` indented below",
                (int)(last - key - 1), key, last);
    else if (nearest != NULL)
        gr_hint("did you mean %s?", nearest);
    return GR_ERR_USAGE;
}

/* ---- the file ---- */

static bool is_section(const char *name)
{
    size_t length = strlen(name);

    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        const char *key = gr_config_field_table[i].key;

        if (strncmp(key, name, length) == 0 && key[length] == '.')
            return true;
    }
    return false;
}

/* The text of a mapping's key; a key that is no text, or stands twice, is refused. */
static gr_status key_text(const struct gr_config_source *source, const yaml_node_t *mapping,
                          const yaml_node_pair_t *pair, const char **text)
{
    const yaml_node_t *key = yaml_document_get_node(source->document, pair->key);

    if (key->type != YAML_SCALAR_NODE)
        return gr_config_fail_at(source, key, NULL,
                                 "a key is of the wrong type (found a list or mapping, expected a "
                                 "name)");
    *text = (const char *)key->data.scalar.value;
    for (yaml_node_pair_t *p = mapping->data.mapping.pairs.start; p < pair; p++) {
        const yaml_node_t *other = yaml_document_get_node(source->document, p->key);

        if (other->type == YAML_SCALAR_NODE &&
            strcmp((const char *)other->data.scalar.value, *text) == 0)
            return gr_config_fail_at(source, key, "keep one of them",
                                     "key %s stands twice (found again, first in line %zu)", *text,
                                     other->start_mark.line + 1);
    }
    return GR_OK;
}

static gr_status load_section(struct gr_config *config, const struct gr_config_source *source,
                              const char *section, const yaml_node_t *mapping);

/* A key of a section, or a section ("" is the whole file). */
static gr_status load_pair(struct gr_config *config, const struct gr_config_source *source,
                           const char *section, const char *name, const yaml_node_pair_t *pair)
{
    const yaml_node_t *key_node = yaml_document_get_node(source->document, pair->key);
    const yaml_node_t *value = yaml_document_get_node(source->document, pair->value);
    char *key = gr_format("%s%s%s", section, section[0] == '\0' ? "" : ".", name);
    const struct gr_config_field *field = gr_config_find(key);
    gr_status status = GR_OK;

    if (section[0] == '\0' && is_section(name))
        status = load_section(config, source, name, value);
    else if (field == NULL || strchr(name, '.') != NULL)
        status = fail_unknown_key(source, key_node, key);
    else
        status = gr_config_read_value(config, field, source, value);
    gr_free(key);
    return status;
}

static gr_status load_section(struct gr_config *config, const struct gr_config_source *source,
                              const char *section, const yaml_node_t *mapping)
{
    gr_status status = GR_OK;

    if (gr_config_is_null(mapping))
        return GR_OK;
    if (mapping->type != YAML_MAPPING_NODE)
        return gr_config_fail_at(source, mapping, NULL,
                                 "%s is of the wrong type (found %s, expected keys with values)",
                                 section[0] == '\0' ? "the file" : section,
                                 mapping->type == YAML_SEQUENCE_NODE ? "a list" : "a text");
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        const char *name = NULL;

        GR_TRY(key_text(source, mapping, pair, &name));
        GR_TRY(load_pair(config, source, section, name, pair));
    }
out:
    return status;
}

static gr_status read_file(struct gr_buffer *text, const char *path)
{
    char block[4096];
    size_t count = 0;
    FILE *file = fopen(path, "rb");
    gr_status status = GR_OK;

    if (file != NULL) {
        while ((count = fread(block, 1, sizeof block, file)) > 0)
            gr_buffer_add(text, block, count);
    }
    if (file == NULL && errno == ENOMEM)
        gr_no_memory(path);
    if (file == NULL || ferror(file) != 0)
        status = gr_fail(GR_ERR_USAGE, path, "name the YAML file of the run",
                         "the configuration cannot be read (found %s, expected a file)",
                         errno == ENOENT ? "nothing" : strerror(errno));
    if (file != NULL)
        fclose(file);
    return status;
}

gr_status gr_config_load_text(struct gr_config *config, const struct gr_buffer *text,
                              const char *place)
{
    struct gr_config_source source = {.place = place, .has_lines = true};
    yaml_document_t document;
    const yaml_node_t *root = NULL;
    gr_status status = GR_OK;

    GR_TRY(parse_yaml(&source, &document, text->length == 0 ? "" : text->data, text->length));
    root = yaml_document_get_root_node(&document);
    if (root != NULL)
        status = load_section(config, &source, "", root);
    yaml_document_delete(&document);
out:
    return status;
}

gr_status gr_config_load_file(struct gr_config *config, const char *path)
{
    struct gr_buffer text = {0};
    gr_status status = GR_OK;

    GR_TRY(read_file(&text, path));
    GR_TRY(gr_config_load_text(config, &text, path));
out:
    gr_buffer_release(&text);
    return status;
}

/* ---- single values ---- */

static gr_status set_value(struct gr_config *config, const struct gr_config_field *field,
                           const char *place, const char *text)
{
    struct gr_config_source source = {.place = place, .splits_commas = true};
    yaml_document_t document;
    const yaml_node_t *root = NULL;
    gr_status status = GR_OK;

    if (text[0] == '\0')
        text = "null";
    GR_TRY(parse_yaml(&source, &document, text, strlen(text)));
    root = yaml_document_get_root_node(&document);
    if (root == NULL)
        status = gr_config_fail_at(&source, NULL, "quote a value that starts with #",
                                   "%s has no value (found a comment)", field->key);
    else
        status = gr_config_read_value(config, field, &source, root);
    yaml_document_delete(&document);
out:
    return status;
}

gr_status gr_config_set(struct gr_config *config, const char *assignment)
{
    const struct gr_config_source source = {.place = "--set"};
    const char *equals = strchr(assignment, '=');
    char *key = NULL;
    const struct gr_config_field *field = NULL;
    gr_status status = GR_OK;

    if (equals == NULL)
        return gr_fail(GR_ERR_USAGE, "--set", "write --set lora.r=8",
                       "a key without a value (found %s, expected key=value)", assignment);
    key = gr_strndup(assignment, (size_t)(equals - assignment));
    field = gr_config_find(key);
    if (field == NULL)
        status = fail_unknown_key(&source, NULL, key);
    else
        status = set_value(config, field, "--set", equals + 1);
    gr_free(key);
    return status;
}

/* ---- the environment ---- */

#define ENV_PREFIX "KUBEFLOW_TRAINER_OPT_"

/* Kubeflow makes the variable's name from a parameter's by upper case alone; in such names dots and
 * dashes may have become underscores. */
static bool same_name(const char *variable, const char *key)
{
    for (; *variable != '\0' && *key != '\0'; variable++, key++) {
        int v = strchr(".-", *variable) != NULL ? '_' : toupper((unsigned char)*variable);
        int k = *key == '.' ? '_' : toupper((unsigned char)*key);

        if (v != k)
            return false;
    }
    return *variable == *key;
}

/* LORA_R and R both name lora.r; a last part that two keys share names neither. */
static gr_status find_by_variable(const char *place, const char *name,
                                  const struct gr_config_field **found)
{
    const struct gr_config_source source = {.place = place};
    const struct gr_config_field *by_last = NULL;

    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        *found = &gr_config_field_table[i];
        if (same_name(name, (*found)->key))
            return GR_OK;
    }
    *found = NULL;
    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        const struct gr_config_field *field = &gr_config_field_table[i];

        if (!same_name(name, gr_config_last_name(field->key)))
            continue;
        if (by_last != NULL) {
            gr_fail(GR_ERR_USAGE, place, NULL,
                    "the name stands for several keys (found %s and %s, expected one)",
                    by_last->key, field->key);
            gr_hint("name the parameter with its section, as in %s", by_last->key);
            return GR_ERR_USAGE;
        }
        by_last = field;
    }
    *found = by_last;
    if (by_last == NULL) {
        char *key = gr_strdup(name);

        for (char *c = key; *c != '\0'; c++)
            *c = (char)tolower((unsigned char)*c);
        fail_unknown_key(&source, NULL, key);
        gr_free(key);
    }
    return by_last == NULL ? GR_ERR_USAGE : GR_OK;
}

struct env_visit {
    struct gr_config *config;
    gr_status status;
};

static void visit_variable(void *context, const char *name, const char *value)
{
    struct env_visit *visit = context;
    char *place = gr_format(ENV_PREFIX "%s", name);
    const struct gr_config_field *field = NULL;

    if (visit->status == GR_OK)
        visit->status = find_by_variable(place, name, &field);
    if (visit->status == GR_OK)
        visit->status = set_value(visit->config, field, place, value);
    gr_free(place);
}

gr_status gr_config_load_env(struct gr_config *config)
{
    struct env_visit visit = {config, GR_OK};

    gr_env_each(ENV_PREFIX, visit_variable, &visit);
    return visit.status;
}
