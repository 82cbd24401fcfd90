/* Filling the result of an encoding: what the model finds, and what the post-processor adds. */
#ifndef GR_DATA_TOKENIZER_ENCODING_H
#define GR_DATA_TOKENIZER_ENCODING_H

#include "data/tokenizer/text.h"
#include "data/tokenizer/tokenizer.h"

void gr_encoding_add(struct gr_encoding *encoding, int32_t id, struct gr_source source);
/* Puts tokens that stand for no bytes before and behind all others. */
void gr_encoding_surround(struct gr_encoding *encoding, const uint32_t *before,
                          int64_t before_count, const uint32_t *after, int64_t after_count);

#endif
