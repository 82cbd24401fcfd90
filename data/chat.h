/* Chat formats: a conversation to the text a model was trained on, with the places of its turns.
 * Everything goes through one render(messages) -> text plus byte spans; one masker turns spans into
 * labels.  What a format looks like stands in the tables of chat_formats.c; a Jinja interpreter
 * would be a second way to fill the same struct gr_chat_text.  Reads no files: records.c does. */
#ifndef GR_DATA_CHAT_H
#define GR_DATA_CHAT_H

#include "data/tokenizer/tokenizer.h"

/* role, its name in data files and in templates */
#define GR_CHAT_ROLE_LIST(X)                                                                       \
    X(SYSTEM, "system")                                                                            \
    X(USER, "user")                                                                                \
    X(ASSISTANT, "assistant")

enum gr_chat_role {
#define X(name, words) GR_CHAT_##name,
    GR_CHAT_ROLE_LIST(X)
#undef X
        GR_CHAT_ROLE_COUNT
};
/* GR_CHAT_ROLE_COUNT: there is no role of that name. */
enum gr_chat_role gr_chat_role_find(const char *name);

struct gr_chat_message {
    enum gr_chat_role role;
    const char *content;
};

/* Bytes [begin, end) of the text that a turn's loss is taken on: what was said, and the token that
 * ends the turn.  Ascending; headers and the white space between turns lie in no span. */
struct gr_chat_span {
    size_t begin, end;
    enum gr_chat_role role;
    bool ends_turn; /* the end-of-turn token; otherwise the content */
};

/* Result of a rendering; reusable (a zeroed struct is empty), release at the end. */
struct gr_chat_text {
    struct gr_buffer text;
    struct gr_chat_span *span;
    int64_t count, capacity;
};
void gr_chat_text_clear(struct gr_chat_text *text);
void gr_chat_text_release(struct gr_chat_text *text);
/* Appends bytes as a span.  For other record formats that know what is to be learned. */
void gr_chat_text_add_span(struct gr_chat_text *text, const char *bytes, size_t length,
                           enum gr_chat_role role, bool ends_turn);

/* The chat of a model.  Texts are borrowed from its tokenizer. */
struct gr_chat_format;
struct gr_chat {
    const struct gr_chat_format *format;
    const char *bos, *eos; /* "" if none */
    int64_t end_token;     /* ends the assistant's turn: generation stops there */
};

/* name: "auto", or one of the formats.  "auto" takes the format whose template is byte-equal to the
 * model's.  Errors: ERR_USAGE (no such name), ERR_DATA (unknown template; the tokenizer lacks the
 * token that ends a turn), place data.chat_format. */
gr_status gr_chat_choose(struct gr_chat *chat, const char *name,
                         const struct gr_tokenizer *tokenizer);
const char *gr_chat_name(const struct gr_chat *chat);

/* The format whose template is byte-equal to this one (SHA-256), or of this name; NULL if none. */
const struct gr_chat_format *gr_chat_format_of_template(const char *chat_template);
const struct gr_chat_format *gr_chat_format_find(const char *name);

/* text <- the conversation, as the format's template writes it.  generation_prompt: ends with what
 * opens the assistant's next turn.  Errors: ERR_DATA at `place` (roles the format cannot hold). */
gr_status gr_chat_render(const struct gr_chat *chat, struct gr_chat_text *text,
                         const struct gr_chat_message *message, int64_t count,
                         bool generation_prompt, const char *place);

#define GR_LOSS_ON_LIST(X)                                                                         \
    X(ASSISTANT, "assistant") /* every turn of the assistant */                                    \
    X(ALL, "all")             /* every token, headers included */                                  \
    X(LAST_TURN, "last_turn") /* the assistant's last turn */

enum gr_loss_on {
#define X(name, words) GR_LOSS_ON_##name,
    GR_LOSS_ON_LIST(X)
#undef X
        GR_LOSS_ON_COUNT
};

/* labels[i] <- 1 iff token i holds a byte of a span that loss_on selects (all: always). */
void gr_chat_label(uint8_t *labels, const struct gr_encoding *encoding,
                   const struct gr_chat_text *text, enum gr_loss_on loss_on);

#endif
