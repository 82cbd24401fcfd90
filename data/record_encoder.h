/* One record to one document: parsed, rendered, encoded, masked and measured.  What it makes is a
 * function of the record alone, so several encoders may share out the records of a file.
 * records.c calls it and counts. */
#ifndef GR_DATA_RECORD_ENCODER_H
#define GR_DATA_RECORD_ENCODER_H

#include "data/chat.h"
#include "data/record_formats.h"
#include "data/record_reader.h"

#define GR_TOO_LONG_LIST(X)                                                                        \
    X(TRUNCATE, "truncate")                                                                        \
    X(DROP, "drop")                                                                                \
    X(ERROR, "error")

enum gr_too_long {
#define X(name, words) GR_TOO_LONG_##name,
    GR_TOO_LONG_LIST(X)
#undef X
        GR_TOO_LONG_COUNT
};

/* What the records of a file have in common; encoders only read it. */
struct gr_record_settings {
    const struct gr_tokenizer *tokenizer;
    const struct gr_record_format *format;
    struct gr_chat chat; /* where the format needs one */
    enum gr_too_long too_long;
    enum gr_loss_on loss_on;
    int64_t max_length;
    int64_t eos; /* -1: none */
};

/* What became of a record.  `status` says first whether anything did. */
struct gr_encoded_record {
    gr_status status;
    struct gr_error *error; /* NULL: none */
    bool cut, dropped_long, dropped_bare;
    const struct gr_record_encoder *encoder; /* that holds its tokens */
    int64_t offset;                          /* in tokens and labels there */
    int64_t count;                           /* tokens; 0 where it was dropped */
    struct gr_buffer ignored;                /* keys no reader looked at, "a, b, c" */
};
void gr_encoded_record_release(struct gr_encoded_record *record);

/* Of one thread; zeroed when new.  Keeps the documents it made until it is cleared. */
struct gr_record_encoder {
    struct gr_record_context context;
    struct gr_encoding encoding;
    uint32_t *tokens; /* [count] */
    uint8_t *labels;
    int64_t count, capacity;
};
void gr_record_encoder_clear(struct gr_record_encoder *encoder); /* keeps the memory */
void gr_record_encoder_release(struct gr_record_encoder *encoder);

/* *out <- the record; its error, if any, is in there and not on the thread. */
void gr_record_encode(struct gr_encoded_record *out, struct gr_record_encoder *encoder,
                      const struct gr_record_settings *settings,
                      const struct gr_record_reader *reader, const struct gr_record_text *text);

#endif
