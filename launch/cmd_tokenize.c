/* graft tokenize: texts to ids and back, as training sees them.  Lines are shared out among
 * threads, a batch at a time, and printed in their order. */
#include "launch/cmd.h"

#include "data/file_map.h"
#include "data/json.h"
#include "data/threads.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"
#include "trainer/run/device_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HINT_IDS "every line is one list of ids, such as [1, 2]"

static const struct gr_option options[] = {
    {"model", 0, GR_OPTION_REQUIRED, "DIR", "Hugging Face model directory", 0, 0},
    {"jsonl", 0, GR_OPTION_FLAG, NULL, "one {\"text\": ...} per line; else FILE is one text", 0, 0},
    {"no-specials", 0, GR_OPTION_FLAG, NULL, "without the special tokens around a text", 0, 0},
    {"decode", 0, GR_OPTION_FLAG, NULL, "one JSON array of ids per line to texts", 0, 0},
    {"threads", 0, GR_OPTION_INTEGER, "N", "that work on lines; default: the usable cores", 1,
     1024},
    {0},
};

/* A batch ends with the line that fills it. */
enum { BATCH_LINES_PER_THREAD = 256, BATCH_BYTES_PER_THREAD = 1 << 18 };

/* A line of the input, and what it becomes. */
struct line {
    char *text; /* of getline */
    size_t capacity;
    ssize_t length;
    int64_t number;
    struct gr_buffer out;
    gr_status status;
    struct gr_error *error; /* NULL: none */
};

struct input {
    const struct gr_tokenizer *tokenizer;
    FILE *file;
    const char *name;
    int64_t number; /* of the last line */
    bool specials;
    gr_status (*run_line)(const struct input *in, struct gr_buffer *out, const json_t *json);
    struct line *line; /* [most], the batch */
    int64_t count, most;
    int threads;
    _Atomic int64_t next; /* line that no thread has taken yet */
};

/* The place of a failure inside a line is the line; number 0: the file as a whole. */
static gr_status at_line(const struct input *in, int64_t number, gr_status status)
{
    struct gr_error error = gr_error_take();
    char *place = number == 0 ? gr_strdup(in->name) : gr_format("%s:%" PRId64, in->name, number);

    gr_fail(status, place, error.hint, "%s", error.message);
    gr_free(place);
    return status;
}

/* What printf would write, without the time it takes to find out what it should. */
static void add_number(struct gr_buffer *out, uint32_t number)
{
    char digits[10];
    size_t at = sizeof digits;

    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    gr_buffer_add(out, digits + at, sizeof digits - at);
}

static gr_status encode(const struct input *in, struct gr_buffer *out, const char *text,
                        size_t length)
{
    struct gr_encoding encoding = {0};
    gr_status status;

    GR_TRY(gr_tokenizer_encode(in->tokenizer, &encoding, text, length, in->specials));
    for (int64_t i = 0; i < encoding.count; i++) {
        gr_buffer_add(out, i == 0 ? "[" : ", ", i == 0 ? 1 : 2);
        add_number(out, encoding.ids[i]);
    }
    gr_buffer_add_text(out, encoding.count == 0 ? "[]\n" : "]\n");
out:
    gr_encoding_release(&encoding);
    return status;
}

static gr_status encode_line(const struct input *in, struct gr_buffer *out, const json_t *json)
{
    const json_t *text = json_object_get(json, "text");

    if (!json_is_string(text))
        return gr_fail(GR_ERR_DATA, NULL, "without --jsonl the file is one text",
                       "not a record (found %s, expected {\"text\": \"...\"})",
                       gr_json_type_name(json));
    return encode(in, out, json_string_value(text), json_string_length(text));
}

static gr_status decode_line(const struct input *in, struct gr_buffer *out, const json_t *json)
{
    int64_t count = (int64_t)json_array_size(json);
    uint32_t *ids = GR_NEW_ARRAY(uint32_t, count + 1);
    struct gr_buffer text = {0};
    json_t *string = NULL;
    char *written = NULL;
    gr_status status = GR_OK;

    for (int64_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(json, (size_t)i);
        json_int_t number = json_integer_value(id);

        if (!json_is_integer(id) || number < 0 || number > UINT32_MAX)
            GR_TRY(gr_fail(GR_ERR_DATA, NULL, HINT_IDS,
                           "element %" PRId64 " is not an id (found %s, expected an id)", i,
                           gr_json_type_name(id)));
        ids[i] = (uint32_t)number;
    }
    if (!json_is_array(json))
        GR_TRY(gr_fail(GR_ERR_DATA, NULL, HINT_IDS, "not ids (found %s, expected a list)",
                       gr_json_type_name(json)));
    GR_TRY(gr_tokenizer_decode(in->tokenizer, &text, ids, count, !in->specials));
    string = json_stringn(text.data, text.length);
    if (string == NULL)
        GR_TRY(gr_fail(GR_ERR_DATA, NULL, "the ids may end inside a character",
                       "the ids do not make a text (found other bytes, expected UTF-8)"));
    written = json_dumps(string, JSON_ENCODE_ANY);
    gr_buffer_add_text(out, written);
    gr_buffer_add_text(out, "\n");
out:
    free(written);
    json_decref(string);
    gr_buffer_release(&text);
    gr_free(ids);
    return status;
}

static bool is_blank(const char *line)
{
    return line[strspn(line, " \t\r\n")] == '\0';
}

static gr_status run_one(const struct input *in, struct line *line)
{
    gr_status status;
    char reason[GR_JSON_REASON_BYTES];
    json_error_t error;
    json_t *json;

    if (is_blank(line->text))
        return GR_OK;
    json = json_loadb(line->text, (size_t)line->length,
                      JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (json == NULL) {
        gr_json_describe(reason, &error);
        return gr_fail(GR_ERR_DATA, NULL,
                       gr_json_is_beyond(&error) ? "leave it out of the line"
                                                 : "every line must hold one JSON value",
                       "%s", reason);
    }
    status = in->run_line(in, &line->out, json);
    json_decref(json);
    return status;
}

static void run_some(void *context)
{
    struct input *in = context;
    int64_t i;

    while ((i = atomic_fetch_add(&in->next, 1)) < in->count) {
        struct line *line = &in->line[i];

        line->status = run_one(in, line);
        if (line->status == GR_OK)
            continue;
        at_line(in, line->number, line->status);
        line->error = GR_NEW(struct gr_error);
        *line->error = gr_error_take();
    }
}

/* The next lines; none at the end. */
static void fill(struct input *in)
{
    int64_t bytes = 0;

    for (in->count = 0; in->count < in->most && bytes < in->threads * BATCH_BYTES_PER_THREAD;) {
        struct line *line = &in->line[in->count];

        gr_buffer_clear(&line->out);
        line->length = getline(&line->text, &line->capacity, in->file);
        if (line->length < 0)
            break;
        line->number = ++in->number;
        bytes += line->length;
        in->count++;
    }
}

static gr_status print_batch(const struct input *in)
{
    for (int64_t i = 0; i < in->count; i++) {
        const struct line *line = &in->line[i];

        if (line->status != GR_OK) {
            gr_error_put(line->error);
            return line->status;
        }
        if (line->out.length > 0)
            fwrite(line->out.data, 1, line->out.length, stdout);
    }
    return GR_OK;
}

static gr_status run_lines(struct input *in)
{
    gr_status status = GR_OK;

    in->most = (int64_t)in->threads * BATCH_LINES_PER_THREAD;
    in->line = GR_NEW_ARRAY(struct line, in->most);
    do {
        fill(in);
        atomic_store(&in->next, 0);
        gr_run_threads(in->count < in->threads ? (int)in->count + 1 : in->threads, run_some, in);
        GR_TRY(print_batch(in));
    } while (in->count > 0);
out:
    for (int64_t i = 0; i < in->most; i++) {
        free(in->line[i].text);
        gr_buffer_release(&in->line[i].out);
        gr_free(in->line[i].error);
    }
    gr_free(in->line);
    return status;
}

static gr_status check_read(const struct input *in)
{
    if (ferror(in->file))
        return gr_fail(GR_ERR_DATA, in->name, "is it a file?", "cannot be read (%s)",
                       strerror(errno));
    return GR_OK;
}

static gr_status run_whole(const struct input *in)
{
    struct gr_buffer text = {0}, ids = {0};
    char block[1 << 16];
    size_t count;
    gr_status status;

    while ((count = fread(block, 1, sizeof block, in->file)) > 0)
        gr_buffer_add(&text, block, count);
    GR_TRY(check_read(in));
    status = encode(in, &ids, text.data == NULL ? "" : text.data, text.length);
    if (status != GR_OK)
        status = at_line(in, 0, status);
    else
        fwrite(ids.data, 1, ids.length, stdout);
out:
    gr_buffer_release(&text);
    gr_buffer_release(&ids);
    return status;
}

static gr_status run_input(struct input *in)
{
    gr_status status;

    if (in->run_line != NULL)
        GR_TRY(run_lines(in));
    else
        GR_TRY(run_whole(in));
    GR_TRY(check_read(in));
    if (fflush(stdout) != 0)
        GR_TRY(gr_fail(GR_ERR_USAGE, "stdout", "is the disk full?", "cannot be written (%s)",
                       strerror(errno)));
out:
    return status;
}

static gr_status run(const struct gr_args *args)
{
    const char *name = gr_args_positional(args, 0);
    bool decode = gr_args_flag(args, "decode"), lines = gr_args_flag(args, "jsonl");
    bool from_stdin = name == NULL || strcmp(name, "-") == 0;
    struct gr_tokenizer *tokenizer = NULL;
    struct input in = {.name = from_stdin ? "stdin" : name,
                       .file = stdin,
                       .specials = !gr_args_flag(args, "no-specials"),
                       .run_line = decode  ? decode_line
                                   : lines ? encode_line
                                           : NULL,
                       .threads = (int)gr_args_integer(args, "threads", gr_usable_cores())};
    gr_status status;

    if (decode && lines)
        GR_TRY(gr_fail(GR_ERR_USAGE, "--jsonl", "leave it out: --decode reads lines",
                       "is for texts, not for ids"));
    GR_TRY(gr_tokenizer_create(&tokenizer, gr_args_text(args, "model")));
    in.tokenizer = tokenizer;
    if (!from_stdin)
        in.file = fopen(name, "rb");
    if (in.file == NULL)
        GR_TRY(gr_file_fail(name, "opened"));
    GR_TRY(run_input(&in));
out:
    if (in.file != NULL && in.file != stdin)
        fclose(in.file);
    gr_tokenizer_destroy(tokenizer);
    return status;
}

const struct gr_command gr_cmd_tokenize = {
    .name = "tokenize",
    .run = run,
    .usage = "--model DIR [--jsonl] [--no-specials] [--decode] [--threads N] [FILE|-]",
    .summary = "texts to ids, or ids to texts",
    .details =
        "Prints one JSON array of ids for each text, with the special tokens that the model's own\n"
        "post-processor adds; with --decode, one JSON string for each array of ids.  Without "
        "FILE,\n"
        "or with -, it reads standard input.",
    .options = options,
    .is_alone = true,
    .most_positionals = 1,
};
