/* Chat formats: text against the models' own templates, spans and labels.  tests/golden/chat.json
 * comes from make_chat.py beside it. */
#include "data/chat.h"
#include "kernels/base/alloc.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

/* A path below the source folder; the caller's to free. */
static char *source_path(const char *path)
{
    return gr_format("%s/%s", getenv("GRAFT_SOURCE_DIR"), path);
}

static json_t *load_json(const char *relative)
{
    char *path = source_path(relative);
    json_error_t error;
    json_t *json = json_load_file(path, 0, &error);

    ASSERT_MSG(json != NULL, "%s: %s", path, error.text);
    gr_free(path);
    return json;
}

/* The fixtures lie beside the checkout, where there are any. */
static void need(const char *relative)
{
    char *path = source_path(relative);
    bool there = access(path, R_OK) == 0;

    gr_free(path);
    if (!there)
        SKIP("no %s", relative);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? "" : text;
}

static gr_status render_case(const struct gr_chat *chat, struct gr_chat_text *text,
                             const json_t *test_case)
{
    const json_t *messages = json_object_get(test_case, "messages");
    struct gr_chat_message message[32];
    size_t count = json_array_size(messages);

    ASSERT(count > 0 && count <= 32);
    for (size_t i = 0; i < count; i++) {
        const json_t *m = json_array_get(messages, i);

        message[i] = (struct gr_chat_message){.role = gr_chat_role_find(text_of(m, "role")),
                                              .content = text_of(m, "content")};
        ASSERT(message[i].role < GR_CHAT_ROLE_COUNT);
    }
    return gr_chat_render(chat, text, message, (int64_t)count,
                          json_is_true(json_object_get(test_case, "add_generation_prompt")),
                          "test");
}

/* The assistant's spans, one after the other, are what the golden file says is learned. */
static void assert_supervised(const struct gr_chat_text *text, const json_t *parts)
{
    size_t part = 0, end = 0;

    for (int64_t i = 0; i < text->count; i++) {
        const struct gr_chat_span *s = &text->span[i];
        char *said;

        ASSERT(s->begin >= end && s->end >= s->begin && s->end <= text->text.length);
        end = s->end;
        if (s->role != GR_CHAT_ASSISTANT)
            continue;
        said = gr_strndup(text->text.data + s->begin, s->end - s->begin);
        ASSERT_TEXT(said, json_string_value(json_array_get(parts, part)));
        ASSERT_INT(s->ends_turn, part % 2);
        gr_free(said);
        part++;
    }
    ASSERT_INT(part, json_array_size(parts));
}

TEST(chat_text_and_spans_equal_the_jinja_templates)
{
    json_t *golden = load_json("tests/golden/chat.json"), *format, *test_case;
    struct gr_chat_text text = {0};
    size_t i, j;

    json_array_foreach(json_object_get(golden, "formats"), i, format)
    {
        struct gr_chat chat = {.format = gr_chat_format_find(text_of(format, "format")),
                               .bos = text_of(format, "bos"),
                               .eos = text_of(format, "eos")};

        ASSERT(chat.format != NULL);
        json_array_foreach(json_object_get(format, "cases"), j, test_case)
        {
            ASSERT_OK(render_case(&chat, &text, test_case));
            ASSERT_TEXT(text.text.data, text_of(test_case, "text"));
            assert_supervised(&text, json_object_get(test_case, "supervised"));
        }
        ASSERT_INT(j, 12);
    }
    ASSERT_INT(i, 4);
    gr_chat_text_release(&text);
    json_decref(golden);
}

/* Text and ids of the fixtures, with format and tokens as the model's own files choose them. */
static void assert_fixture(const char *vectors, const char *tokenizer_directory,
                           const char *expected_format)
{
    char *directory = source_path(tokenizer_directory);
    struct gr_tokenizer *tokenizer = NULL;
    struct gr_encoding encoding = {0};
    struct gr_chat_text text = {0};
    json_t *file = load_json(vectors), *test_case;
    struct gr_chat chat;
    size_t i;

    ASSERT_OK(gr_tokenizer_create(&tokenizer, directory));
    ASSERT_OK(gr_chat_choose(&chat, "auto", tokenizer));
    ASSERT_TEXT(gr_chat_name(&chat), expected_format);
    ASSERT_INT(chat.end_token, gr_tokenizer_eos(tokenizer));
    json_array_foreach(json_object_get(file, "cases"), i, test_case)
    {
        const json_t *ids = json_object_get(test_case, "ids");

        ASSERT_OK(render_case(&chat, &text, test_case));
        ASSERT_TEXT(text.text.data, text_of(test_case, "text"));
        ASSERT_OK(
            gr_tokenizer_encode(tokenizer, &encoding, text.text.data, text.text.length, false));
        ASSERT_INT(encoding.count, json_array_size(ids));
        for (int64_t t = 0; t < encoding.count; t++)
            ASSERT_INT(encoding.ids[t], json_integer_value(json_array_get(ids, (size_t)t)));
    }
    ASSERT(i >= 7);
    gr_chat_text_release(&text);
    gr_encoding_release(&encoding);
    gr_tokenizer_destroy(tokenizer);
    json_decref(file);
    gr_free(directory);
}

TEST(chat_qwen25_fixture_text_and_ids_are_equal)
{
    need("../shared/fixtures/vectors/chat-rendered/qwen2.5.json");
    assert_fixture("../shared/fixtures/vectors/chat-rendered/qwen2.5.json",
                   "../shared/fixtures/tokenizers/qwen2.5", "qwen2.5");
}

TEST(chat_llama31_fixture_text_and_ids_are_equal)
{
    need("../shared/fixtures/vectors/chat-rendered/llama-3.1.json");
    assert_fixture("../shared/fixtures/vectors/chat-rendered/llama-3.1.json",
                   "../shared/fixtures/tokenizers/llama-3.1", "llama-3.1");
}

static void assert_chosen(const char *directory_name, const char *expected)
{
    char *directory = source_path(directory_name);
    struct gr_tokenizer *tokenizer = NULL;
    struct gr_chat chat;

    ASSERT_OK(gr_tokenizer_create(&tokenizer, directory));
    ASSERT_OK(gr_chat_choose(&chat, "auto", tokenizer));
    ASSERT_TEXT(gr_chat_name(&chat), expected);
    gr_tokenizer_destroy(tokenizer);
    gr_free(directory);
}

TEST(chat_smollm2_template_is_known)
{
    need("../smollm2/tokenizer.json");
    assert_chosen("../smollm2", "smollm2");
}

TEST(chat_demo_template_is_known)
{
    need("data/demo/model/tokenizer.json");
    assert_chosen("data/demo/model", "chatml");
}

TEST(chat_mistral_v1_ids_equal_mistral_common)
{
    struct gr_chat chat = {
        .format = gr_chat_format_find("mistral-v1"), .bos = "<s>", .eos = "</s>"};
    struct gr_tokenizer *tokenizer = NULL;
    struct gr_encoding encoding = {0};
    struct gr_chat_text text = {0};
    json_t *sample, *tokens, *ids;
    char *directory;

    need("../shared/fixtures/vectors/mistral-common/no_tools/sample.json");
    sample = load_json("../shared/fixtures/vectors/mistral-common/no_tools/sample.json");
    tokens = load_json("../shared/fixtures/vectors/mistral-common/no_tools/tokens_v1.json");
    ids = json_object_get(tokens, "tokens");
    directory = source_path("../shared/fixtures/tokenizers/mistral-7b-v0.1");
    ASSERT_OK(gr_tokenizer_create(&tokenizer, directory));
    ASSERT_OK(render_case(&chat, &text, sample));
    ASSERT_OK(gr_tokenizer_encode(tokenizer, &encoding, text.text.data, text.text.length, false));
    ASSERT_INT(encoding.count, json_array_size(ids));
    for (int64_t i = 0; i < encoding.count; i++)
        ASSERT_INT(encoding.ids[i], json_integer_value(json_array_get(ids, (size_t)i)));
    gr_chat_text_release(&text);
    gr_encoding_release(&encoding);
    gr_tokenizer_destroy(tokenizer);
    gr_free(directory);
    json_decref(sample);
    json_decref(tokens);
}

TEST(chat_llama2_texts_are_as_the_template_writes_them)
{
    struct gr_chat chat = {.format = gr_chat_format_find("llama2"), .bos = "<s>", .eos = "</s>"};
    static const struct gr_chat_message with[] = {{GR_CHAT_SYSTEM, " Be kind. "},
                                                  {GR_CHAT_USER, " Hi\n"},
                                                  {GR_CHAT_ASSISTANT, " Hello. "},
                                                  {GR_CHAT_USER, " Bye "}};
    struct gr_chat_text text = {0};

    ASSERT_OK(gr_chat_render(&chat, &text, with, 4, true, "test"));
    ASSERT_TEXT(text.text.data, "<s>[INST] <<SYS>>\n Be kind. \n<</SYS>>\n\n Hi [/INST]"
                                " Hello. </s><s>[INST] Bye [/INST]");
    ASSERT_OK(gr_chat_render(&chat, &text, with + 1, 2, true, "test"));
    ASSERT_TEXT(text.text.data, "<s>[INST] Hi [/INST] Hello. </s>");
    ASSERT_INT(text.count, 4);
    ASSERT_INT(text.span[3].begin, strlen("<s>[INST] Hi [/INST] Hello."));
    ASSERT(text.span[3].ends_turn);
    gr_chat_text_release(&text);
}

TEST(chat_llama3_is_llama31_without_the_dated_system_turn)
{
    struct gr_chat chat = {.format = gr_chat_format_find("llama3"), .bos = "<B>", .eos = "<E>"};
    static const struct gr_chat_message message[] = {{GR_CHAT_USER, " Hi\n"},
                                                     {GR_CHAT_ASSISTANT, "{bos} "}};
    struct gr_chat_text text = {0};

    ASSERT_OK(gr_chat_render(&chat, &text, message, 2, true, "test"));
    ASSERT_TEXT(text.text.data, "<B><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                                "<|start_header_id|>assistant<|end_header_id|>\n\n{bos}<|eot_id|>"
                                "<|start_header_id|>assistant<|end_header_id|>\n\n");
    gr_chat_text_release(&text);
}

TEST(chat_roles_out_of_turn_are_refused)
{
    static const struct {
        struct gr_chat_message message[3];
        int64_t count;
        const char *error;
    } bad[] = {
        {{{GR_CHAT_ASSISTANT, "a"}},
         1,
         "x.jsonl:7: messages[0].role is out of turn (found assistant, expected user)"},
        {{{GR_CHAT_USER, "a"}, {GR_CHAT_USER, "b"}},
         2,
         "x.jsonl:7: messages[1].role is out of turn (found user, expected assistant)"},
        {{{GR_CHAT_USER, "a"}, {GR_CHAT_SYSTEM, "b"}},
         2,
         "x.jsonl:7: messages[1].role is out of turn (found system, expected assistant)"},
        {{{GR_CHAT_SYSTEM, "a"}, {GR_CHAT_ASSISTANT, "b"}},
         2,
         "x.jsonl:7: messages[1].role is out of turn (found assistant, expected user)"},
        {{{GR_CHAT_SYSTEM, "a"}},
         1,
         "x.jsonl:7: messages holds a system message only (found 1 message, expected a user's "
         "after it)"},
    };
    struct gr_chat_text text = {0};

    for (int64_t i = 0; i < GR_COUNT(bad); i++) {
        struct gr_chat chat = {
            .format = gr_chat_format_find("mistral-v1"), .bos = "<s>", .eos = "</s>"};

        ASSERT_INT(gr_chat_render(&chat, &text, bad[i].message, bad[i].count, false, "x.jsonl:7"),
                   GR_ERR_DATA);
        ASSERT_TEXT(gr_error_message(), bad[i].error);
        gr_error_clear();
        chat.format = gr_chat_format_find("chatml"); /* takes any order */
        ASSERT_OK(gr_chat_render(&chat, &text, bad[i].message, bad[i].count, false, "x.jsonl:7"));
    }
    gr_chat_text_release(&text);
}

TEST(chat_choice_refuses_what_does_not_fit)
{
    char *directory = source_path("../shared/fixtures/tokenizers/mistral-7b-v0.1");
    struct gr_tokenizer *tokenizer = NULL;
    struct gr_chat chat;

    need("../shared/fixtures/tokenizers/mistral-7b-v0.1/tokenizer.json");
    ASSERT_OK(gr_tokenizer_create(&tokenizer, directory));
    ASSERT_INT(gr_chat_choose(&chat, "auto", tokenizer), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(),
                "data.chat_format: the model has no chat_template (found nothing, expected one in "
                "tokenizer_config.json or chat_template.jinja)");
    ASSERT_TEXT(gr_error_hint(), "set data.chat_format to the format the model was trained on: "
                                 "chatml, qwen2.5, smollm2, llama3, llama-3.1, llama2, mistral-v1");
    gr_error_clear();
    ASSERT_INT(gr_chat_choose(&chat, "chatmll", tokenizer), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(), "data.chat_format: no such format (found chatmll)");
    gr_error_clear();
    ASSERT_INT(gr_chat_choose(&chat, "chatml", tokenizer), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "data.chat_format: format chatml does not fit the tokenizer "
                                    "(found no token <|im_end|>, which ends a turn)");
    gr_tokenizer_destroy(tokenizer);
    gr_free(directory);
}

TEST(chat_template_with_one_byte_more_is_unknown)
{
    json_t *config;
    char *more;

    need("../shared/fixtures/tokenizers/qwen2.5/tokenizer_config.json");
    config = load_json("../shared/fixtures/tokenizers/qwen2.5/tokenizer_config.json");
    more = gr_format("%s ", text_of(config, "chat_template"));
    ASSERT(gr_chat_format_of_template(text_of(config, "chat_template")) ==
           gr_chat_format_find("qwen2.5"));
    ASSERT(gr_chat_format_of_template(more) == NULL);
    gr_free(more);
    json_decref(config);
}

/* Does byte b of the text lie where `words` are? */
static bool is_said(const char *text, int64_t b, const char *words)
{
    int64_t begin = strstr(text, words) - text;

    return b >= begin && b < begin + (int64_t)strlen(words);
}

/* A token is labelled iff it holds a byte of a selected span: all cuts of a short conversation into
 * tokens of 1 to 3 bytes. */
TEST(chat_labels_are_those_of_the_bytes)
{
    struct gr_chat chat = {.format = gr_chat_format_find("chatml"), .bos = "", .eos = ""};
    static const struct gr_chat_message message[] = {{GR_CHAT_USER, "q"},
                                                     {GR_CHAT_ASSISTANT, "first"},
                                                     {GR_CHAT_USER, "r"},
                                                     {GR_CHAT_ASSISTANT, "second"}};
    struct gr_chat_text text = {0};
    int64_t begin[400], end[400];
    uint8_t labels[400];

    ASSERT_OK(gr_chat_render(&chat, &text, message, 4, false, "test"));
    for (int loss_on = 0; loss_on < GR_LOSS_ON_COUNT; loss_on++)
        for (int64_t cut = 1; cut <= 3; cut++) {
            struct gr_encoding e = {.begin = begin, .end = end, .count = 0};
            int64_t size = (int64_t)text.text.length;

            for (int64_t at = 0; at < size; at = end[e.count++]) {
                begin[e.count] = at;
                end[e.count] = at + cut < size ? at + cut : size;
            }
            begin[e.count] = end[e.count] = size; /* a token the post-processor added */
            e.count++;
            gr_chat_label(labels, &e, &text, (enum gr_loss_on)loss_on);
            for (int64_t i = 0; i < e.count; i++) {
                bool expected = loss_on == GR_LOSS_ON_ALL;

                for (int64_t b = begin[i]; b < end[i]; b++)
                    expected |= is_said(text.text.data, b, "second<|im_end|>") ||
                                (loss_on == GR_LOSS_ON_ASSISTANT &&
                                 is_said(text.text.data, b, "first<|im_end|>"));
                ASSERT_INT(labels[i], expected);
            }
        }
    gr_chat_text_release(&text);
}

/* An empty turn inside a token is no reason to learn the token. */
TEST(chat_empty_span_labels_nothing)
{
    int64_t begin[] = {0}, end[] = {4};
    struct gr_encoding e = {.begin = begin, .end = end, .count = 1};
    struct gr_chat_text text = {0};
    uint8_t label;

    gr_buffer_add_text(&text.text, "ab");
    gr_chat_text_add_span(&text, "", 0, GR_CHAT_ASSISTANT, false);
    gr_buffer_add_text(&text.text, "cd");
    gr_chat_label(&label, &e, &text, GR_LOSS_ON_ASSISTANT);
    ASSERT_INT(label, 0);
    gr_chat_text_add_span(&text, "e", 1, GR_CHAT_ASSISTANT, false);
    end[0] = 5;
    gr_chat_label(&label, &e, &text, GR_LOSS_ON_ASSISTANT);
    ASSERT_INT(label, 1);
    gr_chat_text_release(&text);
}
