/* Text, conversations, prompt and completion, Alpaca.  See record_formats.h.
 * A new format is a reader and one entry in the table at the end. */
#include "data/record_formats.h"

#include "data/json.h"
#include "kernels/base/alloc.h"

#include <string.h>

#define HINT_MEND "mend the record or take it out"

/* Keys that tell the model something graft does not write, or give texts weights it does not take:
 * dropping them would train on something else than the file says. */
static const struct {
    const char *key;
    enum where { ANYWHERE, IN_ANSWERS, IN_CHATS } where; /* text learned whole has no answers */
} refused[] = {
    {"tools", IN_CHATS},      {"functions", IN_CHATS},     {"documents", IN_CHATS},
    {"tool_calls", IN_CHATS}, {"function_call", IN_CHATS}, {"reasoning_content", IN_ANSWERS},
    {"system", IN_ANSWERS},  /* of alpaca, as LLaMA-Factory reads it */
    {"history", IN_ANSWERS}, /* likewise: the turns before */
    {"label", IN_ANSWERS},   /* false: an answer as it should not be */
    {"weight", ANYWHERE},     {"loss_weight", ANYWHERE},   {"train", ANYWHERE}};

void gr_record_context_release(struct gr_record_context *context)
{
    gr_chat_text_release(&context->text);
    gr_free(context->message);
    gr_buffer_release(&context->ignored);
    memset(context, 0, sizeof *context);
}

/* Is `name` one of the words of "a, b, c"? */
static bool is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);

    for (; list != NULL && list[0] != '\0'; list += strspn(list, ", ")) {
        size_t word = strcspn(list, ",");

        if (word == length && strncmp(list, name, length) == 0)
            return true;
        list += word;
    }
    return false;
}

void gr_record_ignored_add(struct gr_buffer *all, const char *list)
{
    for (; list != NULL && list[0] != '\0'; list += strspn(list, ", ")) {
        size_t length = strcspn(list, ",");
        char *name = gr_strndup(list, length);

        if (!is_listed(all->data, name))
            gr_buffer_add_format(all, "%s%s", all->length > 0 ? ", " : "", name);
        gr_free(name);
        list += length;
    }
}

/* Nothing that could change what is learned. */
static bool says_nothing(const char *key, const json_t *value)
{
    if (strcmp(key, "label") == 0)
        return !json_is_false(value);
    return json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

/* Looks at a key that the reader does not use: `prefix` and key name it. */
static gr_status pass_over(struct gr_record_context *context, enum where where, const char *prefix,
                           const char *key, const json_t *value)
{
    for (int64_t i = 0; i < GR_COUNT(refused); i++)
        if (strcmp(key, refused[i].key) == 0 && refused[i].where <= where &&
            !says_nothing(key, value))
            return gr_fail(GR_ERR_DATA, context->place,
                           "take the key out where it may be ignored, the record where it may not",
                           "%s%s is not supported (found %s)", prefix, key,
                           gr_json_type_name(value));
    gr_record_ignored_add(&context->ignored, key);
    return GR_OK;
}

/* The string under a key; `prefix` and key name it in messages. */
static gr_status get_string(const char **text, const struct gr_record_context *context,
                            const json_t *object, const char *prefix, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_string(value))
        return gr_fail(GR_ERR_DATA, context->place, HINT_MEND,
                       "%s%s has the wrong type (found %s, expected text)", prefix, key,
                       gr_json_type_name(value));
    *text = json_string_value(value);
    return GR_OK;
}

static gr_status read_text(struct gr_record_context *context, const json_t *record)
{
    const char *text = NULL;
    gr_status status = GR_OK;

    GR_TRY(get_string(&text, context, record, "", "text"));
    gr_buffer_add_text(&context->text.text, text);
out:
    return status;
}

/* One message of a conversation. */
static gr_status read_message(struct gr_record_context *context, struct gr_chat_message *message,
                              const json_t *object, size_t index)
{
    gr_status status = GR_OK;
    char name[32], prefix[40];
    const char *role = NULL, *key;
    json_t *value;

    snprintf(name, sizeof name, "messages[%zu]", index);
    snprintf(prefix, sizeof prefix, "%s.", name);
    if (!json_is_object(object))
        return gr_fail(GR_ERR_DATA, context->place, HINT_MEND,
                       "%s is not a message (found %s, expected an object with role and content)",
                       name, gr_json_type_name(object));
    GR_TRY(get_string(&role, context, object, prefix, "role"));
    GR_TRY(get_string(&message->content, context, object, prefix, "content"));
    message->role = gr_chat_role_find(role);
    if (message->role == GR_CHAT_ROLE_COUNT)
        return gr_fail(GR_ERR_DATA, context->place, "rename the roles of the data to these",
                       "%srole is unknown (found %.40s, expected system, user or assistant)",
                       prefix, role);
    if (message->content[0] == '\0' && message->role != GR_CHAT_SYSTEM)
        return gr_fail(GR_ERR_DATA, context->place, "take the message or the record out",
                       "%scontent is empty (found a turn of role %s without text, expected text)",
                       prefix, role);
    json_object_foreach((json_t *)object, key,
                        value) if (strcmp(key, "role") != 0 && strcmp(key, "content") != 0)
        GR_TRY(pass_over(context, IN_CHATS, prefix, key, value));
out:
    return status;
}

static gr_status read_messages(struct gr_record_context *context, const json_t *record)
{
    const json_t *messages = json_object_get(record, "messages");
    size_t count = json_array_size(messages);
    gr_status status = GR_OK;

    if (count == 0)
        return gr_fail(GR_ERR_DATA, context->place, HINT_MEND,
                       "messages holds no message (found %s, expected a list of messages)",
                       json_is_array(messages) ? "an empty list" : gr_json_type_name(messages));
    if ((int64_t)count > context->message_capacity) {
        context->message_capacity = 2 * (int64_t)count;
        context->message =
            gr_realloc(context->message, context->message_capacity, sizeof *context->message);
    }
    for (size_t i = 0; i < count; i++)
        GR_TRY(read_message(context, &context->message[i], json_array_get(messages, i), i));
    GR_TRY(gr_chat_render(&context->chat, &context->text, context->message, (int64_t)count, false,
                          context->place));
out:
    return status;
}

/* The completion is what the assistant says; nothing ends its turn but EOS. */
static void add_completion(struct gr_chat_text *text, const char *completion)
{
    gr_chat_text_add_span(text, completion, strlen(completion), GR_CHAT_ASSISTANT, false);
}

static gr_status read_prompt_completion(struct gr_record_context *context, const json_t *record)
{
    const char *prompt = NULL, *completion = NULL;
    gr_status status = GR_OK;

    GR_TRY(get_string(&prompt, context, record, "", "prompt"));
    GR_TRY(get_string(&completion, context, record, "", "completion"));
    gr_buffer_add_text(&context->text.text, prompt);
    add_completion(&context->text, completion);
out:
    return status;
}

/* The prompts of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca), as its data set's `text`
 * column spells them. */
static gr_status read_alpaca(struct gr_record_context *context, const json_t *record)
{
    struct gr_buffer *text = &context->text.text;
    const char *instruction = NULL, *input = "", *output = NULL;
    gr_status status = GR_OK;

    GR_TRY(get_string(&instruction, context, record, "", "instruction"));
    GR_TRY(get_string(&output, context, record, "", "output"));
    if (json_object_get(record, "input") != NULL && !json_is_null(json_object_get(record, "input")))
        GR_TRY(get_string(&input, context, record, "", "input"));
    gr_buffer_add_text(text, "Below is an instruction that describes a task");
    if (input[0] != '\0')
        gr_buffer_add_text(text, ", paired with an input that provides further context");
    gr_buffer_add_format(text,
                         ". Write a response that appropriately completes the request.\n\n"
                         "### Instruction:\n%s\n\n",
                         instruction);
    if (input[0] != '\0')
        gr_buffer_add_format(text, "### Input:\n%s\n\n", input);
    gr_buffer_add_text(text, "### Response:\n");
    add_completion(&context->text, output);
out:
    return status;
}

static const struct gr_record_format formats[] = {
    {.name = "text",
     .keys = {"text"},
     .all_supervised = true,
     .learned = "the whole text",
     .read = read_text},
    {.name = "messages",
     .keys = {"messages"},
     .chat = true,
     .learned = "role assistant",
     .read = read_messages},
    {.name = "prompt_completion",
     .keys = {"prompt", "completion"},
     .learned = "the completion",
     .read = read_prompt_completion},
    {.name = "alpaca",
     .keys = {"instruction", "output"},
     .optional = {"input"},
     .learned = "the output",
     .read = read_alpaca},
};

const struct gr_record_format *gr_record_format_find(const char *name)
{
    for (int64_t i = 0; i < GR_COUNT(formats); i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

void gr_record_format_hint(const char *words)
{
    struct gr_buffer names = {0};

    for (int64_t i = 0; i < GR_COUNT(formats); i++)
        gr_buffer_add_format(&names, ", %s", formats[i].name);
    gr_hint("%s: auto%s", words, names.data);
    gr_buffer_release(&names);
}

/* The first of the format's keys that the record lacks; NULL if it has them all. */
static const char *missing_key(const struct gr_record_format *format, const json_t *record)
{
    for (int64_t i = 0; i < GR_COUNT(format->keys) && format->keys[i] != NULL; i++)
        if (json_object_get(record, format->keys[i]) == NULL)
            return format->keys[i];
    return NULL;
}

static void list_keys(struct gr_buffer *list, const json_t *record)
{
    const char *key;
    json_t *value;

    gr_buffer_add_text(list, json_object_size(record) == 0 ? "no keys" : "");
    json_object_foreach((json_t *)record, key, value)
        gr_buffer_add_format(list, "%s%.40s", list->length > 0 ? ", " : "", key);
}

gr_status gr_record_format_detect(const struct gr_record_format **format, const json_t *record,
                                  const char *place)
{
    struct gr_buffer found = {0}, matches = {0};
    gr_status status = GR_OK;

    *format = NULL;
    for (int64_t i = 0; i < GR_COUNT(formats); i++)
        if (missing_key(&formats[i], record) == NULL) {
            *format = &formats[i];
            gr_buffer_add_format(&matches, "%s%s", matches.length > 0 ? " and " : "",
                                 formats[i].name);
        }
    list_keys(&found, record);
    if (*format == NULL)
        status = gr_fail(GR_ERR_DATA, place, NULL,
                         "no format has these keys (found %.300s; expected text, or messages, or "
                         "prompt and completion, or instruction and output)",
                         found.data);
    else if (strcmp(matches.data, (*format)->name) != 0)
        status = gr_fail(GR_ERR_DATA, place, NULL,
                         "more than one format has these keys (found %.300s, which fits %s)",
                         found.data, matches.data);
    if (status != GR_OK)
        gr_record_format_hint("rename the keys, or set data.format to one of");
    gr_buffer_release(&found);
    gr_buffer_release(&matches);
    return status;
}

static bool uses_key(const struct gr_record_format *format, const char *key)
{
    for (int64_t i = 0; i < GR_COUNT(format->keys); i++)
        if (format->keys[i] != NULL && strcmp(format->keys[i], key) == 0)
            return true;
    for (int64_t i = 0; i < GR_COUNT(format->optional); i++)
        if (format->optional[i] != NULL && strcmp(format->optional[i], key) == 0)
            return true;
    return false;
}

gr_status gr_record_format_read(const struct gr_record_format *format,
                                struct gr_record_context *context, const json_t *record)
{
    const char *missing = missing_key(format, record), *key;
    gr_status status = GR_OK;
    enum where where = format->chat ? IN_CHATS : format->all_supervised ? ANYWHERE : IN_ANSWERS;
    json_t *value;

    gr_chat_text_clear(&context->text);
    if (missing != NULL) {
        struct gr_buffer found = {0};

        list_keys(&found, record);
        gr_fail(GR_ERR_DATA, context->place,
                "all records of a file have one format: that of the first, or data.format",
                "a key of format %s is missing (found %.300s; expected %s)", format->name,
                found.data, missing);
        gr_buffer_release(&found);
        return GR_ERR_DATA;
    }
    json_object_foreach((json_t *)record, key, value) if (!uses_key(format, key))
        GR_TRY(pass_over(context, where, "", key, value));
    GR_TRY(format->read(context, record));
out:
    return status;
}
