/* The post-processor stage: adds the special tokens around a text.  Only the template for a single
 * text is read; graft never encodes pairs.  Table at the end; called by tokenizer.c. */
#include "data/tokenizer/component.h"
#include "data/tokenizer/encoding.h"
#include "data/tokenizer/vocab.h"
#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"

#include <string.h>

/* Appends the ids of a template's special token. */
static gr_status add_special(struct gr_buffer *ids, const struct gr_json *json, const json_t *item)
{
    const json_t *tokens = json_object_get(json->value, "special_tokens");
    const char *name = json_string_value(json_object_get(item, "id"));
    const json_t *token = name == NULL ? NULL : json_object_get(tokens, name);
    const json_t *list = json_object_get(token, "ids");

    if (!json_is_array(list))
        return gr_json_wrong(json, "a SpecialToken", item, "one of special_tokens, with ids");
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t number = json_integer_value(json_array_get(list, i));
        uint32_t id = (uint32_t)number;

        if (!json_is_integer(json_array_get(list, i)) || number < 0 || number >= GR_VOCAB_ID_LIMIT)
            return gr_json_wrong(json, "ids", list, "a list of ids");
        gr_buffer_add(ids, &id, sizeof id);
    }
    return GR_OK;
}

/* {"single": [{"SpecialToken": {"id": name}}, ..., {"Sequence": {"id": "A"}}, ...], ...} */
static gr_status template_prepare(struct gr_component *c, const struct gr_json *json)
{
    const json_t *single = json_object_get(json->value, "single");
    struct gr_buffer ids = {0};
    int64_t texts = 0;
    gr_status status = GR_OK;

    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const json_t *text = json_object_get(item, "Sequence");
        const char *name = json_string_value(json_object_get(text, "id"));

        if (text == NULL) {
            GR_TRY(add_special(&ids, json, json_object_get(item, "SpecialToken")));
            continue;
        }
        if (name == NULL || strcmp(name, "A") != 0)
            GR_TRY(gr_json_wrong(json, "single", item, "the sequence A"));
        texts++;
        c->before = (int64_t)(ids.length / sizeof *c->ids);
    }
    if (texts != 1)
        GR_TRY(gr_json_wrong(json, "single", single, "a list with the sequence A once"));
    c->after = (int64_t)(ids.length / sizeof *c->ids) - c->before;
    c->ids = GR_NEW_ARRAY(uint32_t, c->before + c->after + 1);
    if (ids.length > 0)
        memcpy(c->ids, ids.data, ids.length);
out:
    gr_buffer_release(&ids);
    return status;
}

static void add_around(const struct gr_component *c, struct gr_encoding *encoding)
{
    gr_encoding_surround(encoding, c->ids, c->before, c->ids + c->before, c->after);
}

/* ByteLevel here only trims offsets (see gr_byte_level_options). */
static void leave_alone(const struct gr_component *c, struct gr_encoding *encoding)
{
    (void)c;
    (void)encoding;
}

static const struct gr_component_option template_options[] = {
    {.key = "single", .kind = GR_AS_OTHER},
    {.key = "pair", .kind = GR_AS_OTHER, .optional = true},
    {.key = "special_tokens", .kind = GR_AS_OTHER},
    {0},
};

static const struct gr_component_type types[] = {
    {"TemplateProcessing", template_options, template_prepare, .apply.to_encoding = add_around},
    {"ByteLevel", gr_byte_level_options, .apply.to_encoding = leave_alone},
    {0},
};
const struct gr_stage_kind gr_post_processor = {"post_processor", "processors", types};
