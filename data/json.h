/* JSON files of other programs, read with messages a user can act on: "FILE: KEY (found X, expected
 * Y)".  A thin face on jansson; writers use jansson itself. */
#ifndef GR_DATA_JSON_H
#define GR_DATA_JSON_H

#include "kernels/base/status.h"

#include <jansson.h>
#include <stdint.h>

/* An object and where it stands.  Zeroed: none. */
struct gr_json {
    json_t *value; /* owned reference; NULL: none */
    char *place;   /* "dir/config.json" or "dir/config.json: rope_scaling"; owned */
};

/* Reads a file that must hold one JSON object, without duplicate keys.
 * Errors: ERR_NOT_FOUND, ERR_DATA with line and column. */
gr_status gr_json_load(struct gr_json *json, const char *path);
/* The same from memory; place: what messages call it. */
gr_status gr_json_parse(struct gr_json *json, const void *text, int64_t bytes, const char *place);
/* What jansson did not take, and in which column: broken JSON, or JSON that is beyond it. */
enum { GR_JSON_REASON_BYTES = JSON_ERROR_TEXT_LENGTH + 64 };
void gr_json_describe(char text[GR_JSON_REASON_BYTES], const json_error_t *error);
/* The text is JSON, as far as it was read, but with what cannot be held: a number, U+0000, depth.
 */
bool gr_json_is_beyond(const json_error_t *error);
/* ERR_DATA: the text of a file, which begins in its line `first_line`, could not be read. */
gr_status gr_json_fail_syntax(const char *path, int64_t first_line, const json_error_t *error,
                              const char *hint);
/* The object under `key`; none (value NULL) if absent or null.  Errors: ERR_DATA, another type. */
gr_status gr_json_object(struct gr_json *child, const struct gr_json *json, const char *key);
void gr_json_release(struct gr_json *json);

bool gr_json_has(const struct gr_json *json, const char *key);       /* present and not null */
gr_status gr_json_need(const struct gr_json *json, const char *key); /* ERR_DATA if not there */

/* The value under `key`; absent or null leaves *value as it is.  Errors, of all below: ERR_DATA at
 * the key, for another type or out of range. */
gr_status gr_json_bool(bool *value, const struct gr_json *json, const char *key);
gr_status gr_json_number(double *value, const struct gr_json *json, const char *key);
gr_status gr_json_number_in(double *value, const struct gr_json *json, const char *key, double min,
                            double below); /* min <= *value < below */
gr_status gr_json_int(int64_t *value, const struct gr_json *json, const char *key, int64_t min,
                      int64_t max);
gr_status gr_json_text(const char **value, const struct gr_json *json,
                       const char *key); /* borrowed */
/* An integer or a list of at most `capacity`; absent or null leaves *count as it is. */
gr_status gr_json_ints(int64_t *values, int64_t *count, int64_t capacity,
                       const struct gr_json *json, const char *key);

/* "an object", "a list", "text", ...: for messages.  NULL: "nothing". */
const char *gr_json_type_name(const json_t *value);

#endif
