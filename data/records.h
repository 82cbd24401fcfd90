/* Data files to tokenized documents: JSONL (or one JSON array) whose records are texts,
 * conversations, or prompts with completions.  Streams: memory holds a few records at a time,
 * encoded by several threads and given out in the order of the file. The token store and `graft
 * data` call it; packing and batches come after (loader.h). */
#ifndef GR_DATA_RECORDS_H
#define GR_DATA_RECORDS_H

#include "data/documents.h"
#include "data/sources.h"
#include "data/tokenizer/tokenizer.h"

/* As in the configuration, section data; a value that is none of these is ERR_USAGE. */
struct gr_records_options {
    const char *format;      /* auto | text | messages | prompt_completion | alpaca */
    const char *chat_format; /* auto | a name of data/chat_formats.c */
    const char *too_long;    /* truncate | drop | error */
    const char *loss_on;     /* assistant | all | last_turn */
    int64_t max_length;      /* T: tokens of a document */
    int64_t fallback_eos;    /* of config.json: used where the tokenizer has no EOS; -1: none */
    int threads;             /* that encode at once; documents do not depend on it; 0: one */
};

/* The EOS that ends documents: the tokenizer's, else the fallback; -1: none. */
int64_t gr_records_eos(const struct gr_tokenizer *tokenizer,
                       const struct gr_records_options *options);

/* Where documents go.  labels[0] is 0; `source` is the index of the file. */
struct gr_document_sink {
    void *context;
    gr_status (*add)(void *context, const uint32_t *tokens, const uint8_t *labels, int32_t length,
                     int32_t source);
};

/* Gives the documents of `count` files to `sink`, one after the other, and appends to `sources`
 * what was read, cut and dropped.  auto looks at each file's first record. messages: the chat
 * format writes every special token.  text, prompt and completion: the post-processor's specials,
 * and EOS if absent. Errors: those of the sink; ERR_USAGE; ERR_NOT_FOUND, ERR_DATA at FILE:LINE.
 * After an error the counts are those of what was read before it. */
gr_status gr_records_stream(const struct gr_document_sink *sink, struct gr_sources *sources,
                            const struct gr_tokenizer *tokenizer, const char *const *files,
                            int64_t count, const struct gr_records_options *options);

/* The same into memory: appends to `documents`, whose `source` counts on from those there are. */
gr_status gr_records_read(struct gr_documents *documents, struct gr_sources *sources,
                          const struct gr_tokenizer *tokenizer, const char *const *files,
                          int64_t count, const struct gr_records_options *options);

#endif
