/* Reading JSON objects with useful messages.  See json.h. */
#include "data/json.h"

#include "kernels/base/alloc.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

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

gr_status gr_json_load(struct gr_json *json, const char *path)
{
    json_error_t error;

    memset(json, 0, sizeof *json);
    if (access(path, R_OK) != 0)
        return gr_fail(errno == ENOENT || errno == ENOTDIR ? GR_ERR_NOT_FOUND : GR_ERR_DATA, path,
                       "check the path", "cannot be read (%s)", strerror(errno));
    json->value = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (json->value == NULL)
        return gr_fail(GR_ERR_DATA, path, damaged, "not JSON: %s (line %d, column %d)", error.text,
                       error.line, error.column);
    json->place = gr_strdup(path);
    if (!json_is_object(json->value))
        return gr_fail(GR_ERR_DATA, path, damaged, "the file (found %s, expected an object)",
                       gr_json_type_name(json->value));
    return GR_OK;
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

gr_status gr_json_first_int(int64_t *value, const struct gr_json *json, const char *key)
{
    json_t *found = lookup(json, key);

    if (json_is_array(found))
        found = json_array_get(found, 0);
    if (found == NULL)
        return GR_OK;
    if (!json_is_integer(found))
        return wrong_type(json, key, found, "a whole number or a list of them");
    *value = json_integer_value(found);
    return GR_OK;
}
