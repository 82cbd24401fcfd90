/* graft tokenize: texts to ids and back, as training sees them. */
#include "launch/cmd.h"

#include "data/file_map.h"
#include "data/json.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HINT_IDS "every line is one list of ids, such as [1, 2]"

static const struct gr_option options[] = {
    {"model", 0, GR_OPTION_REQUIRED, "DIR", "Hugging Face model directory", 0, 0},
    {"jsonl", 0, GR_OPTION_FLAG, NULL, "one {\"text\": ...} per line; else FILE is one text", 0, 0},
    {"no-specials", 0, GR_OPTION_FLAG, NULL, "without the special tokens around a text", 0, 0},
    {"decode", 0, GR_OPTION_FLAG, NULL, "one JSON array of ids per line to texts", 0, 0},
    {0},
};

struct input {
    const struct gr_tokenizer *tokenizer;
    FILE *file;
    const char *name;
    int64_t line; /* 0: the file as a whole */
    bool specials;
};

/* The place of a failure inside a line is the line. */
static gr_status at_line(const struct input *in, gr_status status)
{
    struct gr_error error = gr_error_take();
    char *place =
        in->line == 0 ? gr_strdup(in->name) : gr_format("%s:%" PRId64, in->name, in->line);

    gr_fail(status, place, error.hint, "%s", error.message);
    gr_free(place);
    return status;
}

static gr_status encode(const struct input *in, const char *text, size_t length)
{
    struct gr_encoding encoding = {0};
    gr_status status;

    GR_TRY(gr_tokenizer_encode(in->tokenizer, &encoding, text, length, in->specials));
    for (int64_t i = 0; i < encoding.count; i++)
        printf("%s%" PRIu32, i == 0 ? "[" : ", ", encoding.ids[i]);
    puts(encoding.count == 0 ? "[]" : "]");
out:
    gr_encoding_release(&encoding);
    return status;
}

static gr_status encode_line(const struct input *in, const json_t *json)
{
    const json_t *text = json_object_get(json, "text");

    if (!json_is_string(text))
        return gr_fail(GR_ERR_DATA, NULL, "without --jsonl the file is one text",
                       "not a record (found %s, expected {\"text\": \"...\"})",
                       gr_json_type_name(json));
    return encode(in, json_string_value(text), json_string_length(text));
}

static gr_status decode_line(const struct input *in, const json_t *json)
{
    int64_t count = (int64_t)json_array_size(json);
    uint32_t *ids = GR_NEW_ARRAY(uint32_t, count + 1);
    struct gr_buffer text = {0};
    json_t *string = NULL;
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
    json_dumpf(string, stdout, JSON_ENCODE_ANY);
    puts("");
out:
    json_decref(string);
    gr_buffer_release(&text);
    gr_free(ids);
    return status;
}

static bool is_blank(const char *line)
{
    return line[strspn(line, " \t\r\n")] == '\0';
}

static gr_status run_lines(struct input *in,
                           gr_status (*run_line)(const struct input *in, const json_t *json))
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    gr_status status = GR_OK;

    while (status == GR_OK && (length = getline(&line, &capacity, in->file)) >= 0) {
        json_error_t error;
        json_t *json;

        in->line++;
        if (is_blank(line))
            continue;
        json = json_loadb(line, (size_t)length,
                          JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
        status = json == NULL ? gr_fail(GR_ERR_DATA, NULL, "every line must hold one JSON value",
                                        "broken JSON in column %d (%s)", error.column, error.text)
                              : run_line(in, json);
        json_decref(json);
        if (status != GR_OK)
            status = at_line(in, status);
    }
    free(line);
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
    struct gr_buffer text = {0};
    char block[1 << 16];
    size_t count;
    gr_status status;

    while ((count = fread(block, 1, sizeof block, in->file)) > 0)
        gr_buffer_add(&text, block, count);
    GR_TRY(check_read(in));
    status = encode(in, text.data == NULL ? "" : text.data, text.length);
    if (status != GR_OK)
        status = at_line(in, status);
out:
    gr_buffer_release(&text);
    return status;
}

static gr_status run_input(struct input *in, bool decode, bool lines)
{
    gr_status status;

    if (decode)
        GR_TRY(run_lines(in, decode_line));
    else if (lines)
        GR_TRY(run_lines(in, encode_line));
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
                       .specials = !gr_args_flag(args, "no-specials")};
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
    GR_TRY(run_input(&in, decode, lines));
out:
    if (in.file != NULL && in.file != stdin)
        fclose(in.file);
    gr_tokenizer_destroy(tokenizer);
    return status;
}

const struct gr_command gr_cmd_tokenize = {
    .name = "tokenize",
    .run = run,
    .usage = "--model DIR [--jsonl] [--no-specials] [--decode] [FILE|-]",
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
