/* What is learned of real data: of every conversation of the fixtures the assistant's words and the
 * tokens that end its turns, of every completion its bytes and EOS, no more and no less.  What is
 * expected comes from the records themselves, with jansson, not from the code under test. */
#include "data/chat.h"
#include "data/records.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "tests/files.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

static char *shared(const char *path)
{
    return gr_format("%s/../shared/fixtures/%s", getenv("GRAFT_SOURCE_DIR"), path);
}

/* How a format writes what the assistant says.  SentencePiece tokens begin with the space before a
 * word, which belongs to the template: where `leads`, the first token of a turn holds it too. */
struct format {
    const char *tokenizer, *name;
    bool strips; /* white space around contents is dropped */
    bool leads;
    const char *end_of_turn;
};

/* Python's strip(), as far as these files have white space. */
static char *stripped(const char *text)
{
    size_t length = strlen(text), from = strspn(text, " \t\r\n");

    while (length > from && strchr(" \t\r\n", text[length - 1]) != NULL)
        length--;
    return gr_strndup(text + from, length - from);
}

/* The records of a file: JSON array or JSONL. */
static json_t *load_records(const char *path)
{
    json_t *records = json_array(), *record;
    FILE *file = fopen(path, "rb");
    int first;

    ASSERT_MSG(file != NULL, "%s cannot be opened", path);
    first = fgetc(file);
    ungetc(first, file);
    if (first == '[') {
        json_decref(records);
        records = json_loadf(file, 0, NULL);
    } else {
        while ((record = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL)
            json_array_append_new(records, record);
    }
    fclose(file);
    ASSERT(json_array_size(records) > 0);
    return records;
}

/* One run of supervised tokens is one thing said. */
static void assert_run(const struct gr_tokenizer *tokenizer, const uint32_t *ids, int64_t count,
                       const char *said, const char *end, bool leads)
{
    struct gr_buffer found = {0};
    char *expected = gr_format("%s%s", said, end);
    const char *text;

    ASSERT_OK(gr_tokenizer_decode(tokenizer, &found, ids, count, false));
    text = found.data;
    if (leads && text[0] == ' ' && expected[0] != ' ')
        text++;
    ASSERT_TEXT(text, expected);
    gr_buffer_release(&found);
    gr_free(expected);
}

/* The next run from token *at on: its tokens are [return value, *at). */
static int64_t next_run(const struct gr_documents *d, const struct gr_document *document,
                        int64_t *at)
{
    int64_t end = document->offset + document->length, begin = *at;

    while (begin < end && d->labels[begin] == 0)
        begin++;
    *at = begin;
    while (*at < end && d->labels[*at] != 0)
        ++*at;
    return begin;
}

static bool is_assistant(const json_t *message)
{
    return strcmp(json_string_value(json_object_get(message, "role")), "assistant") == 0;
}

/* The runs of a document are the assistant's turns of a conversation, or the last of them. */
static void assert_conversation(const struct gr_tokenizer *tokenizer, const struct gr_documents *d,
                                const struct gr_document *document, const json_t *record,
                                const struct format *format, bool last_only)
{
    const json_t *messages = json_object_get(record, "messages");
    int64_t at = document->offset, turns = 0, seen = 0;

    for (size_t i = 0; i < json_array_size(messages); i++)
        turns += is_assistant(json_array_get(messages, i));
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        const char *content = json_string_value(json_object_get(message, "content"));
        char *said = format->strips ? stripped(content) : gr_strdup(content);

        seen += is_assistant(message);
        if (is_assistant(message) && (!last_only || seen == turns)) {
            int64_t begin = next_run(d, document, &at);

            assert_run(tokenizer, d->tokens + begin, at - begin, said, format->end_of_turn,
                       format->leads);
        }
        gr_free(said);
    }
    ASSERT_INT(next_run(d, document, &at), document->offset + document->length);
}

/* Tools, documents and contents in parts are refused; what is left is conversations. */
static bool is_plain(const json_t *record)
{
    static const char *const refused[] = {"tools", "documents", "functions"};
    const json_t *messages = json_object_get(record, "messages");

    for (int64_t i = 0; i < GR_COUNT(refused); i++)
        if (json_array_size(json_object_get(record, refused[i])) > 0)
            return false;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(message, "role"));

        if (!json_is_string(json_object_get(message, "content")) ||
            gr_chat_role_find(role) == GR_CHAT_ROLE_COUNT ||
            json_object_get(message, "tool_calls") != NULL)
            return false;
    }
    return true;
}

/* The plain records of a file, written to plain.jsonl. */
static json_t *plain_records(const char *path)
{
    json_t *records = load_records(path), *plain = json_array();
    FILE *file = fopen("plain.jsonl", "wb");

    ASSERT(file != NULL);
    for (size_t i = 0; i < json_array_size(records); i++) {
        json_t *record = json_array_get(records, i);

        json_object_del(record, "label"); /* false, an answer not to learn, is refused */
        if (is_plain(record)) {
            json_array_append(plain, record);
            json_dumpf(record, file, 0);
            fputc('\n', file);
        }
    }
    fclose(file);
    json_decref(records);
    return plain;
}

static bool has_assistant(const json_t *record)
{
    const json_t *messages = json_object_get(record, "messages");

    for (size_t i = 0; i < json_array_size(messages); i++)
        if (is_assistant(json_array_get(messages, i)))
            return true;
    return false;
}

static struct gr_records_options options_of(const char *format, const char *chat_format)
{
    return (struct gr_records_options){.format = format,
                                       .chat_format = chat_format,
                                       .too_long = "error",
                                       .loss_on = "assistant",
                                       .max_length = 100000,
                                       .fallback_eos = -1};
}

/* records: what stands in plain.jsonl. */
static void assert_conversations(const struct gr_tokenizer *tokenizer, const json_t *records,
                                 const struct format *format, bool last_only)
{
    const char *path = "plain.jsonl";
    struct gr_records_options options = options_of("messages", format->name);
    struct gr_documents d = {0};
    struct gr_sources sources = {0};
    int64_t document = 0;

    if (last_only)
        options.loss_on = "last_turn";
    ASSERT_OK(gr_records_read(&d, &sources, tokenizer, &path, 1, &options));
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *record = json_array_get(records, i);

        if (has_assistant(record)) {
            ASSERT(document < d.count);
            assert_conversation(tokenizer, &d, &d.document[document++], record, format, last_only);
        }
    }
    ASSERT_INT(document, d.count);
    gr_sources_release(&sources);
    gr_documents_release(&d);
}

static struct gr_tokenizer *open_tokenizer(const char *name)
{
    char *path = gr_format("tokenizers/%s", name), *directory = shared(path);
    struct gr_tokenizer *tokenizer = NULL;

    gr_log_speaks(false);
    if (access(directory, R_OK) != 0)
        SKIP("no ../shared/fixtures/tokenizers/%s", name);
    ASSERT_OK(gr_tokenizer_create(&tokenizer, directory));
    gr_free(directory);
    gr_free(path);
    return tokenizer;
}

static void assert_format(struct format format)
{
    static const struct {
        const char *name;
        size_t plain; /* records */
    } files[] = {
        {"datasets/fms-hf-tuning/single_turn_chat.jsonl", 10},
        {"datasets/fms-hf-tuning/multi_turn_chat.jsonl", 10},
        {"datasets/fms-hf-tuning/multi_turn_chat_granite_instruct.jsonl", 1},
        {"datasets/llama-factory/kto_en_demo.json", 10},
    };
    struct gr_tokenizer *tokenizer = open_tokenizer(format.tokenizer);

    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(files); i++) {
        char *path = shared(files[i].name);
        json_t *records = plain_records(path);

        ASSERT(json_array_size(records) >= files[i].plain);
        assert_conversations(tokenizer, records, &format, false);
        assert_conversations(tokenizer, records, &format, true);
        json_decref(records);
        gr_free(path);
    }
    gr_tokenizer_destroy(tokenizer);
}

TEST(supervised_of_conversations_as_qwen25_writes_them)
{
    assert_format((struct format){"qwen2.5", "auto", false, false, "<|im_end|>"});
}

TEST(supervised_of_conversations_as_llama31_writes_them)
{
    assert_format((struct format){"llama-3.1", "auto", true, false, "<|eot_id|>"});
}

TEST(supervised_of_conversations_in_chatml)
{
    assert_format((struct format){"qwen2", "chatml", false, false, "<|im_end|>"});
}

TEST(supervised_of_conversations_in_llama3)
{
    assert_format((struct format){"llama-3.1", "llama3", true, false, "<|eot_id|>"});
}

/* The template has a space before </s>, which the token takes in: it is normalized. */
TEST(supervised_of_conversations_in_llama2)
{
    assert_format((struct format){"llama-2", "llama2", true, true, "</s>"});
}

TEST(supervised_of_conversations_in_mistral_v1)
{
    assert_format((struct format){"llama-2", "mistral-v1", false, true, "</s>"});
}

/* ---- prompts with completions ---- */

static void assert_completions(const char *name, const char *format, const char *key,
                               const char *tokenizer_name, const char *eos, bool leads)
{
    struct gr_tokenizer *tokenizer = open_tokenizer(tokenizer_name);
    char *path = shared(name);
    struct gr_records_options options = options_of(format, "auto");
    struct gr_documents d = {0};
    struct gr_sources sources = {0};
    json_t *records = load_records(path);

    ASSERT_OK(gr_records_read(&d, &sources, tokenizer, (const char *const *)&path, 1, &options));
    ASSERT_INT(d.count, json_array_size(records));
    for (int64_t i = 0; i < d.count; i++) {
        const struct gr_document *document = &d.document[i];
        int64_t at = document->offset, begin = next_run(&d, document, &at);

        ASSERT_INT(at, document->offset + document->length); /* one run, to the end */
        assert_run(tokenizer, d.tokens + begin, at - begin,
                   json_string_value(json_object_get(json_array_get(records, (size_t)i), key)), eos,
                   leads);
    }
    json_decref(records);
    gr_sources_release(&sources);
    gr_documents_release(&d);
    gr_free(path);
    gr_tokenizer_destroy(tokenizer);
}

TEST(supervised_of_prompts_is_the_completion)
{
    static const char *const names[] = {"datasets/mlx-wwdc25-qa/train.jsonl",
                                        "datasets/mlx-wwdc25-qa/valid.jsonl"};

    for (int64_t i = 0; i < GR_COUNT(names); i++) {
        assert_completions(names[i], "prompt_completion", "completion", "qwen2.5", "<|im_end|>",
                           false);
        assert_completions(names[i], "prompt_completion", "completion", "llama-2", "</s>", true);
    }
}

TEST(supervised_of_alpaca_is_the_output)
{
    static const char *const names[] = {
        "datasets/torchtune-tiny/alpaca_tiny.json", "datasets/llama-factory/alpaca_en_demo.json",
        "datasets/llama-factory/alpaca_zh_demo.json", "datasets/llama-factory/identity.json",
        "datasets/code-alpaca/new_codealpaca.json"};

    for (int64_t i = 0; i < GR_COUNT(names); i++)
        assert_completions(names[i], "alpaca", "output", "qwen2.5", "<|im_end|>", false);
}
