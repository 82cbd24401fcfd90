/* Data files to tokenized documents: JSONL (or one JSON array) whose records are texts,
 * conversations, or prompts with completions.  Streams: memory holds one record and the tokens.
 * The trainer and `graft data` call it; packing and batches come after (loader.h). */
#ifndef GR_DATA_RECORDS_H
#define GR_DATA_RECORDS_H

#include "data/documents.h"
#include "data/tokenizer/tokenizer.h"

/* As in the configuration, section data; a value that is none of these is ERR_USAGE. */
struct gr_records_options {
    const char *format;      /* auto | text | messages | prompt_completion | alpaca */
    const char *chat_format; /* auto | a name of data/chat_formats.c */
    const char *too_long;    /* truncate | drop | error */
    const char *loss_on;     /* assistant | all | last_turn */
    int64_t max_length;      /* T: tokens of a document */
    int64_t fallback_eos;    /* of config.json: used where the tokenizer has no EOS; -1: none */
};

/* Appends the documents of `count` files to `documents` (source = index of the file), and says in
 * one note per file what was read, cut and dropped.  auto looks at each file's first record.
 *   messages: the chat format writes every special token.  text, prompt and completion: the
 *   post-processor's specials, and EOS if absent.
 * Errors: ERR_USAGE; ERR_NOT_FOUND, ERR_DATA at FILE:LINE; ERR_DATA when no token at all is
 * supervised.  After an error `documents` holds what was read before it. */
gr_status gr_records_read(struct gr_documents *documents, const struct gr_tokenizer *tokenizer,
                          const char *const *files, int64_t count,
                          const struct gr_records_options *options);

#endif
