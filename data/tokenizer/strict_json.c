/* Reading JSON files of tokenizers.  See strict_json.h. */
#include "data/tokenizer/strict_json.h"

#include "data/file_map.h"
#include "data/tokenizer/vocab.h"
#include "kernels/base/alloc.h"

#include <string.h>

static const char escaped_nul[] = "\\u0000";
enum { ESCAPED_NUL_BYTES = sizeof escaped_nul - 1 };

/* The position behind the string that opens at `i`. */
static size_t string_end(const char *json, size_t length, size_t i)
{
    for (i++; i < length && json[i] != '"'; i++) {
        if (json[i] == '\\')
            i++;
    }
    return i + 1 < length ? i + 1 : length;
}

static bool is_key(const char *json, size_t length, size_t behind)
{
    while (behind < length && memchr(" \t\r\n", json[behind], 4) != NULL)
        behind++;
    return behind < length && json[behind] == ':';
}

static void add_key(struct gr_buffer *out, const char *json, size_t begin, size_t end)
{
    for (size_t i = begin, count; i < end; i += count) {
        if (end - i > ESCAPED_NUL_BYTES && memcmp(json + i, escaped_nul, ESCAPED_NUL_BYTES) == 0) {
            gr_buffer_add_text(out, GR_JSON_NUL);
            count = ESCAPED_NUL_BYTES;
        } else {
            count = json[i] == '\\' ? 2 : 1; /* the backslash of \\u0000 is no escape of NUL */
            gr_buffer_add(out, json + i, count);
        }
    }
}

/* The file with every NUL in a key replaced; strings that are values stay. */
static void hide_nul_in_keys(struct gr_buffer *out, const char *json, size_t length)
{
    size_t end;

    for (size_t i = 0; i < length; i = end) {
        end = json[i] == '"' ? string_end(json, length, i) : i + 1;
        if (json[i] == '"' && is_key(json, length, end))
            add_key(out, json, i, end);
        else
            gr_buffer_add(out, json + i, end - i);
    }
}

void gr_json_key(struct gr_buffer *text, const char *key)
{
    const char *nul;

    gr_buffer_clear(text);
    while ((nul = strstr(key, GR_JSON_NUL)) != NULL) {
        gr_buffer_add(text, key, (size_t)(nul - key));
        gr_buffer_add(text, "", 1);
        key = nul + sizeof GR_JSON_NUL - 1;
    }
    gr_buffer_add_text(text, key);
}

static gr_status parse(struct gr_json *json, const char *path, const char *bytes, size_t length,
                       size_t flags)
{
    json_error_t error;

    json->place = gr_strdup(path);
    json->value = json_loadb(bytes, length, JSON_REJECT_DUPLICATES | flags, &error);
    if (json->value == NULL)
        return gr_json_fail_syntax(path, 1, &error, "the file may be cut off: fetch it again");
    if (!json_is_object(json->value))
        return gr_json_wrong(json, "the file", json->value, "an object");
    return GR_OK;
}

static gr_status load(struct gr_json *json, const char *path, size_t flags)
{
    struct gr_file_map map = {0};
    struct gr_buffer hidden = {0};
    const char *bytes;
    size_t length;
    gr_status status;

    memset(json, 0, sizeof *json);
    GR_TRY(gr_file_map_open(&map, path));
    bytes = map.data == NULL ? "" : (const char *)map.data;
    length = (size_t)map.identity.bytes;
    if (memmem(bytes, length, escaped_nul, ESCAPED_NUL_BYTES) != NULL) {
        hide_nul_in_keys(&hidden, bytes, length);
        bytes = hidden.data;
        length = hidden.length;
    }
    GR_TRY(parse(json, path, bytes, length, flags));
out:
    gr_buffer_release(&hidden);
    gr_file_map_close(&map);
    return status;
}

gr_status gr_json_load_vocab(struct gr_json *json, const char *path)
{
    return load(json, path, JSON_ALLOW_NUL);
}

gr_status gr_json_load_reals(struct gr_json *json, const char *path)
{
    return load(json, path, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL);
}

gr_status gr_json_wrong(const struct gr_json *json, const char *key, const json_t *found,
                        const char *expected)
{
    char *text = found == NULL ? NULL : json_dumps(found, JSON_COMPACT | JSON_ENCODE_ANY);
    gr_status status =
        gr_fail(GR_ERR_DATA, json->place, "graft does not know this form of the file",
                "%s (found %.100s, expected %s)", key, text == NULL ? "nothing" : text, expected);

    free(text);
    return status;
}

gr_status gr_json_check_keys(const struct gr_json *json, const char *const known[])
{
    const char *key;
    json_t *value;

    json_object_foreach(json->value, key, value)
    {
        int64_t i = 0;

        while (known[i] != NULL && strcmp(known[i], key) != 0)
            i++;
        if (known[i] == NULL)
            return gr_fail(GR_ERR_DATA, json->place,
                           "graft would have to know what it means to go on",
                           "option \"%s\" is not supported", key);
    }
    return GR_OK;
}

gr_status gr_json_id(int32_t *id, const struct gr_json *json, const char *key)
{
    int64_t number = 0;
    gr_status status;

    GR_TRY(gr_json_need(json, key));
    GR_TRY(gr_json_int(&number, json, key, 0, GR_VOCAB_ID_LIMIT - 1));
    *id = (int32_t)number;
out:
    return status;
}
