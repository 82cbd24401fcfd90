/* Data files to documents: with a tokenizer of one token per byte, made here, where the bytes
 * count; with real ones on real conversations where the fixtures are. */
#include "data/loader.h"
#include "data/records.h"
#include "data/show.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

enum { BOS = 256, EOS, IM_START, IM_END };

static const char chatml_template[] =
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/* A folder with a tokenizer and a data file; everything goes when the test ends well. */
struct place {
    char folder[64];
    char *data;
    struct gr_tokenizer *tokenizer;
    struct gr_documents documents;
    struct gr_records_options options;
};

static char *path_in(const struct place *p, const char *name)
{
    return gr_format("%s/%s", p->folder, name);
}

static void write_json(const struct place *p, const char *name, json_t *json)
{
    char *path = path_in(p, name);

    ASSERT(json != NULL);
    ASSERT_INT(json_dump_file(json, path, 0), 0);
    json_decref(json);
    gr_free(path);
}

/* Token id = byte, in the alphabet byte-level tokenizers write bytes in; then the special tokens.
 */
static json_t *byte_vocabulary(void)
{
    json_t *vocab = json_object();
    int next = 256;

    for (int byte = 0; byte < 256; byte++) {
        bool plain = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
        int code = plain ? byte : next++;
        char utf8[3] = {(char)code, 0, 0};

        if (code >= 0x80) {
            utf8[0] = (char)(0xc0 | code >> 6);
            utf8[1] = (char)(0x80 | (code & 0x3f));
        }
        json_object_set_new(vocab, utf8, json_integer(byte));
    }
    return vocab;
}

static json_t *special_token(int id, const char *content)
{
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", content,
                     "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
}

static void write_tokenizer(const struct place *p, bool with_template)
{
    json_t *specials =
        json_pack("[o, o, o, o]", special_token(BOS, "<s>"), special_token(EOS, "</s>"),
                  special_token(IM_START, "<|im_start|>"), special_token(IM_END, "<|im_end|>"));
    json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 0, "use_regex", 1);
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:[]}", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                  "byte_fallback", 0, "ignore_merges", 0, "vocab", byte_vocabulary(), "merges");
    json_t *bos = json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", "<s>", "type_id", 0);
    json_t *text = json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0);
    json_t *post = json_pack("{s:s, s:[O, O], s:[o, o], s:{s:{s:s, s:[i], s:[s]}}}", "type",
                             "TemplateProcessing", "single", bos, text, "pair", bos, text,
                             "special_tokens", "<s>", "id", "<s>", "ids", BOS, "tokens", "<s>");

    write_json(p, "tokenizer.json",
               json_pack("{s:s, s:n, s:n, s:o, s:n, s:O, s:o, s:o, s:o}", "version", "1.0",
                         "truncation", "padding", "added_tokens", specials, "normalizer",
                         "pre_tokenizer", bytes, "post_processor", post, "decoder", bytes, "model",
                         model));
    write_json(p, "tokenizer_config.json",
               json_pack("{s:s, s:s, s:s*}", "bos_token", "<s>", "eos_token", "</s>",
                         "chat_template", with_template ? chatml_template : NULL));
}

static void begin(struct place *p)
{
    *p = (struct place){.folder = "/tmp/graft-test-records-XXXXXX",
                        .options = {.format = "auto",
                                    .chat_format = "auto",
                                    .too_long = "truncate",
                                    .loss_on = "assistant",
                                    .max_length = 2048,
                                    .fallback_eos = -1}};
    gr_log_speaks(false);
    ASSERT(mkdtemp(p->folder) != NULL);
    p->data = path_in(p, "data.jsonl");
    write_tokenizer(p, true);
    ASSERT_OK(gr_tokenizer_create(&p->tokenizer, p->folder));
}

static void end(struct place *p)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "data.jsonl"};

    for (int i = 0; i < 3; i++) {
        char *path = path_in(p, names[i]);

        unlink(path);
        gr_free(path);
    }
    rmdir(p->folder);
    gr_documents_release(&p->documents);
    gr_tokenizer_destroy(p->tokenizer);
    gr_free(p->data);
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");

    ASSERT(file != NULL);
    ASSERT(fputs(text, file) >= 0);
    fclose(file);
}

/* Reads `text` as the data file; documents of an earlier reading are gone. */
static gr_status read_data(struct place *p, const char *text)
{
    write_text(p->data, text);
    gr_documents_release(&p->documents);
    return gr_records_read(&p->documents, p->tokenizer, (const char *const *)&p->data, 1,
                           &p->options);
}

/* A document is written with its supervised tokens in [[ ]]. */
static void assert_shown(const struct place *p, int64_t number, const char *expected)
{
    struct gr_buffer text = {0};

    ASSERT_OK(gr_show_document(&text, p->tokenizer, &p->documents, number, GR_SHOW_BRACKETS));
    ASSERT_TEXT(text.data, expected);
    gr_buffer_release(&text);
}

TEST(records_text_is_supervised_whole_and_ends_with_eos)
{
    struct place p;

    begin(&p);
    ASSERT_OK(read_data(&p, "{\"text\": \"h\xc3\xa9!\"}\n{\"text\": \"done</s>\"}\n"));
    ASSERT_INT(p.documents.count, 2);
    assert_shown(&p, 0, "<s>[[h\xc3\xa9!</s>]]");
    assert_shown(&p, 1, "<s>[[done</s>]]");
    ASSERT_INT(p.documents.tokens[0], BOS);
    ASSERT_INT(p.documents.token_count, 6 + 6);
    ASSERT_INT(p.documents.supervised_count, 5 + 5);
    end(&p);
}

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"\"},"
    " {\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \" b\\n\"},"
    " {\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": \"d\"}]}\n";

TEST(records_loss_on_selects_the_turns)
{
    static const struct {
        const char *loss_on, *shown;
    } cases[] = {
        {"assistant", "<|im_start|>system\n<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
                      "<|im_start|>assistant\n[[ b\n<|im_end|>]]\n"
                      "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[[d<|im_end|>]]\n"},
        {"last_turn", "<|im_start|>system\n<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
                      "<|im_start|>assistant\n b\n<|im_end|>\n"
                      "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[[d<|im_end|>]]\n"},
        {"all", "<|im_start|>[[system\n<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
                "<|im_start|>assistant\n b\n<|im_end|>\n"
                "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n]]"},
    };
    struct place p;

    begin(&p);
    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        p.options.loss_on = cases[i].loss_on;
        ASSERT_OK(read_data(&p, conversation));
        ASSERT_INT(p.documents.count, 1);
        assert_shown(&p, 0, cases[i].shown);
    }
    end(&p);
}

TEST(records_completion_and_eos_are_supervised_and_the_prompt_is_not)
{
    struct place p;

    begin(&p);
    ASSERT_OK(read_data(&p, "{\"prompt\": \"1+1=\", \"completion\": \"2\"}\n"
                            "{\"prompt\": \"\", \"completion\": \"all</s>\"}\n"
                            "{\"prompt\": \"none\", \"completion\": \"\"}\n"));
    ASSERT_INT(p.documents.count, 3);
    assert_shown(&p, 0, "<s>1+1=[[2</s>]]");
    assert_shown(&p, 1, "<s>[[all</s>]]");
    assert_shown(&p, 2, "<s>none[[</s>]]");
    end(&p);
}

TEST(records_alpaca_writes_the_stanford_prompt)
{
    static const char expected_head[] =
        "<s>Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n[[3</s>]]";
    static const char expected_bare[] =
        "<s>Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nHi\n\n### Response:\n[[Yo</s>]]";
    struct place p;

    begin(&p);
    ASSERT_OK(read_data(&p, "{\"instruction\": \"Add\", \"input\": \"1 2\", \"output\": \"3\"}\n"
                            "{\"instruction\": \"Hi\", \"input\": \"\", \"output\": \"Yo\"}\n"
                            "{\"instruction\": \"Hi\", \"output\": \"Yo\"}\n"));
    assert_shown(&p, 0, expected_head);
    assert_shown(&p, 1, expected_bare);
    assert_shown(&p, 2, expected_bare);
    end(&p);
}

TEST(records_array_bom_blank_lines_and_crlf_read_as_plain_lines)
{
    static const char *const same[] = {
        "{\"text\": \"one]\"}\n{\"text\": \"t{o\\\"\\\\\"}\n",
        "{\"text\": \"one]\"}\n{\"text\": \"t{o\\\"\\\\\"}",
        "\n \t\n{\"text\": \"one]\"}\r\n\r\n{\"text\": \"t{o\\\"\\\\\"}\r\n\n",
        "\xef\xbb\xbf{\"text\": \"one]\"}\n{\"text\": \"t{o\\\"\\\\\"}\n",
        "[{\"text\": \"one]\"}, {\"text\": \"t{o\\\"\\\\\"}]",
        "\n[\n  {\n    \"text\":\n \"one]\"\n  }\n,{\"text\": \"t{o\\\"\\\\\"}\n]\n\n",
    };
    struct place p;

    begin(&p);
    for (int64_t i = 0; i < GR_COUNT(same); i++) {
        ASSERT_OK(read_data(&p, same[i]));
        ASSERT_INT(p.documents.count, 2);
        assert_shown(&p, 0, "<s>[[one]</s>]]");
        assert_shown(&p, 1, "<s>[[t{o\"\\</s>]]");
    }
    end(&p);
}

TEST(records_too_long_is_cut_dropped_or_refused)
{
    static const char data[] = "{\"prompt\": \"1234\", \"completion\": \"56\"}\n" /* 8 tokens */
                               "{\"prompt\": \"1234\", \"completion\": \"567\"}\n"
                               "{\"prompt\": \"12345678\", \"completion\": \"9\"}\n";
    struct place p;

    begin(&p);
    p.options.max_length = 8;
    ASSERT_OK(read_data(&p, data));
    ASSERT_INT(p.documents.count, 2);
    ASSERT_INT(p.documents.truncated_count, 1);
    ASSERT_INT(p.documents.dropped_count, 1); /* nothing of its completion is left */
    assert_shown(&p, 0, "<s>1234[[56</s>]]");
    assert_shown(&p, 1, "<s>1234[[567]]");
    p.options.too_long = "drop";
    ASSERT_OK(read_data(&p, data));
    ASSERT_INT(p.documents.count, 1);
    ASSERT_INT(p.documents.truncated_count, 0);
    ASSERT_INT(p.documents.dropped_count, 2);
    p.options.too_long = "error";
    ASSERT_INT(read_data(&p, data), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "data.jsonl:2: the record is too long (found 9 tokens, "
                                      "expected at most 8)") != NULL);
    gr_error_clear();
    p.options.too_long = "truncate";
    p.options.max_length = 1; /* a document's first token is never a target */
    ASSERT_INT(read_data(&p, "{\"text\": \"a\"}\n"), GR_ERR_DATA);
    ASSERT_INT(p.documents.dropped_count, 1);
    end(&p);
}

TEST(records_files_are_numbered_counted_and_may_differ_in_format)
{
    struct place p;
    const char *files[2];
    char *other;

    begin(&p);
    other = path_in(&p, "other.json");
    write_text(other, conversation);
    write_text(p.data,
               "{\"text\": \"x\", \"id\": 7}\n"
               "{\"text\": \"0123456789012345678901234567890123456789012345678901234567\"}\n");
    files[0] = p.data;
    files[1] = other;
    p.options.max_length = 58; /* as many as the conversation has; the second text has 60 */
    p.options.too_long = "drop";
    ASSERT_OK(gr_records_read(&p.documents, p.tokenizer, files, 2, &p.options));
    ASSERT_INT(p.documents.count, 2);
    ASSERT_INT(p.documents.dropped_count, 1);
    ASSERT_INT(p.documents.document[0].source, 0);
    ASSERT_INT(p.documents.document[1].source, 1);
    ASSERT_INT(p.documents.document[1].length, 58);
    unlink(other);
    gr_free(other);
    end(&p);
}

/* Data, and the message after FILE; format and chat_format as in the options. */
static const struct {
    const char *name, *data, *format, *error;
} bad[] = {
    {"empty file", "", "auto", ": holds no record (found 0, expected at least 1)"},
    {"blank lines only", "\n \n\n", "auto", ": holds no record (found 0, expected at least 1)"},
    {"empty array", "[ ]", "auto", ": holds no record (found 0, expected at least 1)"},
    {"broken line", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"\n{\"text\": \"d\"}\n",
     "auto", ":3: broken JSON in column 12 ('}' expected near end of file)"},
    {"text after the object", "{\"text\": \"a\"} x\n", "auto",
     ":1: broken JSON in column 15 (end of file expected near 'x')"},
    {"key twice", "{\"text\": \"a\", \"text\": \"b\"}\n", "auto",
     ":1: broken JSON in column 20 (duplicate object key near '\"text\"')"},
    {"bad UTF-8", "\n{\"text\": \"a\xff\"}\n", "auto",
     ":2: bad UTF-8 (found byte 0xff as byte 12 of the record)"},
    {"Latin-1 at the start",
     "\xef"
     "a\n",
     "auto", ": bad UTF-8 (found byte 0xef as byte 1 of the file)"},
    {"line that is no object", "{\"text\": \"a\"}\n\"b\"\n", "auto",
     ":2: a record is not an object (found a string, expected an object)"},
    {"array cut off", "[{\"text\": \"a\"},\n{\"text\": ", "auto",
     ":2: broken JSON: the array that begins the file has no end"},
    {"array broken inside", "[{\"text\": \"a\"},\n\n{\n\"text\": ]}]", "auto",
     ":4: broken JSON in column 9 (unexpected token near ']')"},
    {"array with a comma too many", "[{\"text\": \"a\"},\n]", "auto",
     ":2: broken JSON (found ']', expected an object)"},
    {"text after the array", "[{\"text\": \"a\"}]\n{\"text\": \"b\"}", "auto",
     ":2: broken JSON: text after the end of the array (found '{', expected nothing)"},
    {"keys of no format", "{\"question\": \"a\", \"answer\": \"b\"}\n", "auto",
     ":1: no format has these keys (found question, answer; expected text, or messages, or prompt "
     "and completion, or instruction and output)"},
    {"keys of two formats", "{\"text\": \"a\", \"instruction\": \"b\", \"output\": \"c\"}\n",
     "auto",
     ":1: more than one format has these keys (found text, instruction, output, which fits text "
     "and alpaca)"},
    {"key missing later", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "auto",
     ":2: key text is missing for format text (found txt)"},
    {"format asked for is not there", "{\"text\": \"a\"}\n", "messages",
     ":1: key messages is missing for format messages (found text)"},
    {"text is a number", "{\"text\": 1}\n", "auto",
     ":1: text is not text (found a number, expected a string)"},
    {"no messages", "{\"messages\": []}\n", "auto",
     ":1: messages holds no message (found an empty array, expected an array of messages)"},
    {"messages is a string", "{\"messages\": \"hi\"}\n", "auto",
     ":1: messages holds no message (found a string, expected an array of messages)"},
    {"message is a string", "{\"messages\": [\"hi\"]}\n", "auto",
     ":1: messages[0] is not a message (found a string, expected an object with role and "
     "content)"},
    {"unknown role", "{\"messages\": [{\"role\": \"human\", \"content\": \"a\"}]}\n", "auto",
     ":1: messages[0].role is unknown (found human, expected system, user or assistant)"},
    {"no role", "{\"messages\": [{\"from\": \"human\", \"value\": \"a\"}]}\n", "auto",
     ":1: messages[0].role is not text (found nothing, expected a string)"},
    {"content in parts",
     "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
     "\"content\": [{\"type\": \"text\"}]}]}\n",
     "auto", ":1: messages[1].content is not text (found an array, expected a string)"},
    {"empty content", "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}\n", "auto",
     ":1: messages[0].content is empty (found a user turn without text)"},
    {"tool calls",
     "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"tool_calls\": [1]}]}\n",
     "auto", ":1: messages[0].tool_calls is not supported (found an array)"},
    {"tools", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": [{}]}\n",
     "auto", ":1: tools is not supported (found an array)"},
    {"BOS in the data", "{\"text\": \"<s>a\"}\n", "auto",
     ":1: two BOS tokens in a row (found <s> twice at token 0)"},
    {"nobody answers", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n", "auto",
     ": nothing to learn: no token is supervised (found none of role assistant in the first 2048 "
     "tokens of 1 records, format messages)"},
};

TEST(records_bad_data_is_refused_naming_file_line_and_key)
{
    struct place p;

    begin(&p);
    for (int64_t i = 0; i < GR_COUNT(bad); i++) {
        char *expected = gr_format("%s%s", p.data, bad[i].error);

        p.options.format = bad[i].format;
        ASSERT_MSG(read_data(&p, bad[i].data) == GR_ERR_DATA, "%s: was taken", bad[i].name);
        ASSERT_TEXT(gr_error_message(), expected);
        gr_error_clear();
        gr_free(expected);
    }
    end(&p);
}

TEST(records_empty_values_of_refused_keys_pass)
{
    struct place p;

    begin(&p);
    ASSERT_OK(read_data(&p, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
                            " {\"role\": \"assistant\", \"content\": \"b\", \"tool_calls\": null}],"
                            " \"tools\": [], \"id\": 1}\n"));
    ASSERT_INT(p.documents.count, 1);
    end(&p);
}

TEST(records_unknown_options_and_missing_files_are_refused)
{
    struct place p;
    const char *missing = "/nonexistent/data.jsonl";

    begin(&p);
    p.options.too_long = "cut";
    ASSERT_INT(read_data(&p, "{\"text\": \"a\"}\n"), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(), "data.too_long: unknown value (found cut, expected one of "
                                    "truncate, drop, error)");
    gr_error_clear();
    p.options.too_long = "drop";
    p.options.loss_on = "user";
    ASSERT_INT(read_data(&p, "{\"text\": \"a\"}\n"), GR_ERR_USAGE);
    gr_error_clear();
    p.options.loss_on = "all";
    p.options.format = "csv";
    ASSERT_INT(read_data(&p, "{\"text\": \"a\"}\n"), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_hint(), "one of: auto, text, messages, prompt_completion, alpaca");
    gr_error_clear();
    p.options.format = "auto";
    ASSERT_INT(gr_records_read(&p.documents, p.tokenizer, &missing, 1, &p.options),
               GR_ERR_NOT_FOUND);
    ASSERT_TEXT(gr_error_message(),
                "/nonexistent/data.jsonl: cannot be opened (No such file or directory)");
    end(&p);
}

TEST(records_eos_of_the_configuration_is_the_fallback)
{
    struct place p;
    struct gr_tokenizer *bare = NULL;
    const struct gr_document *d;

    begin(&p);
    write_json(&p, "tokenizer_config.json", json_pack("{s:s}", "bos_token", "<s>"));
    ASSERT_OK(gr_tokenizer_create(&bare, p.folder));
    gr_tokenizer_destroy(p.tokenizer);
    p.tokenizer = bare;
    ASSERT_INT(read_data(&p, "{\"text\": \"a\"}\n"), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "tokenizer_config.json: the model has no EOS, which ends a "
                                    "document of format text");
    gr_error_clear();
    p.options.fallback_eos = IM_END;
    ASSERT_OK(read_data(&p, "{\"text\": \"a\"}\n"));
    d = &p.documents.document[0];
    ASSERT_INT(p.documents.tokens[d->offset + d->length - 1], IM_END);
    end(&p);
}

/* A file of 20 MB and few tokens: what is kept is the tokens. */
TEST(records_long_lines_do_not_stay_in_memory)
{
    enum { LINES = 40, LINE = 500000 };
    struct place p;
    char *line = gr_alloc(LINE + 32, 1);
    FILE *file;
    const char *files[1];

    begin(&p);
    p.options.max_length = 16;
    file = fopen(p.data, "wb");
    ASSERT(file != NULL);
    memset(line, ' ', LINE);
    for (int i = 0; i < LINES; i++)
        fprintf(file, "{%.*s\"text\": \"abc\"}\n", LINE, line);
    fclose(file);
    files[0] = p.data;
    ASSERT_OK(gr_records_read(&p.documents, p.tokenizer, files, 1, &p.options));
    ASSERT_INT(p.documents.count, LINES);
    ASSERT_INT(p.documents.token_count, LINES * 5);
    gr_free(line);
    end(&p);
}

TEST(show_first_pack_names_documents_and_marks_text)
{
    struct place p;
    struct gr_loader *loader = NULL;
    struct gr_batch batch;
    struct gr_buffer text = {0};
    struct gr_loader_options options = {.max_length = 16,
                                        .micro_batch_size = 2,
                                        .micro_batches = 1,
                                        .num_train_epochs = 1,
                                        .packing = true};

    begin(&p);
    ASSERT_OK(read_data(&p, "{\"prompt\": \"1+1=\", \"completion\": \"\xe2\x82\xac\"}\n"
                            "{\"prompt\": \"\\u001b\", \"completion\": \"\\u009b\"}\n"
                            "{\"prompt\": \"next pack\", \"completion\": \"x\"}\n"));
    ASSERT_OK(gr_loader_create(&loader, &p.documents, &options));
    ASSERT_OK(gr_batch_init(&batch, loader));
    gr_loader_fill(loader, &batch, 1, 0);
    ASSERT_INT(batch.doc_count, 3);
    ASSERT_OK(gr_show_first_pack(&text, p.tokenizer, &batch, 2, GR_SHOW_BRACKETS));
    ASSERT_TEXT(text.data, "-- document 1: 9 tokens, 4 supervised\n"
                           "<s>1+1=[[\xe2\x82\xac</s>]]\n"
                           "-- document 2: 5 tokens, 3 supervised\n"
                           "<s>\\x1b[[\\x9b</s>]]\n");
    gr_buffer_clear(&text);
    ASSERT_OK(gr_show_document(&text, p.tokenizer, &p.documents, 0, GR_SHOW_COLOURS));
    ASSERT_TEXT(text.data, "\x1b[2m<s>1+1=\x1b[0m\x1b[32m\xe2\x82\xac</s>\x1b[0m");
    /* a label in the middle of a character moves to the whole of it */
    p.documents.labels[5] = p.documents.labels[6] = 0;
    gr_buffer_clear(&text);
    ASSERT_OK(gr_show_document(&text, p.tokenizer, &p.documents, 0, GR_SHOW_BRACKETS));
    ASSERT_TEXT(text.data, "<s>1+1=[[\xe2\x82\xac</s>]]");
    gr_buffer_release(&text);
    gr_batch_release(&batch);
    gr_loader_destroy(loader);
    end(&p);
}

/* Real tokenizers and conversations. */

static char *shared(const char *path)
{
    return gr_format("%s/../shared/fixtures/%s", getenv("GRAFT_SOURCE_DIR"), path);
}

/* White space at both ends, as far as these files have it. */
static char *stripped(const char *text)
{
    size_t length = strlen(text), from = strspn(text, " \t\r\n");

    while (length > from && strchr(" \t\r\n", text[length - 1]) != NULL)
        length--;
    return gr_strndup(text + from, length - from);
}

/* What the supervised tokens of a document decode to, against what the assistant says in a record.
 */
static void assert_said(const struct gr_tokenizer *tokenizer, const struct gr_documents *d,
                        const struct gr_document *document, json_t *record, bool strips,
                        const char *end_of_turn)
{
    uint32_t *ids = GR_NEW_ARRAY(uint32_t, document->length);
    struct gr_buffer expected = {0}, found = {0};
    json_t *message;
    int64_t count = 0;
    size_t i;

    for (int64_t t = document->offset; t < document->offset + document->length; t++)
        if (d->labels[t])
            ids[count++] = d->tokens[t];
    ASSERT_OK(gr_tokenizer_decode(tokenizer, &found, ids, count, false));
    json_array_foreach(json_object_get(record, "messages"), i, message)
    {
        const char *content = json_string_value(json_object_get(message, "content"));
        char *said = strips ? stripped(content) : gr_strdup(content);

        if (strcmp(json_string_value(json_object_get(message, "role")), "assistant") == 0)
            gr_buffer_add_format(&expected, "%s%s", said, end_of_turn);
        gr_free(said);
    }
    ASSERT_TEXT(found.data, expected.data);
    gr_buffer_release(&expected);
    gr_buffer_release(&found);
    gr_free(ids);
}

static void assert_conversations(const char *tokenizer_name, bool strips, const char *end_of_turn)
{
    static const char *const names[] = {"datasets/fms-hf-tuning/single_turn_chat.jsonl",
                                        "datasets/fms-hf-tuning/multi_turn_chat.jsonl"};
    char *directory = shared(tokenizer_name);
    struct gr_tokenizer *tokenizer = NULL;
    struct gr_records_options options = {.format = "messages",
                                         .chat_format = "auto",
                                         .too_long = "error",
                                         .loss_on = "assistant",
                                         .max_length = 100000,
                                         .fallback_eos = -1};

    gr_log_speaks(false);
    if (access(directory, R_OK) != 0)
        SKIP("no ../shared/fixtures/%s", tokenizer_name);
    ASSERT_OK(gr_tokenizer_create(&tokenizer, directory));
    for (int64_t f = 0; f < GR_COUNT(names); f++) {
        char *path = shared(names[f]);
        struct gr_documents d = {0};
        FILE *file = fopen(path, "rb");

        ASSERT(file != NULL);
        ASSERT_OK(gr_records_read(&d, tokenizer, (const char *const *)&path, 1, &options));
        ASSERT(d.count >= 10);
        for (int64_t i = 0; i < d.count; i++) {
            json_t *record = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL);

            ASSERT(record != NULL);
            assert_said(tokenizer, &d, &d.document[i], record, strips, end_of_turn);
            json_decref(record);
        }
        fclose(file);
        gr_documents_release(&d);
        gr_free(path);
    }
    gr_tokenizer_destroy(tokenizer);
    gr_free(directory);
}

TEST(records_qwen25_conversations_supervise_the_assistant_alone)
{
    assert_conversations("tokenizers/qwen2.5", false, "<|im_end|>");
}

TEST(records_llama31_conversations_supervise_the_assistant_alone)
{
    assert_conversations("tokenizers/llama-3.1", true, "<|eot_id|>");
}

/* The data set has the whole text in a column of its own. */
TEST(records_alpaca_fixture_equals_its_text_column)
{
    char *path = shared("datasets/torchtune-tiny/alpaca_tiny.json");
    json_t *rows, *row;
    struct place p;
    size_t i;

    if (access(path, R_OK) != 0)
        SKIP("no ../shared/fixtures/datasets/torchtune-tiny");
    begin(&p);
    rows = json_load_file(path, 0, NULL);
    p.options.format = "alpaca";
    ASSERT_OK(
        gr_records_read(&p.documents, p.tokenizer, (const char *const *)&path, 1, &p.options));
    json_array_foreach(rows, i, row)
    {
        const struct gr_document *d = &p.documents.document[i];
        struct gr_buffer text = {0};

        ASSERT_OK(gr_tokenizer_decode(p.tokenizer, &text, p.documents.tokens + d->offset, d->length,
                                      true));
        ASSERT_TEXT(text.data, json_string_value(json_object_get(row, "text")));
        gr_buffer_release(&text);
    }
    ASSERT_INT(i, p.documents.count);
    json_decref(rows);
    gr_free(path);
    end(&p);
}
