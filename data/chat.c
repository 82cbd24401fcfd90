/* Rendering, masking and choosing chat formats.  See chat.h; the formats are in chat_formats.c. */
#include "data/chat.h"

#include "data/chat_formats.h"
#include "data/hash.h"
#include "kernels/base/alloc.h"

#include <string.h>

static const char *const role_names[] = {
#define X(name, words) words,
    GR_CHAT_ROLE_LIST(X)
#undef X
};

enum gr_chat_role gr_chat_role_find(const char *name)
{
    int role = 0;

    while (role < GR_CHAT_ROLE_COUNT && strcmp(role_names[role], name) != 0)
        role++;
    return (enum gr_chat_role)role;
}

/* Texts with spans. */

void gr_chat_text_clear(struct gr_chat_text *text)
{
    gr_buffer_clear(&text->text);
    text->count = 0;
}

void gr_chat_text_release(struct gr_chat_text *text)
{
    gr_buffer_release(&text->text);
    gr_free(text->span);
    memset(text, 0, sizeof *text);
}

/* Makes a span of everything from byte `begin` to the end of the text. */
static void close_span(struct gr_chat_text *text, size_t begin, enum gr_chat_role role,
                       bool ends_turn)
{
    if (text->count == text->capacity) {
        text->capacity = text->capacity == 0 ? 16 : 2 * text->capacity;
        text->span = gr_realloc(text->span, text->capacity, sizeof *text->span);
    }
    text->span[text->count++] = (struct gr_chat_span){
        .begin = begin, .end = text->text.length, .role = role, .ends_turn = ends_turn};
}

void gr_chat_text_add_span(struct gr_chat_text *text, const char *bytes, size_t length,
                           enum gr_chat_role role, bool ends_turn)
{
    size_t begin = text->text.length;

    gr_buffer_add(&text->text, bytes, length);
    close_span(text, begin, role, ends_turn);
}

/* Rendering. */

/* What Python's str.strip() drops: str.isspace(), in UTF-8. */
static const char *const white_space[] = {
    "\t",           "\n",           "\v",           "\f",           "\r",
    "\x1c",         "\x1d",         "\x1e",         "\x1f",         " ",
    "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81",
    "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
    "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
    "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};

/* Bytes of the white space character that text[0..length) begins or ends with; 0: none. */
static size_t space_at(const char *text, size_t length, bool at_end)
{
    for (int64_t i = 0; i < GR_COUNT(white_space); i++) {
        size_t bytes = strlen(white_space[i]);

        if (bytes <= length &&
            memcmp(at_end ? text + length - bytes : text, white_space[i], bytes) == 0)
            return bytes;
    }
    return 0;
}

/* Appends a text of a format's table, with the tokenizer's tokens put in. */
static void add_piece(struct gr_buffer *text, const struct gr_chat *chat, const char *piece)
{
    while (piece[0] != '\0') {
        size_t plain = strcspn(piece, "{");

        gr_buffer_add(text, piece, plain);
        piece += plain;
        if (strncmp(piece, "{bos}", 5) == 0)
            gr_buffer_add_text(text, chat->bos);
        else if (strncmp(piece, "{eos}", 5) == 0)
            gr_buffer_add_text(text, chat->eos);
        else if (piece[0] == '{')
            gr_bug(__FILE__, __LINE__, "a known name", "format piece %s", piece);
        piece += piece[0] == '\0' ? 0 : 5;
    }
}

static void add_content(struct gr_chat_text *text, enum gr_chat_role role, const char *content,
                        bool trim_left, bool trim_right)
{
    size_t length = strlen(content), bytes;

    while (trim_left && (bytes = space_at(content, length, false)) > 0) {
        content += bytes;
        length -= bytes;
    }
    while (trim_right && (bytes = space_at(content, length, true)) > 0)
        length -= bytes;
    gr_chat_text_add_span(text, content, length, role, false);
}

/* system: a system message to be written inside this (user) turn, or NULL.  It counts as part of
 * the turn's content where the format trims: only the outer ends of the two are bare. */
static void add_turn(const struct gr_chat *chat, struct gr_chat_text *text, enum gr_chat_role role,
                     const char *preamble, const char *system, const char *content)
{
    const struct gr_chat_format *f = chat->format;
    size_t begin;

    add_piece(&text->text, chat, f->turn[role].before);
    if (preamble != NULL)
        add_piece(&text->text, chat, preamble);
    if (system != NULL) {
        add_piece(&text->text, chat, f->turn[GR_CHAT_SYSTEM].before);
        add_content(text, GR_CHAT_SYSTEM, system, false, false);
        add_piece(&text->text, chat, f->turn[GR_CHAT_SYSTEM].after);
    }
    add_content(text, role, content, f->trim && system == NULL, f->trim);
    begin = text->text.length;
    add_piece(&text->text, chat, f->turn[role].end);
    close_span(text, begin, role, true);
    add_piece(&text->text, chat, f->turn[role].after);
}

/* Formats that alternate take one system message, first, and then user, assistant, user, ... */
static gr_status check_roles(const struct gr_chat_format *format,
                             const struct gr_chat_message *message, int64_t count,
                             const char *place)
{
    int64_t first = message[0].role == GR_CHAT_SYSTEM ? 1 : 0;

    if (!format->alternate)
        return GR_OK;
    if (first == count)
        return gr_fail(GR_ERR_DATA, place, "take the record out",
                       "messages holds a system message only (found 1 message, expected a user's "
                       "after it)");
    for (int64_t i = first; i < count; i++) {
        enum gr_chat_role expected = (i - first) % 2 == 0 ? GR_CHAT_USER : GR_CHAT_ASSISTANT;

        if (message[i].role != expected) {
            gr_fail(GR_ERR_DATA, place, NULL,
                    "messages[%lld].role is out of turn (found %s, expected %s)", (long long)i,
                    role_names[message[i].role], role_names[expected]);
            gr_hint("chat format %s takes user and assistant by turns, after at most one system "
                    "message",
                    format->name);
            return GR_ERR_DATA;
        }
    }
    return GR_OK;
}

gr_status gr_chat_render(const struct gr_chat *chat, struct gr_chat_text *text,
                         const struct gr_chat_message *message, int64_t count,
                         bool generation_prompt, const char *place)
{
    const struct gr_chat_format *f = chat->format;
    bool system_first = count > 0 && message[0].role == GR_CHAT_SYSTEM;
    gr_status status = GR_OK;

    GR_CHECK(count > 0, "%lld messages", (long long)count);
    gr_chat_text_clear(text);
    GR_TRY(check_roles(f, message, count, place));
    add_piece(&text->text, chat, f->opening);
    if (!system_first && f->default_system != NULL)
        add_turn(chat, text, GR_CHAT_SYSTEM, f->system_preamble, NULL, f->default_system);
    for (int64_t i = 0; i < count; i++) {
        bool is_system = i == 0 && system_first;
        bool holds_system = i == 1 && system_first && f->system_in_user;

        if (!is_system || !f->system_in_user)
            add_turn(chat, text, message[i].role, is_system ? f->system_preamble : NULL,
                     holds_system ? message[0].content : NULL, message[i].content);
    }
    if (generation_prompt)
        add_piece(&text->text, chat, f->generation);
out:
    return status;
}

/* Masking. */

static bool is_selected(const struct gr_chat_span *span, enum gr_loss_on loss_on,
                        const struct gr_chat_span *last_turn)
{
    return span->role == GR_CHAT_ASSISTANT &&
           (loss_on != GR_LOSS_ON_LAST_TURN || span >= last_turn);
}

void gr_chat_label(uint8_t *labels, const struct gr_encoding *encoding,
                   const struct gr_chat_text *text, enum gr_loss_on loss_on)
{
    const struct gr_chat_span *span = text->span, *last_turn = span;
    const struct gr_chat_span *end = text->count > 0 ? span + text->count : span; /* NULL */

    for (const struct gr_chat_span *s = span; s < end; s++)
        if (s->role == GR_CHAT_ASSISTANT && !s->ends_turn)
            last_turn = s;
    for (int64_t i = 0; i < encoding->count; i++) {
        labels[i] = loss_on == GR_LOSS_ON_ALL;
        while (span < end && (int64_t)span->end <= encoding->begin[i])
            span++;
        for (const struct gr_chat_span *s = span;
             s < end && (int64_t)s->begin < encoding->end[i] && labels[i] == 0; s++)
            labels[i] = s->begin < s->end && is_selected(s, loss_on, last_turn);
    }
}

/* Choosing. */

const struct gr_chat_format *gr_chat_format_find(const char *name)
{
    const struct gr_chat_format *format = gr_chat_formats;

    while (format->name != NULL && strcmp(format->name, name) != 0)
        format++;
    return format->name == NULL ? NULL : format;
}

const struct gr_chat_format *gr_chat_format_of_template(const char *chat_template)
{
    char hex[GR_SHA256_HEX_BYTES];

    gr_sha256_hex(hex, chat_template, (int64_t)strlen(chat_template));
    for (const struct gr_chat_template *t = gr_chat_templates; t->sha256 != NULL; t++)
        if (strcmp(t->sha256, hex) == 0)
            return gr_chat_format_find(t->format);
    return NULL;
}

static void hint_names(const char *words)
{
    struct gr_buffer names = {0};

    for (const struct gr_chat_format *f = gr_chat_formats; f->name != NULL; f++)
        gr_buffer_add_format(&names, "%s%s", f == gr_chat_formats ? "" : ", ", f->name);
    gr_hint("%s: %s", words, names.data);
    gr_buffer_release(&names);
}

static gr_status fail_template(const char *chat_template)
{
    char hex[GR_SHA256_HEX_BYTES];

    if (chat_template == NULL) {
        gr_fail(GR_ERR_DATA, "data.chat_format", NULL,
                "the model has no chat_template (found nothing, expected one in "
                "tokenizer_config.json or chat_template.jinja)");
    } else {
        gr_sha256_hex(hex, chat_template, (int64_t)strlen(chat_template));
        gr_fail(GR_ERR_DATA, "data.chat_format", NULL,
                "the model's chat_template is unknown (found SHA-256 %.16s..., expected that of a "
                "format graft has)",
                hex);
    }
    hint_names("set data.chat_format to the format the model was trained on");
    return GR_ERR_DATA;
}

/* A turn's end that is no token of the model would be learned letter by letter, and never stop a
 * generation. */
static gr_status set_end_token(struct gr_chat *chat, const struct gr_tokenizer *tokenizer)
{
    struct gr_buffer end = {0};
    gr_status status = GR_OK;
    const char *token;

    add_piece(&end, chat, chat->format->turn[GR_CHAT_ASSISTANT].end);
    token = end.data == NULL ? "" : end.data + strspn(end.data, " ");
    chat->end_token = gr_tokenizer_token_id(tokenizer, token);
    if (token[0] == '\0')
        status = gr_fail(GR_ERR_DATA, "data.chat_format", "give eos_token in tokenizer_config.json",
                         "format %s ends a turn with EOS, and the tokenizer has none",
                         chat->format->name);
    else if (chat->end_token < 0) {
        status = gr_fail(GR_ERR_DATA, "data.chat_format", NULL,
                         "format %s does not fit the tokenizer (found no token %s, which ends a "
                         "turn)",
                         chat->format->name, token);
        hint_names("choose the format the model was trained on");
    }
    gr_buffer_release(&end);
    return status;
}

gr_status gr_chat_choose(struct gr_chat *chat, const char *name,
                         const struct gr_tokenizer *tokenizer)
{
    const char *chat_template = gr_tokenizer_chat_template(tokenizer);

    *chat = (struct gr_chat){.bos = gr_tokenizer_bos_text(tokenizer),
                             .eos = gr_tokenizer_eos_text(tokenizer)};
    if (strcmp(name, "auto") == 0) {
        if (chat_template != NULL)
            chat->format = gr_chat_format_of_template(chat_template);
        if (chat->format == NULL)
            return fail_template(chat_template);
    } else {
        chat->format = gr_chat_format_find(name);
        if (chat->format == NULL) {
            gr_fail(GR_ERR_USAGE, "data.chat_format", NULL, "no such format (found %s)", name);
            hint_names("auto, or one of");
            return GR_ERR_USAGE;
        }
    }
    return set_end_token(chat, tokenizer);
}

const char *gr_chat_name(const struct gr_chat *chat)
{
    return chat->format->name;
}
