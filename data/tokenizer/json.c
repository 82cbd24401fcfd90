/* JSON files and members with messages that name them.  See json.h. */
#include "data/tokenizer/json.h"

#include "kernels/base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

gr_status gr_file_read(struct gr_buffer *bytes, const char *path)
{
    FILE *file = fopen(path, "rb");
    gr_status status = GR_OK;
    char block[1 << 16];
    size_t count;

    if (file == NULL)
        return gr_fail(errno == ENOENT ? GR_ERR_NOT_FOUND : GR_ERR_DATA, path,
                       "give a Hugging Face model directory", "cannot be opened (%s)",
                       strerror(errno));
    do {
        count = fread(block, 1, sizeof block, file);
        gr_buffer_add(bytes, block, count);
    } while (count > 0);
    if (ferror(file))
        status = gr_fail(GR_ERR_DATA, path, NULL, "cannot be read (%s)", strerror(errno));
    fclose(file);
    return status;
}

/* The bytes from a string's opening quote to behind its closing one. */
static size_t string_end(const struct gr_buffer *json, size_t i)
{
    for (i++; i < json->length && json->data[i] != '"'; i++) {
        if (json->data[i] == '\\')
            i++;
    }
    return i + 1;
}

static bool is_key(const struct gr_buffer *json, size_t behind)
{
    while (behind < json->length && strchr(" \t\r\n", json->data[behind]) != NULL)
        behind++;
    return behind < json->length && json->data[behind] == ':';
}

/* jansson takes no NUL in keys, but vocabularies hold it; until gr_json_key_text it is
 * GR_JSON_NUL there. */
static void hide_nul_in_keys(struct gr_buffer *json)
{
    struct gr_buffer out = {0};
    size_t end;

    if (json->length == 0 || strstr(json->data, "\\u0000") == NULL)
        return;
    for (size_t i = 0; i < json->length; i = end) {
        end = json->data[i] == '"' ? string_end(json, i) : i + 1;
        end = end < json->length ? end : json->length;
        if (end - i < 8 || !is_key(json, end)) {
            gr_buffer_add(&out, json->data + i, end - i);
            continue;
        }
        while (i < end) {
            if (end - i > 6 && memcmp(json->data + i, "\\u0000", 6) == 0) {
                gr_buffer_add_text(&out, GR_JSON_NUL);
                i += 6;
            } else {
                size_t count = json->data[i] == '\\' ? 2 : 1;

                gr_buffer_add(&out, json->data + i, count);
                i += count;
            }
        }
    }
    gr_buffer_release(json);
    *json = out;
}

void gr_json_key_text(struct gr_buffer *text, const char *key)
{
    const char *nul;

    gr_buffer_clear(text);
    while ((nul = strstr(key, GR_JSON_NUL)) != NULL) {
        gr_buffer_add(text, key, (size_t)(nul - key));
        gr_buffer_add(text, "", 1);
        key = nul + strlen(GR_JSON_NUL);
    }
    gr_buffer_add_text(text, key);
}

gr_status gr_json_read_file(json_t **root, const char *path)
{
    struct gr_buffer bytes = {0};
    json_error_t error;
    gr_status status;

    *root = NULL;
    GR_TRY(gr_file_read(&bytes, path));
    hide_nul_in_keys(&bytes);
    /* Integers as reals would do for nothing but tokenizer_config.json, whose model_max_length does
     * not fit in 64 bits; ids are exact in a double, too. */
    *root = json_loadb(bytes.data, bytes.length,
                       JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
    if (*root == NULL)
        GR_TRY(gr_fail(GR_ERR_DATA, path, "the file may be cut off: copy it again",
                       "is not valid JSON: %s at line %d, column %d", error.text, error.line,
                       error.column));
    if (!json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        GR_TRY(gr_fail(GR_ERR_DATA, path, NULL, "does not hold a JSON object"));
    }
out:
    gr_buffer_release(&bytes);
    return status;
}

gr_status gr_json_wrong(const json_t *found, const char *key, const char *expected,
                        const char *place)
{
    char *text = found == NULL ? NULL : json_dumps(found, JSON_COMPACT | JSON_ENCODE_ANY);
    gr_status status = gr_fail(GR_ERR_DATA, place, "graft does not know this form of the file",
                               "%s is wrong (found %.100s, expected %s)", key,
                               found == NULL  ? "nothing"
                               : text == NULL ? "?"
                                              : text,
                               expected);

    free(text);
    return status;
}

gr_status gr_json_check_keys(const json_t *object, const char *const known[], const char *place)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value)
    {
        int64_t i = 0;

        while (known[i] != NULL && strcmp(known[i], key) != 0)
            i++;
        if (known[i] == NULL)
            return gr_fail(GR_ERR_DATA, place, "graft would have to know what it means to go on",
                           "option \"%s\" is not supported", key);
    }
    return GR_OK;
}

gr_status gr_json_get_text(const char **found, int64_t *length, const json_t *object,
                           const char *key, const char *place)
{
    const json_t *value = json_object_get(object, key);

    *found = NULL;
    *length = 0;
    if (value == NULL || json_is_null(value))
        return GR_OK;
    if (!json_is_string(value))
        return gr_json_wrong(value, key, "a text", place);
    *found = json_string_value(value);
    *length = (int64_t)json_string_length(value);
    return GR_OK;
}

gr_status gr_json_get_bool(bool *found, bool fallback, const json_t *object, const char *key,
                           const char *place)
{
    const json_t *value = json_object_get(object, key);

    *found = fallback;
    if (value == NULL || json_is_null(value))
        return GR_OK;
    if (!json_is_boolean(value))
        return gr_json_wrong(value, key, "true or false", place);
    *found = json_is_true(value);
    return GR_OK;
}

gr_status gr_json_get_id(int32_t *found, int64_t limit, const json_t *object, const char *key,
                         const char *place)
{
    const json_t *value = json_object_get(object, key);
    double number = json_number_value(value); /* 0 if it is none */

    if (!json_is_number(value) || !(number >= 0 && number < (double)limit) ||
        (double)(int32_t)number != number)
        return gr_json_wrong(value, key, "a token's id", place);
    *found = (int32_t)number;
    return GR_OK;
}
