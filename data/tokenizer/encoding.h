/* Filling the result of an encoding: what the model finds, and what the post-processor adds. */
#ifndef GR_DATA_TOKENIZER_ENCODING_H
#define GR_DATA_TOKENIZER_ENCODING_H

#include "data/tokenizer/text.h"
#include "data/tokenizer/tokenizer.h"

/* Room for `count` tokens in all, then tokens one by one; gr_encoding_add does both. */
void gr_encoding_reserve(struct gr_encoding *encoding, int64_t count);
static inline void gr_encoding_put(struct gr_encoding *e, int32_t id, struct gr_origin source)
{
    e->ids[e->count] = (uint32_t)id;
    e->begin[e->count] = source.begin;
    e->end[e->count] = source.end;
    e->count++;
}
void gr_encoding_add(struct gr_encoding *encoding, int32_t id, struct gr_origin source);
/* Puts tokens that stand for no bytes before and behind all others. */
void gr_encoding_surround(struct gr_encoding *encoding, const uint32_t *before,
                          int64_t before_count, const uint32_t *after, int64_t after_count);

#endif
