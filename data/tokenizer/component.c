/* Reads the stages of a tokenizer.json by their tables.  See component.h. */
#include "data/tokenizer/component.h"

#include "kernels/base/alloc.h"

#include <stddef.h>
#include <string.h>

const char *const gr_split_behavior_words[] = {
    [GR_SPLIT_REMOVED] = "Removed",
    [GR_SPLIT_ISOLATED] = "Isolated",
    [GR_SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
    [GR_SPLIT_WITH_NEXT] = "MergedWithNext",
    [GR_SPLIT_CONTIGUOUS] = "Contiguous",
    NULL,
};
static const char *const prepend_scheme_words[] = {
    [GR_PREPEND_ALWAYS] = "always",
    [GR_PREPEND_FIRST] = "first",
    [GR_PREPEND_NEVER] = "never",
    NULL,
};

/* trim_offsets moves the offsets that `tokenizers` reports off the spaces of a token.  It is left
 * out on purpose: begin and end say which bytes a token holds, spaces included. */
const struct gr_component_option gr_byte_level_options[] = {
    {.key = "add_prefix_space", .kind = GR_AS_BOOL, .offset = GR_FIELD(add_prefix_space)},
    {.key = "trim_offsets", .kind = GR_AS_OTHER},
    {.key = "use_regex",
     .kind = GR_AS_BOOL,
     .offset = GR_FIELD(use_regex),
     .optional = true,
     .fallback = true},
    {0},
};
const struct gr_component_option gr_metaspace_options[] = {
    {.key = "replacement", .kind = GR_AS_CHAR},
    {.key = "prepend_scheme",
     .kind = GR_AS_WORD,
     .offset = GR_FIELD(prepend_scheme),
     .words = prepend_scheme_words,
     .optional = true},
    {.key = "split",
     .kind = GR_AS_BOOL,
     .offset = GR_FIELD(split),
     .optional = true,
     .fallback = true},
    /* of older files */
    {.key = "add_prefix_space",
     .kind = GR_AS_BOOL,
     .offset = GR_FIELD(add_prefix_space),
     .optional = true,
     .fallback = true},
    {.key = "str_rep", .kind = GR_AS_OTHER, .optional = true},
    {0},
};
const struct gr_component_option gr_replace_options[] = {
    {.key = "pattern", .kind = GR_AS_PATTERN, .offset = GR_FIELD(pattern)},
    {.key = "content", .kind = GR_AS_TEXT},
    {0},
};

gr_status gr_metaspace_prepare(struct gr_component *c, const struct gr_json *json)
{
    if (!c->add_prefix_space && c->prepend_scheme != GR_PREPEND_NEVER)
        return gr_fail(GR_ERR_DATA, json->place, "write \"prepend_scheme\": \"never\" in its place",
                       "add_prefix_space contradicts prepend_scheme (found false and \"%s\")",
                       prepend_scheme_words[c->prepend_scheme]);
    gr_pattern_set_literal(&c->pattern, c->text, c->text_length);
    return GR_OK;
}

static gr_status read_word(int *found, const struct gr_component_option *option,
                           const struct gr_json *json)
{
    const json_t *value = json_object_get(json->value, option->key);
    const char *word = json_string_value(value);

    for (int i = 0; option->words[i] != NULL; i++) {
        if (word != NULL && strcmp(word, option->words[i]) == 0) {
            *found = i;
            return GR_OK;
        }
    }
    return gr_json_wrong(json, option->key, value, "a word that graft knows");
}

static gr_status read_text(struct gr_component *c, const struct gr_component_option *option,
                           const struct gr_json *json)
{
    const json_t *value = json_object_get(json->value, option->key);
    const char *text = json_string_value(value);
    int64_t length = (int64_t)json_string_length(value);

    if (text == NULL)
        return gr_json_wrong(json, option->key, value, "a text");
    if (option->kind == GR_AS_CHAR && gr_char_bytes(text[0]) != length)
        return gr_json_wrong(json, option->key, value, "one character");
    c->text = gr_strndup(text, (size_t)length);
    c->text_length = length;
    return GR_OK;
}

static gr_status read_option(struct gr_component *c, const struct gr_component_option *option,
                             const struct gr_json *json)
{
    void *field = (char *)c + option->offset;
    gr_status status = GR_OK;

    if (option->optional && option->kind == GR_AS_BOOL)
        *(bool *)field = option->fallback;
    if (option->optional && !gr_json_has(json, option->key))
        return GR_OK;
    GR_TRY(gr_json_need(json, option->key));
    switch (option->kind) {
    case GR_AS_BOOL:
        return gr_json_bool(field, json, option->key);
    case GR_AS_COUNT:
        return gr_json_int(field, json, option->key, 0, INT32_MAX);
    case GR_AS_TEXT:
    case GR_AS_CHAR:
        return read_text(c, option, json);
    case GR_AS_PATTERN:
        return gr_pattern_read(field, json, option->key);
    case GR_AS_WORD:
        return read_word(field, option, json);
    case GR_AS_OTHER:
        break;
    }
out:
    return status;
}

static gr_status check_keys(const struct gr_component_option *options, const struct gr_json *json)
{
    enum { MOST = 8 };
    const char *known[MOST + 2] = {"type"};

    for (int i = 0; options != NULL && options[i].key != NULL; i++) {
        GR_CHECK(i < MOST, "%s", json->place);
        known[i + 1] = options[i].key;
    }
    return gr_json_check_keys(json, known);
}

static gr_status read_component(struct gr_component *c, const struct gr_json *json)
{
    const struct gr_component_option *options = c->type->options;
    gr_status status;

    GR_TRY(check_keys(options, json));
    for (int i = 0; options != NULL && options[i].key != NULL; i++)
        GR_TRY(read_option(c, &options[i], json));
    if (c->type->prepare != NULL)
        GR_TRY(c->type->prepare(c, json));
out:
    return status;
}

static gr_status refuse_type(const struct gr_stage_kind *kind, const char *type,
                             const struct gr_json *json)
{
    struct gr_buffer known = {0};

    for (int i = 0; kind->types[i].name != NULL; i++)
        gr_buffer_add_format(&known, "%s, ", kind->types[i].name);
    gr_fail(GR_ERR_DATA, json->place, "graft reads the BPE tokenizers of common decoder models",
            "type \"%s\" is not supported (expected one of %sSequence)", type, known.data);
    gr_buffer_release(&known);
    return GR_ERR_DATA;
}

/* Reads a component, or the members of a Sequence, behind those that are there. */
static gr_status read_all(struct gr_stage *stage, const struct gr_stage_kind *kind,
                          const struct gr_json *json)
{
    const char *const sequence_keys[] = {"type", kind->members, NULL};
    const json_t *members = json_object_get(json->value, kind->members);
    const struct gr_component_type *found = kind->types;
    const char *type = "";
    gr_status status;

    GR_TRY(gr_json_need(json, "type"));
    GR_TRY(gr_json_text(&type, json, "type"));
    if (strcmp(type, "Sequence") == 0) {
        GR_TRY(gr_json_check_keys(json, sequence_keys));
        if (!json_is_array(members))
            GR_TRY(gr_json_wrong(json, kind->members, members, "a list"));
        for (size_t i = 0; i < json_array_size(members); i++) {
            struct gr_json member = {json_array_get(members, i), json->place};

            GR_TRY(read_all(stage, kind, &member));
        }
        goto out;
    }
    while (found->name != NULL && strcmp(found->name, type) != 0)
        found++;
    if (found->name == NULL)
        GR_TRY(refuse_type(kind, type, json));
    stage->component = gr_realloc(stage->component, stage->count + 1, sizeof *stage->component);
    stage->component[stage->count] = (struct gr_component){.type = found};
    stage->count++;
    GR_TRY(read_component(&stage->component[stage->count - 1], json));
out:
    return status;
}

gr_status gr_stage_read(struct gr_stage *stage, const struct gr_stage_kind *kind,
                        const struct gr_json *root)
{
    struct gr_json json = {0};
    gr_status status;

    GR_TRY(gr_json_object(&json, root, kind->key));
    if (json.value != NULL)
        GR_TRY(read_all(stage, kind, &json));
out:
    gr_json_release(&json);
    return status;
}

void gr_stage_release(struct gr_stage *stage)
{
    for (int64_t i = 0; i < stage->count; i++) {
        gr_pattern_release(&stage->component[i].pattern);
        gr_free(stage->component[i].text);
        gr_free(stage->component[i].ids);
    }
    gr_free(stage->component);
    memset(stage, 0, sizeof *stage);
}

bool gr_stage_apply(const struct gr_stage *stage, struct gr_text *text)
{
    bool gave_up = false;

    for (int64_t i = 0; i < stage->count; i++)
        stage->component[i].type->apply.to_text(&stage->component[i], text, &gave_up);
    return !gave_up;
}
