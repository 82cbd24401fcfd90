/* Tokens: text to ids and back, as Hugging Face `tokenizers` does it for the same tokenizer.json.
 * A table normalizer -> pre-tokenizer -> model -> post-processor -> decoder, each component chosen
 * by the file's own "type"; a component or option that is not known is refused by name. */
#ifndef GR_DATA_TOKENIZER_H
#define GR_DATA_TOKENIZER_H

#include "kernels/base/buffer.h"
#include "kernels/base/status.h"

struct gr_tokenizer;

/* Result of an encoding; reusable, release at the end. */
struct gr_encoding {
    uint32_t *ids;
    int64_t *begin, *end; /* bytes of the input text the token stands for; begin == end for tokens
                             the post-processor added.  Tokens that share a character (byte
                             fallback, byte-level) all carry the exact bytes they hold, and spaces
                             count: `tokenizers` with trim_offsets false */
    int64_t count, capacity;
};

/* Reads directory/tokenizer.json, and tokenizer_config.json for bos, eos and the chat template.
 * Errors: ERR_DATA naming file and component.  Safe for several threads once created. */
gr_status gr_tokenizer_create(struct gr_tokenizer **tokenizer, const char *directory);
void gr_tokenizer_destroy(struct gr_tokenizer *tokenizer);

/* add_specials: what the post-processor adds around a single text.  Special tokens written in the
 * text are recognised either way.  Errors: ERR_DATA (invalid UTF-8, with the byte's position). */
gr_status gr_tokenizer_encode(const struct gr_tokenizer *tokenizer, struct gr_encoding *encoding,
                              const char *text, size_t length, bool add_specials);
/* skip_specials leaves out tokens marked special.  Added tokens give their own text; `tokenizers`
 * does so up to 0.22, while 0.23 gives those marked `normalized` normalized, and then does not know
 * them as special: the "</s>" of some Llama 2 files would stay.  Ids out of range: ERR_DATA. */
gr_status gr_tokenizer_decode(const struct gr_tokenizer *tokenizer, struct gr_buffer *text,
                              const uint32_t *ids, int64_t count, bool skip_specials);
void gr_encoding_release(struct gr_encoding *encoding);

int64_t gr_tokenizer_vocab_size(const struct gr_tokenizer *tokenizer); /* largest id + 1 */
/* -1 if there is none.  eos, bos: of tokenizer_config.json. */
int64_t gr_tokenizer_eos(const struct gr_tokenizer *tokenizer);
int64_t gr_tokenizer_bos(const struct gr_tokenizer *tokenizer);
int64_t gr_tokenizer_token_id(const struct gr_tokenizer *tokenizer, const char *token);
/* The template that apply_chat_template would use: chat_template of tokenizer_config.json, or
 * chat_template.jinja beside it (which wins, as in transformers 5); NULL if there is none. */
const char *gr_tokenizer_chat_template(const struct gr_tokenizer *tokenizer);
/* bos_token and eos_token as text, "" if none: templates use them. */
const char *gr_tokenizer_bos_text(const struct gr_tokenizer *tokenizer);
const char *gr_tokenizer_eos_text(const struct gr_tokenizer *tokenizer);

/* Versions: of Oniguruma, which does the regular expressions, and of utf8proc's Unicode tables. */
const char *gr_tokenizer_regex_library(void);
const char *gr_tokenizer_unicode_library(void);

#endif
