/* Reading the tokenizer's JSON files so that every failure names file and component.
 * `place` is "FILE: component" throughout; values stay owned by the file's root. */
#ifndef GR_DATA_TOKENIZER_JSON_H
#define GR_DATA_TOKENIZER_JSON_H

#include "kernels/base/buffer.h"
#include "kernels/base/status.h"

#include <jansson.h>
#include <stdint.h>

/* Appends the bytes of a file.  Errors: ERR_NOT_FOUND if there is no such file, else ERR_DATA. */
gr_status gr_file_read(struct gr_buffer *bytes, const char *path);

/* The file as an object; the caller releases it with json_decref.  Errors: as above. */
gr_status gr_json_read_file(json_t **root, const char *path);

/* A key as it stands in the file.  In the object itself a NUL in a key, which jansson refuses, is
 * GR_JSON_NUL: two noncharacters that no text should have. */
#define GR_JSON_NUL "\xF4\x8F\xBF\xBE\xF4\x8F\xBF\xBF"
void gr_json_key_text(struct gr_buffer *text, const char *key);

/* Refuses, by name, a key that is not in the NULL-terminated list. */
gr_status gr_json_check_keys(const json_t *object, const char *const known[], const char *place);

/* A member of an object; missing or null: *found is NULL and all is well. */
gr_status gr_json_get_text(const char **found, int64_t *length, const json_t *object,
                           const char *key, const char *place);
gr_status gr_json_get_bool(bool *value, bool fallback, const json_t *object, const char *key,
                           const char *place);
/* A member that must be there, with a value from 0 to limit - 1. */
gr_status gr_json_get_id(int32_t *value, int64_t limit, const json_t *object, const char *key,
                         const char *place);

/* "KEY is wrong (found ..., expected EXPECTED)". */
gr_status gr_json_wrong(const json_t *found, const char *key, const char *expected,
                        const char *place);

#endif
