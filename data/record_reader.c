/* Splitting files into records and parsing them.  See record_reader.h. */
#include "data/record_reader.h"

#include "data/json.h"
#include "kernels/base/alloc.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#define HINT_RECORD "every line must hold one whole object, such as {\"text\": \"...\"}"

/* The next byte, taken; EOF at the end. */
static int next_byte(struct gr_record_reader *reader)
{
    int byte;

    if (reader->at == reader->map.identity.bytes)
        return EOF;
    byte = reader->map.data[reader->at++];
    if (byte == '\n')
        reader->line++;
    return byte;
}

static void put_back(struct gr_record_reader *reader, int byte)
{
    if (byte == EOF)
        return;
    if (byte == '\n')
        reader->line--;
    reader->at--;
}

static bool is_blank(int byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* The next byte that is not white space, taken; EOF at the end. */
static int skip_blanks(struct gr_record_reader *reader)
{
    int byte;

    do
        byte = next_byte(reader);
    while (is_blank(byte));
    return byte;
}

/* `message` may say what `byte` was. */
static gr_status fail_at(const struct gr_record_reader *reader, int64_t line, const char *hint,
                         const char *message, int byte)
{
    char *place = gr_format("%s:%lld", reader->path, (long long)line);

    gr_fail(GR_ERR_DATA, place, hint, message, byte);
    gr_free(place);
    return GR_ERR_DATA;
}

/* Passes over U+FEFF, which some editors put first. */
static gr_status skip_mark(struct gr_record_reader *reader)
{
    int byte = next_byte(reader);

    if (byte != 0xef) {
        put_back(reader, byte);
        return GR_OK;
    }
    if (next_byte(reader) != 0xbb || next_byte(reader) != 0xbf)
        return gr_fail(GR_ERR_DATA, reader->path, "save the file as UTF-8",
                       "bad UTF-8 (found byte 0xef as byte 1 of the file, expected a character)");
    return GR_OK;
}

gr_status gr_record_reader_open(struct gr_record_reader *reader, const char *path)
{
    gr_status status = GR_OK;
    int byte;

    *reader = (struct gr_record_reader){.path = path, .line = 1};
    GR_TRY(gr_file_map_open(&reader->map, path));
    GR_TRY(skip_mark(reader));
    byte = skip_blanks(reader);
    reader->is_array = byte == '[';
    if (!reader->is_array)
        put_back(reader, byte);
out:
    if (status != GR_OK)
        gr_record_reader_close(reader);
    return status;
}

void gr_record_reader_close(struct gr_record_reader *reader)
{
    gr_file_map_close(&reader->map);
    memset(reader, 0, sizeof *reader);
}

void gr_record_reader_forget(struct gr_record_reader *reader)
{
    gr_file_map_forget(&reader->map, reader->kept, reader->at);
    reader->kept = reader->at;
}

static const char *bytes_at(const struct gr_record_reader *reader, int64_t at)
{
    return (const char *)reader->map.data + at;
}

/* The line's text; blank lines are passed over.  Empty at the end of the file. */
static void read_line(struct gr_record_reader *reader, struct gr_record_text *text)
{
    int64_t end = reader->map.identity.bytes;
    const char *newline;

    if (skip_blanks(reader) == EOF)
        return;
    text->line = reader->line;
    text->bytes = bytes_at(reader, --reader->at);
    newline = memchr(text->bytes, '\n', (size_t)(end - reader->at));
    text->length = newline == NULL ? end - reader->at : newline - text->bytes;
    reader->at += text->length + (newline != NULL);
    reader->line += newline != NULL;
}

/* The element's text: up to the comma or bracket that ends it, which is taken.  What is inside is
 * only looked at for where it ends (also where brackets do not match); parsing finds what is wrong
 * with it. */
static gr_status read_element(struct gr_record_reader *reader, struct gr_record_text *text)
{
    int depth = 0, byte = skip_blanks(reader);
    bool in_string = false, escaped = false;

    text->line = reader->line;
    text->bytes = byte == EOF ? NULL : bytes_at(reader, reader->at - 1);
    for (; byte != EOF && depth >= 0; byte = next_byte(reader)) {
        if (!in_string && depth == 0 && (byte == ',' || byte == ']'))
            break;
        text->length++;
        if (in_string) {
            in_string = escaped || byte != '"';
            escaped = !escaped && byte == '\\';
        } else {
            in_string = byte == '"';
            depth += byte == '{' || byte == '[';
            depth -= byte == '}' || byte == ']';
        }
    }
    reader->ended = byte == ']';
    if (byte == EOF)
        return fail_at(reader, text->line, "the file was cut off",
                       "broken JSON: the array that begins the file has no end", 0);
    if (text->length == 0 && !(reader->ended && reader->records == 0))
        return fail_at(reader, text->line, "mend the file",
                       "broken JSON (found '%c', expected an object)", byte);
    return GR_OK;
}

static gr_status check_rest(struct gr_record_reader *reader)
{
    int byte = skip_blanks(reader);

    if (byte == EOF)
        return GR_OK;
    return fail_at(reader, reader->line, "a file is one array, or one object per line",
                   "broken JSON: text after the end of the array (found '%c', expected nothing)",
                   byte);
}

gr_status gr_record_reader_next(struct gr_record_reader *reader, struct gr_record_text *text)
{
    gr_status status = GR_OK;

    *text = (struct gr_record_text){0};
    if (!reader->is_array)
        read_line(reader, text);
    else if (!reader->ended)
        GR_TRY(read_element(reader, text));
    if (reader->ended)
        GR_TRY(check_rest(reader));
    if (text->length == 0 && reader->records == 0)
        GR_TRY(gr_fail(GR_ERR_DATA, reader->path, HINT_RECORD,
                       "holds no record (found 0, expected at least 1)"));
    reader->records += text->length > 0;
out:
    return status;
}

static gr_status fail_utf8(const struct gr_record_text *text, const char *place)
{
    const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text->bytes;
    utf8proc_ssize_t length = (utf8proc_ssize_t)text->length, at = 0, step = 1;
    utf8proc_int32_t codepoint;

    while (at < length && step > 0) {
        step = utf8proc_iterate(bytes + at, length - at, &codepoint);
        at += step > 0 ? step : 0;
    }
    return gr_fail(GR_ERR_DATA, place, "save the file as UTF-8",
                   "bad UTF-8 (found byte 0x%02x as byte %lld of the record, expected a character)",
                   at < length ? bytes[at] : 0, (long long)at + 1);
}

/* Line and column of a JSON error are the record's; the place is the file's. */
static gr_status fail_json(const struct gr_record_reader *reader, const struct gr_record_text *text,
                           const json_error_t *error)
{
    const char *hint = reader->is_array ? "mend the file" : HINT_RECORD;

    if (gr_json_is_beyond(error))
        hint = "leave it out of the record, also where graft does not read its key";
    return gr_json_fail_syntax(reader->path, text->line, error, hint);
}

gr_status gr_record_parse(json_t **record, const struct gr_record_reader *reader,
                          const struct gr_record_text *text, const char *place)
{
    gr_status status = GR_OK;
    json_error_t error;

    *record = json_loadb(text->bytes, (size_t)text->length,
                         JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (*record == NULL)
        return json_error_code(&error) == json_error_invalid_utf8 ? fail_utf8(text, place)
                                                                  : fail_json(reader, text, &error);
    if (!json_is_object(*record)) {
        status = gr_fail(GR_ERR_DATA, place, HINT_RECORD,
                         "a record is not an object (found %s, expected an object)",
                         gr_json_type_name(*record));
        json_decref(*record);
        *record = NULL;
    }
    return status;
}
