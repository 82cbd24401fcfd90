/* What the tokenizer's files need beyond data/json.h: keys with NUL, huge numbers, unknown keys
 * refused by name.  A struct gr_json made here on the stack borrows its value and its place.
 * Errors of all: ERR_DATA naming file and key; of the two that load also ERR_NOT_FOUND. */
#ifndef GR_DATA_TOKENIZER_STRICT_JSON_H
#define GR_DATA_TOKENIZER_STRICT_JSON_H

#include "data/json.h"
#include "kernels/base/buffer.h"

/* As gr_json_load, for vocabularies: a NUL in a key, which jansson refuses, becomes GR_JSON_NUL in
 * the object (two noncharacters that no text should have) and is itself again in gr_json_key. */
#define GR_JSON_NUL "\xF4\x8F\xBF\xBE\xF4\x8F\xBF\xBF"
gr_status gr_json_load_vocab(struct gr_json *json, const char *path);
void gr_json_key(struct gr_buffer *text, const char *key);
/* As gr_json_load, where whole numbers may not fit in 64 bits; all numbers are reals. */
gr_status gr_json_load_reals(struct gr_json *json, const char *path);

/* Refuses, by name, a key that is not in the NULL-terminated list. */
gr_status gr_json_check_keys(const struct gr_json *json, const char *const known[]);
/* The value under `key`, that must be there, as the id of a token, below GR_VOCAB_ID_LIMIT. */
gr_status gr_json_id(int32_t *id, const struct gr_json *json, const char *key);
/* "KEY (found ..., expected EXPECTED)". */
gr_status gr_json_wrong(const struct gr_json *json, const char *key, const json_t *found,
                        const char *expected);

#endif
