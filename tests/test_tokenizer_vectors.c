/* Real tokenizers against published ids: every text of every vector file, encoded and decoded.
 * The fixtures lie beside the repository (their README says where each file is from); where they
 * are missing the cases are skipped. */
#include "data/threads.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

static char *fixture(const char *name)
{
    const char *source = getenv("GRAFT_SOURCE_DIR");
    char *path = gr_format("%s/../shared/fixtures/%s", source == NULL ? "." : source, name);

    if (access(path, R_OK) != 0)
        SKIP("no fixture %s", path);
    return path;
}

static struct gr_tokenizer *open_tokenizer(const char *name)
{
    struct gr_tokenizer *tokenizer = NULL;
    char *path = fixture(name);

    ASSERT_OK(gr_tokenizer_create(&tokenizer, path));
    gr_free(path);
    return tokenizer;
}

static char *read_file(const char *name)
{
    char *path = fixture(name);
    FILE *file = fopen(path, "rb");
    struct gr_buffer text = {0};
    char block[4096];
    size_t count;

    ASSERT(file != NULL);
    while ((count = fread(block, 1, sizeof block, file)) > 0)
        gr_buffer_add(&text, block, count);
    fclose(file);
    gr_free(path);
    return text.data;
}

static json_t *read_json(const char *name)
{
    char *text = read_file(name);
    json_t *json = json_loads(text, 0, NULL);

    ASSERT(json != NULL);
    gr_free(text);
    return json;
}

/* Encoded, the text has these ids; decoded, the ids are the text again where it `comes_back`
 * (normalization changes some texts, and llama-2 style decoding takes a space off the front). */
static void assert_ids(const struct gr_tokenizer *tokenizer, const char *text, const json_t *ids,
                       bool specials, bool comes_back)
{
    struct gr_encoding encoding = {0};
    struct gr_buffer decoded = {0};

    ASSERT_OK(gr_tokenizer_encode(tokenizer, &encoding, text, strlen(text), specials));
    ASSERT_MSG(encoding.count == (int64_t)json_array_size(ids),
               "\"%s\" has %" PRId64 " tokens, expected %zu", text, encoding.count,
               json_array_size(ids));
    for (int64_t i = 0; i < encoding.count; i++) {
        int64_t expected = json_integer_value(json_array_get(ids, (size_t)i));

        ASSERT_MSG(encoding.ids[i] == expected,
                   "token %" PRId64 " of \"%s\" is %u, expected %" PRId64, i, text, encoding.ids[i],
                   expected);
    }
    gr_buffer_add(&decoded, "", 0);
    ASSERT_OK(gr_tokenizer_decode(tokenizer, &decoded, encoding.ids, encoding.count, true));
    if (comes_back)
        ASSERT_TEXT(decoded.data, text);
    gr_buffer_release(&decoded);
    gr_encoding_release(&encoding);
}

/* ---- llama.cpp: X.inp, X.out ---- */

static json_t *ids_of_line(const char **line)
{
    json_t *ids = json_array();
    char *end;

    for (;;) {
        while (**line == ' ')
            (*line)++;
        if (**line == '\n' || **line == '\0')
            break;
        json_array_append_new(ids, json_integer(strtol(*line, &end, 10)));
        ASSERT(end != *line);
        *line = end;
    }
    *line += **line == '\n';
    return ids;
}

static void check_llama_cpp(const char *tokenizer_name, const char *vectors, bool comes_back)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    struct gr_tokenizer *tokenizer = open_tokenizer(tokenizer_name);
    char *name = gr_format("vectors/llama.cpp/%s.inp", vectors);
    char *out_name = gr_format("vectors/llama.cpp/%s.out", vectors);
    char *texts = read_file(name), *lists = read_file(out_name), *text = texts;
    const char *list = lists;
    int64_t count = 0;

    for (char *end; (end = strstr(text, separator)) != NULL; text = end + strlen(separator)) {
        json_t *ids = ids_of_line(&list);

        *end = '\0';
        assert_ids(tokenizer, text, ids, false, comes_back);
        json_decref(ids);
        count++;
    }
    ASSERT_INT(count, 46);
    gr_free(texts);
    gr_free(lists);
    gr_free(name);
    gr_free(out_name);
    gr_tokenizer_destroy(tokenizer);
}

TEST(vectors_llama_cpp_byte_level)
{
    check_llama_cpp("tokenizers/gpt2", "gpt-2", true);
    check_llama_cpp("tokenizers/llama-3.1", "llama-bpe", true);
    check_llama_cpp("tokenizers/phi-2", "phi-2", true);
    check_llama_cpp("tokenizers/gpt-neox-20b-pii", "mpt", true);
    check_llama_cpp("tokenizers/deepseek-coder", "deepseek-coder", false);
}

TEST(vectors_llama_cpp_qwen)
{
    check_llama_cpp("tokenizers/qwen2", "qwen2", true);
    check_llama_cpp("tokenizers/qwen2.5", "qwen2", true);
    check_llama_cpp("tokenizers/qwen3", "qwen2", true);
}

TEST(vectors_llama_cpp_sentencepiece)
{
    check_llama_cpp("tokenizers/llama-2", "llama-spm", true);
    check_llama_cpp("tokenizers/phi-3-mini", "phi-3", true);
}

/* ---- multilingual-ids/NAME.jsonl: {"text", "ids"} ---- */

static void check_multilingual(const char *tokenizer_name, const char *vectors, bool comes_back)
{
    struct gr_tokenizer *tokenizer = open_tokenizer(tokenizer_name);
    char *name = gr_format("vectors/multilingual-ids/%s.jsonl", vectors);
    char *lines = read_file(name), *rest = lines;
    int64_t count = 0;

    for (char *line; (line = strsep(&rest, "\n")) != NULL && line[0] != '\0'; count++) {
        json_t *json = json_loads(line, 0, NULL);
        const char *text = json_string_value(json_object_get(json, "text"));
        const json_t *ids = json_object_get(json, "ids");

        ASSERT(text != NULL && json_is_array(ids));
        assert_ids(tokenizer, text, ids, false, comes_back);
        json_decref(json);
    }
    ASSERT_INT(count, 150);
    gr_free(lines);
    gr_free(name);
    gr_tokenizer_destroy(tokenizer);
}

TEST(vectors_multilingual_byte_level)
{
    check_multilingual("tokenizers/gpt2", "gpt2", true);
    check_multilingual("tokenizers/llama-3.1", "llama-3.1", true);
    check_multilingual("tokenizers/phi-2", "phi-2", true);
    check_multilingual("tokenizers/granite-3.1", "granite-3.1", true);
    check_multilingual("tokenizers/minimind", "minimind", true);
    /* added tokens that are letters of the byte-level alphabet, decoded as bytes */
    check_multilingual("tokenizers/deepseek-coder", "deepseek-coder", false);
    /* NFC: some texts come back composed */
    check_multilingual("tokenizers/gpt-neox-20b-pii", "gpt-neox-20b-pii", false);
    check_multilingual("tokenizers/qwen2", "qwen2", false);
}

TEST(vectors_multilingual_sentencepiece)
{
    check_multilingual("tokenizers/llama-2", "llama-2", true);
    check_multilingual("tokenizers/mistral-7b-v0.1", "mistral-7b-v0.1", true);
    check_multilingual("tokenizers/phi-3-mini", "phi-3-mini", true);
    check_multilingual("tokenizers/tinyllama-v0-maykeye", "tinyllama-v0-maykeye", true);
    check_multilingual("models/stories260k", "stories260k", true);
}

/* ---- swift-transformers ---- */

static void check_swift_multilingual(const char *tokenizer_name, const char *vectors,
                                     bool comes_back)
{
    struct gr_tokenizer *tokenizer = open_tokenizer(tokenizer_name);
    json_t *inputs = read_json("vectors/swift-transformers/multilingual/inputs.json");
    char *name = gr_format("vectors/swift-transformers/multilingual/%s.json", vectors);
    json_t *baseline = read_json(name);
    json_t *texts = json_object_get(inputs, "inputs");
    json_t *input;
    size_t i;

    ASSERT_INT(json_array_size(texts), 30);
    json_array_foreach(texts, i, input)
    {
        const char *id = json_string_value(json_object_get(input, "id"));
        const json_t *entry = json_object_get(json_object_get(baseline, "entries"), id);

        assert_ids(tokenizer, json_string_value(json_object_get(input, "text")),
                   json_object_get(entry, "input_ids"), true, comes_back);
    }
    json_decref(inputs);
    json_decref(baseline);
    gr_free(name);
    gr_tokenizer_destroy(tokenizer);
}

TEST(vectors_swift_multilingual)
{
    check_swift_multilingual("tokenizers/gpt2", "openai-community__gpt2", true);
    check_swift_multilingual("tokenizers/qwen2.5", "Qwen__Qwen2.5-0.5B", false);
}

static void check_swift_tests(const char *tokenizer_name, const char *model)
{
    struct gr_tokenizer *tokenizer = open_tokenizer(tokenizer_name);
    json_t *all = read_json("vectors/swift-transformers/tokenizer_tests.subset.json");
    const json_t *cases = json_object_get(all, model);

    ASSERT_INT(json_array_size(cases), 18);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *item = json_array_get(cases, i);
        const json_t *encoded = json_object_get(item, "encoded");

        assert_ids(tokenizer, json_string_value(json_object_get(item, "input")),
                   json_object_get(encoded, "input_ids"), true, true);
    }
    json_decref(all);
    gr_tokenizer_destroy(tokenizer);
}

TEST(vectors_swift_tests)
{
    check_swift_tests("tokenizers/gpt2", "distilgpt2");
    check_swift_tests("tokenizers/llama-2", "coreml-projects/Llama-2-7b-chat-coreml");
}

TEST(vectors_swift_llama_encoded)
{
    struct gr_tokenizer *tokenizer = open_tokenizer("tokenizers/llama-2");
    json_t *json = read_json("vectors/swift-transformers/llama_encoded.json");

    assert_ids(tokenizer, json_string_value(json_object_get(json, "text")),
               json_object_get(json, "token_ids"), true, true);
    json_decref(json);
    gr_tokenizer_destroy(tokenizer);
}

/* ---- fms-hf-tuning: rows output -> input_ids ---- */

TEST(vectors_fms_hf_tuning)
{
    struct gr_tokenizer *tokenizer = open_tokenizer("tokenizers/tinyllama-v0-maykeye");
    char *lines = read_file(
        "vectors/fms-hf-tuning/twitter_complaints_tokenized_with_maykeye_tinyllama_v0.jsonl");
    char *rest = lines;
    int64_t count = 0;

    for (char *line; (line = strsep(&rest, "\n")) != NULL && line[0] != '\0'; count++) {
        json_t *json = json_loads(line, 0, NULL);

        assert_ids(tokenizer, json_string_value(json_object_get(json, "output")),
                   json_object_get(json, "input_ids"), true, true);
        json_decref(json);
    }
    ASSERT_INT(count, 10);
    gr_free(lines);
    gr_tokenizer_destroy(tokenizer);
}

/* ---- stories260k: texts of known losses ---- */

TEST(vectors_stories260k)
{
    struct gr_tokenizer *tokenizer = open_tokenizer("models/stories260k");
    json_t *json = read_json("vectors/stories260k/nll.json");
    const json_t *cases = json_object_get(json, "cases");

    ASSERT(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *item = json_array_get(cases, i);

        assert_ids(tokenizer, json_string_value(json_object_get(item, "text")),
                   json_object_get(item, "ids_with_bos"), true, true);
    }
    json_decref(json);
    gr_tokenizer_destroy(tokenizer);
}

/* ---- one tokenizer, several threads ---- */

struct shared {
    const struct gr_tokenizer *tokenizer;
    const char *text;
    const struct gr_encoding *expected;
    int differences;
};

static void encode_again(void *context)
{
    struct shared *shared = context;
    struct gr_encoding encoding = {0};
    const struct gr_encoding *expected = shared->expected;

    for (int i = 0; i < 5; i++) {
        gr_status status = gr_tokenizer_encode(shared->tokenizer, &encoding, shared->text,
                                               strlen(shared->text), true);
        size_t bytes = (size_t)expected->count * sizeof *expected->ids;

        if (status != GR_OK || encoding.count != expected->count ||
            memcmp(encoding.ids, expected->ids, bytes) != 0)
            __atomic_add_fetch(&shared->differences, 1, __ATOMIC_RELAXED);
    }
    gr_encoding_release(&encoding);
}

TEST(tokenizer_threads_share_one)
{
    struct gr_tokenizer *tokenizer = open_tokenizer("tokenizers/qwen2");
    char *text = read_file("vectors/multilingual-ids/qwen2.jsonl");
    struct gr_encoding expected = {0};
    struct shared shared = {.tokenizer = tokenizer, .text = text, .expected = &expected};

    ASSERT_OK(gr_tokenizer_encode(tokenizer, &expected, text, strlen(text), true));
    ASSERT(expected.count > 1000);
    gr_run_threads(4, encode_again, &shared);
    ASSERT_INT(shared.differences, 0);
    gr_encoding_release(&expected);
    gr_free(text);
    gr_tokenizer_destroy(tokenizer);
}
