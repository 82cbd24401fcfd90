/* Splitting files into records and parsing them.  See record_reader.h. */
#include "data/record_reader.h"

#include "data/file_map.h"
#include "data/json.h"
#include "kernels/base/alloc.h"

#include <errno.h>
#include <string.h>
#include <utf8proc.h>

#define HINT_RECORD "every line must hold one whole object, such as {\"text\": \"...\"}"

static int next_byte(struct gr_record_reader *reader)
{
    int byte = getc_unlocked(reader->file);

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
    ungetc(byte, reader->file);
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

static void set_place(struct gr_record_reader *reader, int64_t line)
{
    reader->record_line = line;
    gr_free(reader->place);
    reader->place = gr_format("%s:%lld", reader->path, (long long)line);
}

static gr_status check_read(struct gr_record_reader *reader)
{
    if (ferror(reader->file))
        return gr_fail(GR_ERR_DATA, reader->path, "is it a file?", "cannot be read (%s)",
                       strerror(errno));
    return GR_OK;
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

    *reader = (struct gr_record_reader){.path = path, .line = 1, .file = fopen(path, "rb")};
    if (reader->file == NULL)
        return gr_file_fail(path, "opened");
    GR_TRY(skip_mark(reader));
    byte = skip_blanks(reader);
    GR_TRY(check_read(reader));
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
    if (reader->file != NULL)
        fclose(reader->file);
    gr_buffer_release(&reader->text);
    gr_free(reader->place);
    memset(reader, 0, sizeof *reader);
}

/* The line's text; blank lines are passed over.  Empty at the end of the file. */
static void read_line(struct gr_record_reader *reader)
{
    int byte = skip_blanks(reader);

    set_place(reader, reader->line);
    for (; byte != EOF && byte != '\n'; byte = next_byte(reader)) {
        char c = (char)byte;

        gr_buffer_add(&reader->text, &c, 1);
    }
}

/* The element's text: up to the comma or bracket that ends it, which is taken.  What is inside is
 * only looked at for where it ends (also where brackets do not match); parsing finds what is wrong
 * with it. */
static gr_status read_element(struct gr_record_reader *reader)
{
    int depth = 0, byte = skip_blanks(reader);
    bool in_string = false, escaped = false;

    set_place(reader, reader->line);
    for (; byte != EOF && depth >= 0; byte = next_byte(reader)) {
        char c = (char)byte;

        if (!in_string && depth == 0 && (c == ',' || c == ']'))
            break;
        gr_buffer_add(&reader->text, &c, 1);
        if (in_string) {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else {
            in_string = c == '"';
            depth += c == '{' || c == '[';
            depth -= c == '}' || c == ']';
        }
    }
    reader->ended = byte == ']';
    if (byte == EOF)
        return gr_fail(GR_ERR_DATA, reader->place, "the file was cut off",
                       "broken JSON: the array that begins the file has no end");
    if (reader->text.length == 0 && !(reader->ended && reader->records == 0))
        return gr_fail(GR_ERR_DATA, reader->place, "mend the file",
                       "broken JSON (found '%c', expected an object)", byte);
    return GR_OK;
}

static gr_status check_rest(struct gr_record_reader *reader)
{
    int byte = skip_blanks(reader);

    if (byte == EOF)
        return GR_OK;
    set_place(reader, reader->line);
    return gr_fail(GR_ERR_DATA, reader->place, "a file is one array, or one object per line",
                   "broken JSON: text after the end of the array (found '%c', expected nothing)",
                   byte);
}

static gr_status fail_utf8(struct gr_record_reader *reader)
{
    const utf8proc_uint8_t *text = (const utf8proc_uint8_t *)reader->text.data;
    utf8proc_ssize_t length = (utf8proc_ssize_t)reader->text.length, at = 0, step = 1;
    utf8proc_int32_t codepoint;

    while (at < length && step > 0) {
        step = utf8proc_iterate(text + at, length - at, &codepoint);
        at += step > 0 ? step : 0;
    }
    return gr_fail(GR_ERR_DATA, reader->place, "save the file as UTF-8",
                   "bad UTF-8 (found byte 0x%02x as byte %lld of the record, expected a character)",
                   at < length ? text[at] : 0, (long long)at + 1);
}

/* Line and column of a JSON error are the record's; the place is the file's. */
static gr_status fail_json(struct gr_record_reader *reader, const json_error_t *error)
{
    return gr_json_fail_syntax(reader->path, reader->record_line, error,
                               reader->is_array ? "mend the file" : HINT_RECORD);
}

gr_status gr_record_reader_next(struct gr_record_reader *reader, json_t **record)
{
    gr_status status = GR_OK;
    json_error_t error;

    *record = NULL;
    gr_buffer_clear(&reader->text);
    if (!reader->is_array)
        read_line(reader);
    else if (!reader->ended)
        GR_TRY(read_element(reader));
    GR_TRY(check_read(reader));
    if (reader->ended)
        GR_TRY(check_rest(reader));
    if (reader->text.length == 0) {
        if (reader->records == 0)
            return gr_fail(GR_ERR_DATA, reader->path, HINT_RECORD,
                           "holds no record (found 0, expected at least 1)");
        return GR_OK;
    }
    *record = json_loadb(reader->text.data, reader->text.length,
                         JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (*record == NULL)
        return json_error_code(&error) == json_error_invalid_utf8 ? fail_utf8(reader)
                                                                  : fail_json(reader, &error);
    reader->records++;
    if (!json_is_object(*record)) {
        status = gr_fail(GR_ERR_DATA, reader->place, HINT_RECORD,
                         "a record is not an object (found %s, expected an object)",
                         gr_json_type_name(*record));
        json_decref(*record);
        *record = NULL;
    }
out:
    return status;
}
