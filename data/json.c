/* Reading JSON objects with useful messages.  See json.h. */
#include "data/json.h"

#include "data/file_map.h"
#include "kernels/base/alloc.h"

#include <stdio.h>
#include <string.h>

static const char damaged[] = "the file is damaged or not meant for graft; fetch it again";

const char *gr_json_type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",  [JSON_STRING] = "text",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return value == NULL ? "nothing" : names[json_typeof(value)];
}

static gr_status wrong_type(const struct gr_json *json, const char *key, const json_t *value,
                            const char *expected)
{
    return gr_fail(GR_ERR_DATA, json->place, damaged, "%s (found %s, expected %s)", key,
                   gr_json_type_name(value), expected);
}

/* NULL when absent or null. */
static json_t *lookup(const struct gr_json *json, const char *key)
{
    json_t *value = json_object_get(json->value, key);

    return value == NULL || json_is_null(value) ? NULL : value;
}

bool gr_json_is_beyond(const json_error_t *error)
{
    switch (json_error_code(error)) {
    case json_error_numeric_overflow:
    case json_error_null_character:
    case json_error_null_byte_in_key:
    case json_error_stack_overflow:
        return true;
    default:
        return false;
    }
}

void gr_json_describe(char text[GR_JSON_REASON_BYTES], const json_error_t *error)
{
    bool is_real = strncmp(error->text, "real", 4) == 0;

    switch (json_error_code(error)) {
    case json_error_numeric_overflow:
        snprintf(text, GR_JSON_REASON_BYTES,
                 "the number that ends in column %d does not fit (found one beyond %s, expected "
                 "%s)",
                 error->column, is_real ? "double precision" : "64 bits",
                 is_real ? "at most 1.8e308" : "an integer from -2^63 to 2^63 - 1");
        break;
    case json_error_null_character:
    case json_error_null_byte_in_key:
        snprintf(text, GR_JSON_REASON_BYTES,
                 "the text that ends in column %d holds the character U+0000 (found \\u0000, "
                 "expected text without it)",
                 error->column);
        break;
    case json_error_stack_overflow:
        snprintf(text, GR_JSON_REASON_BYTES,
                 "lists and objects are nested too deeply in column %d (found more than %d, "
                 "expected fewer)",
                 error->column, JSON_PARSER_MAX_DEPTH);
        break;
    default:
        snprintf(text, GR_JSON_REASON_BYTES, "broken JSON in column %d (%s)", error->column,
                 error->text);
    }
}

gr_status gr_json_fail_syntax(const char *path, int64_t first_line, const json_error_t *error,
                              const char *hint)
{
    char *place = gr_format("%s:%lld", path, (long long)first_line + error->line - 1);
    char reason[GR_JSON_REASON_BYTES];

    gr_json_describe(reason, error);
    gr_fail(GR_ERR_DATA, place, hint, "%s", reason);
    gr_free(place);
    return GR_ERR_DATA;
}

gr_status gr_json_parse(struct gr_json *json, const void *text, int64_t bytes, const char *place)
{
    json_error_t error;

    json->place = gr_strdup(place);
    json->value =
        json_loadb(text == NULL ? "" : text, (size_t)bytes, JSON_REJECT_DUPLICATES, &error);
    if (json->value == NULL)
        return gr_json_fail_syntax(place, 1, &error, damaged);
    if (!json_is_object(json->value))
        return gr_fail(GR_ERR_DATA, place, damaged, "the file (found %s, expected an object)",
                       gr_json_type_name(json->value));
    return GR_OK;
}

gr_status gr_json_load(struct gr_json *json, const char *path)
{
    gr_status status = GR_OK;
    struct gr_file_map map = {0};

    memset(json, 0, sizeof *json);
    GR_TRY(gr_file_map_open(&map, path));
    GR_TRY(gr_json_parse(json, map.data, map.identity.bytes, path));
out:
    gr_file_map_close(&map);
    return status;
}

gr_status gr_json_object(struct gr_json *child, const struct gr_json *json, const char *key)
{
    json_t *value = lookup(json, key);

    memset(child, 0, sizeof *child);
    if (value == NULL)
        return GR_OK;
    if (!json_is_object(value))
        return wrong_type(json, key, value, "an object");
    child->value = json_incref(value);
    child->place = gr_format("%s: %s", json->place, key);
    return GR_OK;
}

void gr_json_release(struct gr_json *json)
{
    json_decref(json->value);
    gr_free(json->place);
    memset(json, 0, sizeof *json);
}

bool gr_json_has(const struct gr_json *json, const char *key)
{
    return lookup(json, key) != NULL;
}

gr_status gr_json_need(const struct gr_json *json, const char *key)
{
    if (lookup(json, key) == NULL)
        return gr_fail(GR_ERR_DATA, json->place, damaged, "%s (found nothing, expected a value)",
                       key);
    return GR_OK;
}

gr_status gr_json_bool(bool *value, const struct gr_json *json, const char *key)
{
    json_t *found = lookup(json, key);

    if (found == NULL)
        return GR_OK;
    if (!json_is_boolean(found))
        return wrong_type(json, key, found, "true or false");
    *value = json_is_true(found);
    return GR_OK;
}

gr_status gr_json_number(double *value, const struct gr_json *json, const char *key)
{
    json_t *found = lookup(json, key);

    if (found == NULL)
        return GR_OK;
    if (!json_is_number(found))
        return wrong_type(json, key, found, "a number");
    *value = json_number_value(found);
    return GR_OK;
}

gr_status gr_json_number_in(double *value, const struct gr_json *json, const char *key, double min,
                            double below)
{
    gr_status status = GR_OK;
    double number = min;

    GR_TRY(gr_json_number(&number, json, key));
    if (!(number >= min && number < below))
        return gr_fail(GR_ERR_DATA, json->place, damaged,
                       "%s (found %g, expected at least %g and less than %g)", key, number, min,
                       below);
    if (gr_json_has(json, key))
        *value = number;
out:
    return status;
}

gr_status gr_json_int(int64_t *value, const struct gr_json *json, const char *key, int64_t min,
                      int64_t max)
{
    json_t *found = lookup(json, key);
    int64_t number;

    if (found == NULL)
        return GR_OK;
    if (!json_is_integer(found))
        return wrong_type(json, key, found, "a whole number");
    number = json_integer_value(found);
    if (number < min || number > max)
        return gr_fail(GR_ERR_DATA, json->place, damaged, "%s (found %lld, expected %lld to %lld)",
                       key, (long long)number, (long long)min, (long long)max);
    *value = number;
    return GR_OK;
}

gr_status gr_json_text(const char **value, const struct gr_json *json, const char *key)
{
    json_t *found = lookup(json, key);

    if (found == NULL)
        return GR_OK;
    if (!json_is_string(found))
        return wrong_type(json, key, found, "text");
    *value = json_string_value(found);
    return GR_OK;
}

gr_status gr_json_ints(int64_t *values, int64_t *count, int64_t capacity,
                       const struct gr_json *json, const char *key)
{
    json_t *found = lookup(json, key);
    bool is_list = json_is_array(found);
    int64_t length = is_list ? (int64_t)json_array_size(found) : 1;

    if (found == NULL)
        return GR_OK;
    if (length > capacity)
        return gr_fail(GR_ERR_DATA, json->place, damaged,
                       "%s (found %lld numbers, expected at most %lld)", key, (long long)length,
                       (long long)capacity);
    for (int64_t i = 0; i < length; i++) {
        const json_t *item = is_list ? json_array_get(found, (size_t)i) : found;

        if (!json_is_integer(item))
            return wrong_type(json, key, item, "a whole number or a list of them");
        values[i] = json_integer_value(item);
    }
    *count = length;
    return GR_OK;
}
