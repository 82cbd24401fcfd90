/* What the records of a data file can look like: a table from the keys of a record to a reader that
 * turns it into text and spans.  records.c calls it; it knows no tokens. */
#ifndef GR_DATA_RECORD_FORMATS_H
#define GR_DATA_RECORD_FORMATS_H

#include "data/chat.h"

#include <jansson.h>

/* What a reader needs, and what it leaves; kept from record to record. */
struct gr_record_context {
    const char *place;               /* FILE:LINE of the record */
    struct gr_chat chat;             /* for messages */
    struct gr_chat_text text;        /* out */
    struct gr_chat_message *message; /* scratch */
    int64_t message_capacity;
    struct gr_buffer ignored; /* keys no reader looked at, "a, b, c" */
};
void gr_record_context_release(struct gr_record_context *context);

struct gr_record_format {
    const char *name;
    const char *keys[3];     /* a record has all of these; the rest NULL */
    const char *optional[2]; /* and may have these */
    bool chat;               /* uses a chat format, which writes all special tokens itself */
    bool all_supervised;     /* whatever loss_on says */
    const char *learned;     /* for messages: what the loss is taken on */
    /* context->text <- the record.  Errors: ERR_DATA at context->place, naming the key. */
    gr_status (*read)(struct gr_record_context *context, const json_t *record);
};

/* NULL: there is no such format. */
const struct gr_record_format *gr_record_format_find(const char *name);
/* The one format all of whose keys the record has.  Errors: ERR_DATA (none, several). */
gr_status gr_record_format_detect(const struct gr_record_format **format, const json_t *record,
                                  const char *place);
/* Reads one record: checks its keys, then calls the format's reader.  Errors: as that one's. */
gr_status gr_record_format_read(const struct gr_record_format *format,
                                struct gr_record_context *context, const json_t *record);
/* Appends the keys of one list that another does not hold. */
void gr_record_ignored_add(struct gr_buffer *all, const char *list);
/* hint: "WORDS: auto, text, messages, ..." */
void gr_record_format_hint(const char *words);

#endif
