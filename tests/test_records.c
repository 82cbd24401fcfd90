/* Data files to documents: with a tokenizer of one token per byte, made here, where the bytes
 * count.  Real tokenizers and conversations are in test_supervised.c. */
#include "data/show.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "tests/data_folder.h"
#include "tests/files.h"
#include "tests/test.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* A document is written with its supervised tokens in [[ ]]. */
static void assert_shown(const struct data_folder *f, int64_t number, const char *expected)
{
    struct gr_buffer text = {0};

    ASSERT_OK(gr_show_document(&text, f->tokenizer, &f->documents, number, GR_SHOW_BRACKETS));
    ASSERT_TEXT(text.data, expected);
    gr_buffer_release(&text);
}

TEST(records_text_is_supervised_whole_and_ends_with_eos)
{
    struct data_folder f;

    data_folder_begin(&f);
    ASSERT_OK(data_folder_read(&f, "{\"text\": \"h\xc3\xa9!\"}\n{\"text\": \"done</s>\"}\n"));
    ASSERT_INT(f.documents.count, 2);
    assert_shown(&f, 0, "<s>[[h\xc3\xa9!</s>]]");
    assert_shown(&f, 1, "<s>[[done</s>]]");
    ASSERT_INT(f.documents.tokens[0], BOS);
    ASSERT_INT(f.documents.token_count, 6 + 6);
    ASSERT_INT(f.documents.supervised_count, 5 + 5);
    data_folder_end(&f);
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
    struct data_folder f;

    data_folder_begin(&f);
    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        f.options.loss_on = cases[i].loss_on;
        ASSERT_OK(data_folder_read(&f, conversation));
        ASSERT_INT(f.documents.count, 1);
        assert_shown(&f, 0, cases[i].shown);
    }
    data_folder_end(&f);
}

TEST(records_completion_and_eos_are_supervised_and_the_prompt_is_not)
{
    struct data_folder f;

    data_folder_begin(&f);
    ASSERT_OK(data_folder_read(&f, "{\"prompt\": \"1+1=\", \"completion\": \"2\"}\n"
                                   "{\"prompt\": \"\", \"completion\": \"all</s>\"}\n"
                                   "{\"prompt\": \"none\", \"completion\": \"\"}\n"));
    ASSERT_INT(f.documents.count, 3);
    assert_shown(&f, 0, "<s>1+1=[[2</s>]]");
    assert_shown(&f, 1, "<s>[[all</s>]]");
    assert_shown(&f, 2, "<s>none[[</s>]]");
    data_folder_end(&f);
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
    struct data_folder f;

    data_folder_begin(&f);
    ASSERT_OK(data_folder_read(&f,
                               "{\"instruction\": \"Add\", \"input\": \"1 2\", \"output\": \"3\"}\n"
                               "{\"instruction\": \"Hi\", \"input\": \"\", \"output\": \"Yo\"}\n"
                               "{\"instruction\": \"Hi\", \"output\": \"Yo\"}\n"
                               "{\"instruction\": \"Hi\", \"input\": null, \"output\": \"Yo\"}\n"));
    assert_shown(&f, 0, expected_head);
    assert_shown(&f, 1, expected_bare);
    assert_shown(&f, 2, expected_bare);
    assert_shown(&f, 3, expected_bare);
    data_folder_end(&f);
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
    struct data_folder f;

    data_folder_begin(&f);
    for (int64_t i = 0; i < GR_COUNT(same); i++) {
        ASSERT_OK(data_folder_read(&f, same[i]));
        ASSERT_INT(f.documents.count, 2);
        assert_shown(&f, 0, "<s>[[one]</s>]]");
        assert_shown(&f, 1, "<s>[[t{o\"\\</s>]]");
    }
    data_folder_end(&f);
}

TEST(records_too_long_is_cut_dropped_or_refused)
{
    static const char data[] = "{\"prompt\": \"1234\", \"completion\": \"56\"}\n" /* 8 tokens */
                               "{\"prompt\": \"1234\", \"completion\": \"567\"}\n"
                               "{\"prompt\": \"12345678\", \"completion\": \"9\"}\n";
    struct data_folder f;

    data_folder_begin(&f);
    f.options.max_length = 8;
    ASSERT_OK(data_folder_read(&f, data));
    ASSERT_INT(f.documents.count, 2);
    ASSERT_INT(f.documents.truncated_count, 1);
    ASSERT_INT(f.documents.dropped_count, 1); /* nothing of its completion is left */
    assert_shown(&f, 0, "<s>1234[[56</s>]]");
    assert_shown(&f, 1, "<s>1234[[567]]");
    f.options.too_long = "drop";
    ASSERT_OK(data_folder_read(&f, data));
    ASSERT_INT(f.documents.count, 1);
    ASSERT_INT(f.documents.truncated_count, 0);
    ASSERT_INT(f.documents.dropped_count, 2);
    f.options.too_long = "error";
    ASSERT_INT(data_folder_read(&f, data), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "data.jsonl:2: the record is too long (found 9 tokens, "
                                      "expected at most 8)") != NULL);
    gr_error_clear();
    f.options.too_long = "truncate";
    f.options.max_length = 1; /* a document's first token is never a target */
    ASSERT_INT(data_folder_read(&f, "{\"text\": \"a\"}\n"), GR_ERR_DATA);
    ASSERT_INT(f.documents.dropped_count, 1);
    data_folder_end(&f);
}

TEST(records_files_are_numbered_counted_and_may_differ_in_format)
{
    struct data_folder f;
    static const char *const files[] = {"data.jsonl", "other.json"};

    data_folder_begin(&f);
    gr_test_write_text("other.json", conversation);
    gr_test_write_text(
        f.data, "{\"text\": \"x\", \"id\": 7}\n"
                "{\"text\": \"0123456789012345678901234567890123456789012345678901234567\"}\n");
    f.options.max_length = 58; /* as many as the conversation has; the second text has 60 */
    f.options.too_long = "drop";
    ASSERT_OK(read_records(&f.documents, f.tokenizer, files, 2, &f.options));
    ASSERT_INT(f.documents.count, 2);
    ASSERT_INT(f.documents.dropped_count, 1);
    ASSERT_INT(f.documents.document[0].source, 0);
    ASSERT_INT(f.documents.document[1].source, 1);
    ASSERT_INT(f.documents.document[1].length, 58);
    data_folder_end(&f);
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
    {"integer beyond 64 bits, of no use",
     "{\"text\": \"a\"}\n{\"id\": 123456789012345678901234567890, \"text\": \"a\"}\n", "auto",
     ":2: the number that ends in column 37 does not fit (found one beyond 64 bits, expected an "
     "integer from -2^63 to 2^63 - 1)"},
    {"negative integer beyond 64 bits", "{\"text\": \"a\", \"id\": -9223372036854775809}\n", "auto",
     ":1: the number that ends in column 40 does not fit (found one beyond 64 bits, expected an "
     "integer from -2^63 to 2^63 - 1)"},
    {"real beyond double, in an array", "[{\"text\": \"a\"},\n{\"text\": \"a\", \"p\": -1e999}]",
     "auto",
     ":2: the number that ends in column 25 does not fit (found one beyond double precision, "
     "expected at most 1.8e308)"},
    {"U+0000 in the text", "{\"text\": \"a\\u0000b\"}\n", "auto",
     ":1: the text that ends in column 19 holds the character U+0000 (found \\u0000, expected text "
     "without it)"},
    {"U+0000 in a key", "{\"text\": \"a\", \"\\u0000\": 1}\n", "auto",
     ":1: the text that ends in column 22 holds the character U+0000 (found \\u0000, expected text "
     "without it)"},
    {"bad UTF-8", "\n{\"text\": \"a\xff\"}\n", "auto",
     ":2: bad UTF-8 (found byte 0xff as byte 12 of the record, expected a character)"},
    {"Latin-1 at the start",
     "\xef"
     "a\n",
     "auto", ": bad UTF-8 (found byte 0xef as byte 1 of the file, expected a character)"},
    {"line that is no object", "{\"text\": \"a\"}\n\"b\"\n", "auto",
     ":2: a record is not an object (found text, expected an object)"},
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
     ":2: a key of format text is missing (found txt; expected text)"},
    {"format asked for is not there", "{\"text\": \"a\"}\n", "messages",
     ":1: a key of format messages is missing (found text; expected messages)"},
    {"text is a number", "{\"text\": 1}\n", "auto",
     ":1: text has the wrong type (found a number, expected text)"},
    {"no messages", "{\"messages\": []}\n", "auto",
     ":1: messages holds no message (found an empty list, expected a list of messages)"},
    {"messages is a string", "{\"messages\": \"hi\"}\n", "auto",
     ":1: messages holds no message (found text, expected a list of messages)"},
    {"message is a string", "{\"messages\": [\"hi\"]}\n", "auto",
     ":1: messages[0] is not a message (found text, expected an object with role and "
     "content)"},
    {"unknown role", "{\"messages\": [{\"role\": \"human\", \"content\": \"a\"}]}\n", "auto",
     ":1: messages[0].role is unknown (found human, expected system, user or assistant)"},
    {"no role", "{\"messages\": [{\"from\": \"human\", \"value\": \"a\"}]}\n", "auto",
     ":1: messages[0].role has the wrong type (found nothing, expected text)"},
    {"content in parts",
     "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
     "\"content\": [{\"type\": \"text\"}]}]}\n",
     "auto", ":1: messages[1].content has the wrong type (found a list, expected text)"},
    {"empty content", "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}\n", "auto",
     ":1: messages[0].content is empty (found a turn of role user without text, expected text)"},
    {"tool calls",
     "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"tool_calls\": [1]}]}\n",
     "auto", ":1: messages[0].tool_calls is not supported (found a list)"},
    {"tools", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": [{}]}\n",
     "auto", ":1: tools is not supported (found a list)"},
    {"thoughts",
     "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", "
     "\"reasoning_content\": \"hm\"}]}\n",
     "auto", ":1: messages[0].reasoning_content is not supported (found text)"},
    {"system of alpaca",
     "{\"instruction\": \"a\", \"output\": \"b\", \"system\": \"\"}\n"
     "{\"instruction\": \"a\", \"output\": \"b\", \"system\": \"be kind\"}\n",
     "auto", ":2: system is not supported (found text)"},
    {"history of alpaca",
     "{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"c\", \"d\"]]}\n", "auto",
     ":1: history is not supported (found a list)"},
    {"system beside a prompt",
     "{\"prompt\": \"a\", \"completion\": \"b\", \"system\": \"be kind\"}\n", "auto",
     ":1: system is not supported (found text)"},
    {"system beside messages",
     "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}], \"system\": \"be kind\"}\n",
     "auto", ":1: system is not supported (found text)"},
    {"a bad answer", "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": false}\n", "auto",
     ":1: label is not supported (found false)"},
    {"BOS in the data", "{\"text\": \"<s>a\"}\n", "auto",
     ":1: two BOS tokens in a row (found <s> twice at token 0)"},
    {"nobody answers", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n", "auto",
     ": nothing to learn: no token is supervised (found none in 1 records of format messages, each "
     "cut to 2048 tokens; expected role assistant)"},
};

TEST(records_bad_data_is_refused_naming_file_line_and_key)
{
    struct data_folder f;

    data_folder_begin(&f);
    for (int64_t i = 0; i < GR_COUNT(bad); i++) {
        char *expected = gr_format("data.jsonl%s", bad[i].error);

        f.options.format = bad[i].format;
        ASSERT_MSG(data_folder_read(&f, bad[i].data) == GR_ERR_DATA, "%s: was taken", bad[i].name);
        ASSERT_TEXT(gr_error_message(), expected);
        gr_error_clear();
        gr_free(expected);
    }
    data_folder_end(&f);
}

TEST(records_refused_keys_pass_where_they_say_nothing)
{
    struct data_folder f;

    data_folder_begin(&f);
    ASSERT_OK(data_folder_read(
        &f, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
            " {\"role\": \"assistant\", \"content\": \"b\", \"tool_calls\": null}],"
            " \"tools\": [], \"id\": 1}\n"));
    ASSERT_INT(f.documents.count, 1);
    ASSERT_OK(data_folder_read(&f, "{\"text\": \"no chat\", \"tools\": [1], \"label\": false, "
                                   "\"system\": \"linux\"}\n"));
    ASSERT_INT(f.documents.count, 1);
    ASSERT_OK(data_folder_read(
        &f, "{\"instruction\": \"a\", \"output\": \"b\", \"system\": \"\", \"history\": []}\n"
            "{\"instruction\": \"a\", \"output\": \"b\", \"system\": null, \"label\": true}\n"));
    ASSERT_INT(f.documents.count, 2);
    data_folder_end(&f);
}

TEST(records_unknown_options_and_missing_files_are_refused)
{
    struct data_folder f;
    const char *missing = "/nonexistent/data.jsonl";

    data_folder_begin(&f);
    f.options.too_long = "cut";
    ASSERT_INT(data_folder_read(&f, "{\"text\": \"a\"}\n"), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(), "data.too_long: unknown value (found cut, expected one of "
                                    "truncate, drop, error)");
    gr_error_clear();
    f.options.too_long = "drop";
    f.options.loss_on = "user";
    ASSERT_INT(data_folder_read(&f, "{\"text\": \"a\"}\n"), GR_ERR_USAGE);
    gr_error_clear();
    f.options.loss_on = "all";
    f.options.format = "csv";
    ASSERT_INT(data_folder_read(&f, "{\"text\": \"a\"}\n"), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_hint(), "one of: auto, text, messages, prompt_completion, alpaca");
    gr_error_clear();
    f.options.format = "auto";
    ASSERT_INT(read_records(&f.documents, f.tokenizer, &missing, 1, &f.options), GR_ERR_NOT_FOUND);
    ASSERT_TEXT(gr_error_message(),
                "/nonexistent/data.jsonl: there is no such file (found nothing, expected a file)");
    data_folder_end(&f);
}

TEST(records_eos_of_the_configuration_is_the_fallback)
{
    struct data_folder f;
    struct gr_tokenizer *bare = NULL;
    const struct gr_document *d;

    data_folder_begin(&f);
    write_json("tokenizer_config.json", json_pack("{s:s}", "bos_token", "<s>"));
    ASSERT_OK(gr_tokenizer_create(&bare, "."));
    gr_tokenizer_destroy(f.tokenizer);
    f.tokenizer = bare;
    ASSERT_INT(data_folder_read(&f, "{\"text\": \"a\"}\n"), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "tokenizer_config.json: the model has no EOS, which ends a "
                                    "document of format text");
    gr_error_clear();
    f.options.fallback_eos = IM_END;
    ASSERT_OK(data_folder_read(&f, "{\"text\": \"a\"}\n"));
    d = &f.documents.document[0];
    ASSERT_INT(f.documents.tokens[d->offset + d->length - 1], IM_END);
    data_folder_end(&f);
}

static int64_t peak_bytes(void)
{
    struct rusage usage;

    ASSERT_INT(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss * 1024;
}

/* A file of 40 MB and few tokens: what is kept is the tokens. */
TEST(records_long_lines_do_not_stay_in_memory)
{
    enum { LINES = 80, LINE = 500000 };
    struct data_folder f;
    char *line = gr_alloc(LINE, 1);
    int64_t before;
    FILE *file;

    data_folder_begin(&f);
    file = fopen(f.data, "wb");
    ASSERT(file != NULL);
    memset(line, ' ', LINE);
    for (int i = 0; i < LINES; i++)
        fprintf(file, "{%.*s\"text\": \"abc\"}\n", LINE, line);
    fclose(file);
    before = peak_bytes();
    ASSERT_OK(read_records(&f.documents, f.tokenizer, &f.data, 1, &f.options));
    ASSERT(peak_bytes() - before < 8000000);
    ASSERT_INT(f.documents.count, LINES);
    ASSERT_INT(f.documents.token_count, LINES * 5);
    gr_free(line);
    data_folder_end(&f);
}

/* Records of every fate, more than a batch holds: kept, cut, bare, with keys that nobody reads. */
static void write_many(const char *path, int count)
{
    FILE *file = fopen(path, "wb");

    ASSERT(file != NULL);
    for (int i = 0; i < count; i++)
        fprintf(file, "{\"prompt\": \"%.*s\", \"completion\": \"%d\"%s}\n", i % 37,
                "a prompt that may be long, or not so", i, i % 100 == 99 ? ", \"key\": 1" : "");
    fclose(file);
}

TEST(records_threads_change_nothing)
{
    enum { RECORDS = 3000 };
    struct data_folder f;
    struct gr_documents one = {0};

    data_folder_begin(&f);
    f.options.max_length = 30;
    write_many(f.data, RECORDS);
    ASSERT_OK(read_records(&one, f.tokenizer, &f.data, 1, &f.options));
    ASSERT(one.truncated_count > 0 && one.dropped_count > 0 && one.count > RECORDS / 2);
    for (int threads = 2; threads <= 5; threads++) {
        struct gr_documents many = {0};

        f.options.threads = threads;
        ASSERT_OK(read_records(&many, f.tokenizer, &f.data, 1, &f.options));
        ASSERT_INT(many.count, one.count);
        ASSERT_INT(many.token_count, one.token_count);
        ASSERT_INT(many.supervised_count, one.supervised_count);
        ASSERT_INT(many.truncated_count, one.truncated_count);
        ASSERT_INT(many.dropped_count, one.dropped_count);
        ASSERT(memcmp(many.tokens, one.tokens, (size_t)one.token_count * sizeof *one.tokens) == 0);
        ASSERT(memcmp(many.labels, one.labels, (size_t)one.token_count) == 0);
        for (int64_t i = 0; i < one.count; i++)
            ASSERT_INT(many.document[i].offset, one.document[i].offset);
        gr_documents_release(&many);
    }
    gr_documents_release(&one);
    data_folder_end(&f);
}

/* Of several bad records the first is named, and what is before it was read. */
TEST(records_threads_report_the_first_bad_record)
{
    enum { RECORDS = 700 };
    struct data_folder f;
    FILE *file;

    data_folder_begin(&f);
    write_many(f.data, RECORDS);
    file = fopen(f.data, "ab");
    ASSERT(file != NULL);
    fputs("{\"prompt\": \"x\", \"completion\": 5}\n{\"prompt\": \n[]\n", file);
    fclose(file);
    for (int threads = 1; threads <= 4; threads++) {
        f.options.threads = threads;
        ASSERT_INT(read_records(&f.documents, f.tokenizer, &f.data, 1, &f.options), GR_ERR_DATA);
        ASSERT_MSG(strstr(gr_error_message(), ":701: completion has the wrong type") != NULL, "%s",
                   gr_error_message());
        ASSERT_INT(f.documents.count, RECORDS);
        gr_error_clear();
        gr_documents_release(&f.documents);
    }
    data_folder_end(&f);
}

static char *shared(const char *path)
{
    return gr_format("%s/../shared/fixtures/%s", getenv("GRAFT_SOURCE_DIR"), path);
}

/* The data set has the whole text in a column of its own. */
TEST(records_alpaca_fixture_equals_its_text_column)
{
    char *path = shared("datasets/torchtune-tiny/alpaca_tiny.json");
    json_t *rows, *row;
    struct data_folder f;
    size_t i;

    if (access(path, R_OK) != 0)
        SKIP("no ../shared/fixtures/datasets/torchtune-tiny");
    data_folder_begin(&f);
    rows = json_load_file(path, 0, NULL);
    f.options.format = "alpaca";
    ASSERT_OK(read_records(&f.documents, f.tokenizer, (const char *const *)&path, 1, &f.options));
    json_array_foreach(rows, i, row)
    {
        const struct gr_document *d = &f.documents.document[i];
        struct gr_buffer text = {0};

        ASSERT_OK(gr_tokenizer_decode(f.tokenizer, &text, f.documents.tokens + d->offset, d->length,
                                      true));
        ASSERT_TEXT(text.data, json_string_value(json_object_get(row, "text")));
        gr_buffer_release(&text);
    }
    ASSERT_INT(i, f.documents.count);
    json_decref(rows);
    gr_free(path);
    data_folder_end(&f);
}
