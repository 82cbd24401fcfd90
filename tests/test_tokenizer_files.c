/* What the tokenizer takes from its files and what it refuses, by name: components, options, ids,
 * tokenizer_config.json; and texts that are no text. */
#include "tests/tokenizer_helpers.h"

#include <unistd.h>

static const struct tokenizer_json plain = {.vocab = "\"a\": 0, \"<s>\": 1, \"</s>\": 2"};

static void assert_refused(gr_status expected_status, const char *expected)
{
    struct gr_tokenizer *tokenizer = (struct gr_tokenizer *)&expected;

    gr_error_clear();
    ASSERT_INT(gr_tokenizer_create(&tokenizer, "."), expected_status);
    ASSERT(tokenizer == NULL);
    ASSERT_MSG(strstr(gr_error_message(), expected) != NULL,
               "the message is\n  %s, expected in it\n"
               "  %s",
               gr_error_message(), expected);
}

TEST(tokenizer_unknown_components_are_refused_by_name)
{
    static const struct {
        struct tokenizer_json json;
        const char *message;
    } cases[] = {
        {{.pre = "{\"type\": \"BertPreTokenizer\"}"},
         "./tokenizer.json: pre_tokenizer: type \"BertPreTokenizer\" is not supported (expected "
         "one of "
         "Split, Digits, ByteLevel, Metaspace, Sequence)"},
        {{.pre = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Whitespace\"}]}"},
         "pre_tokenizer: type \"Whitespace\" is not supported"},
        {{.normalizer = "{\"type\": \"Lowercase\"}"},
         "normalizer: type \"Lowercase\" is not supported"},
        {{.post = "{\"type\": \"RobertaProcessing\"}"},
         "post_processor: type \"RobertaProcessing\" is not supported"},
        {{.decoder = "{\"type\": \"WordPiece\"}"}, "decoder: type \"WordPiece\" is not supported"},
        {{.pre = "{\"pattern\": 1}"}, "pre_tokenizer: type (found nothing"},
        {{.pre = "[1]"}, "pre_tokenizer (found a list, expected an object)"},
        {{.model = "\"dropout\": 0.1,"}, "model: dropout is not supported"},
        {{.model = "\"end_of_word_suffix\": \"</w>\","},
         "model: end_of_word_suffix \"</w>\" is not supported"},
        {{.model = "\"continuing_subword_prefix\": \"##\","},
         "model: continuing_subword_prefix \"##\" is not supported"},
        {{.model = "\"word_cache\": 1,"}, "model: option \"word_cache\" is not supported"},
    };

    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        write_tokenizer(&cases[i].json);
        assert_refused(GR_ERR_DATA, cases[i].message);
    }
}

TEST(tokenizer_wrong_options_are_refused_by_name)
{
    static const struct {
        struct tokenizer_json json;
        const char *message;
    } cases[] = {
        {{.vocab = "\"a\": 0",
          .post = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
                  "\"x\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], "
                  "\"pair\": [], \"special_tokens\": {\"x\": {\"id\": \"x\", \"ids\": [98765], "
                  "\"tokens\": [\"x\"]}}}"},
         "post_processor: a special token is not in the vocabulary (found id 98765, expected less"},
        {{.pre = "{\"type\": \"Digits\", \"individual_digits\": true, \"base\": 16}"},
         "pre_tokenizer: option \"base\" is not supported"},
        {{.pre = "{\"type\": \"Digits\"}"}, "pre_tokenizer: individual_digits (found nothing"},
        {{.pre = "{\"type\": \"Digits\", \"individual_digits\": 1}"},
         "individual_digits (found a number, expected true or false)"},
        {{.pre = "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a\"}, \"behavior\": "
                 "\"Isolated\", \"invert\": false}"},
         "the regular expression \"(a\" cannot be used: end pattern with unmatched parenthesis"},
        {{.pre = "{\"type\": \"Split\", \"pattern\": {\"String\": \"\"}, \"behavior\": "
                 "\"Isolated\", \"invert\": false}"},
         "pattern (found {\"String\":\"\"}"},
        {{.pre = "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": "
                 "\"Dropped\", \"invert\": false}"},
         "behavior (found \"Dropped\""},
        {{.pre = "{\"type\": \"Metaspace\", \"replacement\": \"__\"}"},
         "replacement (found \"__\", expected one character)"},
        {{.pre = "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"add_prefix_space\": false}"},
         "add_prefix_space contradicts prepend_scheme"},
        {{.vocab = "\"a\": 0",
          .post = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
                  "\"<s>\", \"type_id\": 0}}], \"special_tokens\": {}}"},
         "a SpecialToken (found {\"id\":\"<s>\""},
        {{.vocab = "\"a\": 0",
          .post = "{\"type\": \"TemplateProcessing\", \"single\": [], \"special_tokens\": {}}"},
         "single (found [], expected a list with the sequence A once)"},
        {{.decoder = "{\"type\": \"Strip\", \"content\": \" \", \"start\": -1, \"stop\": 0}"},
         "start (found -1"},
        {{.model = "\"unk_token\": \"<unk>\","}, "unk_token \"<unk>\" is not in the vocab"},
        {{.merges = "\"a b c\""}, "a merge (found \"a b c\""},
        {{.vocab = "\"a\": 0", .merges = "\"a a\""},
         "a merge (found \"a a\", expected two tokens of the vocab that make a third)"},
        {{.vocab = "\"a\": -1"}, "vocab: a (found -1"},
        {{.vocab = "\"a\": 1.5"}, "vocab: a (found a number, expected a whole number)"},
        {{.vocab = "\"a\": 1, \"b\": 1"}, "id 1 is given to two tokens"},
        {{.vocab = "\"a\": 1, \"a\": 2"}, "(duplicate object key"},
    };

    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        write_tokenizer(&cases[i].json);
        assert_refused(GR_ERR_DATA, cases[i].message);
    }
}

TEST(tokenizer_added_ids_must_be_those_of_the_library)
{
    static const struct {
        const char *added, *message;
    } cases[] = {
        {"{\"id\": 7, \"content\": \"<x>\"}",
         "token \"<x>\" has an id that `tokenizers` would not give it (found 7, expected 3)"},
        {"{\"id\": 3, \"content\": \"<s>\"}", "(found 3, expected 1)"},
        {"{\"id\": 3, \"content\": \"x\"}, {\"id\": 5, \"content\": \"y\"}",
         "(found 5, expected 4)"},
        {"{\"id\": 3, \"content\": \"x\"}, {\"id\": 3, \"content\": \"x\"}",
         "token \"x\" is there twice"},
        {"{\"id\": 3, \"content\": \"\"}", "added_tokens: content (found \"\", expected a text)"},
        {"{\"id\": 3, \"content\": \"x\", \"strip\": true}", "option \"strip\" is not supported"},
        {"\"x\"", "added_tokens: "},
    };

    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        struct tokenizer_json json = {.vocab = plain.vocab, .added = cases[i].added};

        write_tokenizer(&json);
        assert_refused(GR_ERR_DATA, cases[i].message);
    }
}

TEST(tokenizer_file_that_is_none_is_refused)
{
    gr_test_enter_folder();
    assert_refused(GR_ERR_NOT_FOUND, "./tokenizer.json: ");
    gr_test_write_text("tokenizer.json", "{\"version\": \"1.0\",\n \"model\": {");
    assert_refused(
        GR_ERR_DATA,
        "./tokenizer.json:2: broken JSON in column 11 (string or '}' expected near end of file)");
    gr_test_write_text("tokenizer.json", "");
    assert_refused(GR_ERR_DATA, "./tokenizer.json:1: broken JSON");
    gr_test_write_text("tokenizer.json", "[]");
    assert_refused(GR_ERR_DATA, "the file (found [], expected an object)");
    gr_test_write_text("tokenizer.json", "{\"version\": \"2.0\"}");
    assert_refused(GR_ERR_DATA, "version (found \"2.0\", expected \"1.0\")");
    gr_test_write_text("tokenizer.json", "{\"version\": \"1.0\"}");
    assert_refused(GR_ERR_DATA, "model (found nothing");
    gr_test_write_text("tokenizer.json", "{\"version\": \"1.0\", \"extra\": 1, \"model\": {}}");
    assert_refused(GR_ERR_DATA, "option \"extra\" is not supported");
    gr_test_write_text("tokenizer.json",
                       "{\"version\": \"1.0\", \"model\": {\"type\": \"Unigram\", \"vocab\": []}}");
    assert_refused(GR_ERR_DATA, "model: type \"Unigram\" is not supported (expected BPE)");
}

/* transformers sets both anew for every call, so what a file was saved with means nothing. */
TEST(tokenizer_truncation_and_padding_of_the_file_are_left_out)
{
    struct gr_tokenizer *tokenizer = NULL;

    gr_test_enter_folder();
    gr_test_write_text(
        "tokenizer.json",
        "{\"version\": \"1.0\", \"truncation\": {\"direction\": \"Right\", \"max_length\": 2, "
        "\"strategy\": \"LongestFirst\", \"stride\": 0}, \"padding\": {\"strategy\": {\"Fixed\": "
        "8}, "
        "\"direction\": \"Right\", \"pad_to_multiple_of\": null, \"pad_id\": 1, \"pad_type_id\": "
        "0, "
        "\"pad_token\": \"b\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1}, "
        "\"merges\": []}}");
    ASSERT_OK(gr_tokenizer_create(&tokenizer, "."));
    ASSERT_SAYS(ids_of(tokenizer, "abab", true), "0 1 0 1");
    gr_tokenizer_destroy(tokenizer);
}

/* jansson refuses NUL in keys; vocabularies have it. */
TEST(tokenizer_nul_in_a_vocab_key_is_kept)
{
    struct gr_buffer text = {0};
    struct gr_encoding encoding = {0};
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .vocab = "\"\\u0000\": 0, \"a\": 1, \"\\\\u0000\": 2, \"a\\u0000b\" : 3",
        .added = "{\"id\": 4, \"content\": \"x\\u0000: \\\"\", \"normalized\": false}"});

    ASSERT_OK(gr_tokenizer_encode(tokenizer, &encoding, "a\0x\0: \"a", 8, true));
    ASSERT_INT(encoding.count, 4);
    ASSERT_INT(encoding.ids[1], 0);
    ASSERT_INT(encoding.ids[2], 4);
    ASSERT_OK(gr_tokenizer_decode(tokenizer, &text, (uint32_t[]){3, 2}, 2, false));
    ASSERT_INT(text.length, 10);
    ASSERT(memcmp(text.data, "a\0b \\u0000", 10) == 0);
    gr_buffer_release(&text);
    gr_encoding_release(&encoding);
    gr_tokenizer_destroy(tokenizer);
}

TEST(tokenizer_invalid_utf8_is_refused_with_its_position)
{
    static const struct {
        const char *text;
        int position;
    } cases[] = {
        {"ab\xFF", 2},
        {"\x80", 0},
        {"a\xC3", 1},            /* cut off */
        {"a\xC0\x80", 1},        /* overlong */
        {"\xE0\x80\x80", 0},     /* overlong */
        {"\xF0\x80\x80\x80", 0}, /* overlong */
        {"ab\xED\xA0\x80", 2},   /* a surrogate */
        {"\xF4\x90\x80\x80", 0}, /* above U+10FFFF */
        {"\xF0\x9F\x98\x80\xE6\x97", 4},
    };
    struct gr_tokenizer *tokenizer = make_tokenizer(&plain);
    struct gr_encoding encoding = {0};

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        char *expected = gr_format("text: is not valid UTF-8 at byte %d (", cases[i].position);

        gr_error_clear();
        ASSERT_INT(
            gr_tokenizer_encode(tokenizer, &encoding, cases[i].text, strlen(cases[i].text), true),
            GR_ERR_DATA);
        ASSERT_INT(encoding.count, 0);
        ASSERT_MSG(strncmp(gr_error_message(), expected, strlen(expected)) == 0,
                   "the message is \"%s\", expected \"%s\"", gr_error_message(), expected);
        gr_free(expected);
    }
    gr_encoding_release(&encoding);
    gr_tokenizer_destroy(tokenizer);
}

TEST(tokenizer_regex_that_gives_up_is_an_error)
{
    struct gr_encoding encoding = {0};
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .vocab = plain.vocab,
        .pre = "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(x+x+)+y\"}, \"behavior\": "
               "\"Isolated\", \"invert\": false}"});
    const char *text = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

    ASSERT_INT(gr_tokenizer_encode(tokenizer, &encoding, text, strlen(text), true), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "a regular expression of ./tokenizer.json gave up") != NULL);
    gr_encoding_release(&encoding);
    gr_tokenizer_destroy(tokenizer);
}

/* ---- tokenizer_config.json and chat_template.jinja ---- */

static struct gr_tokenizer *with_config(const char *config)
{
    struct gr_tokenizer *tokenizer = NULL;

    gr_test_write_text("tokenizer_config.json", config);
    ASSERT_OK(gr_tokenizer_create(&tokenizer, "."));
    return tokenizer;
}

TEST(tokenizer_config_names_bos_eos_and_template)
{
    struct gr_tokenizer *tokenizer = make_tokenizer(&plain);

    ASSERT_INT(gr_tokenizer_bos(tokenizer), -1);
    ASSERT_INT(gr_tokenizer_eos(tokenizer), -1);
    ASSERT_TEXT(gr_tokenizer_bos_text(tokenizer), "");
    ASSERT_TEXT(gr_tokenizer_eos_text(tokenizer), "");
    ASSERT(gr_tokenizer_chat_template(tokenizer) == NULL);
    gr_tokenizer_destroy(tokenizer);
    tokenizer = with_config("{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}, "
                            "\"model_max_length\": 1000000000000000019884624838656, "
                            "\"chat_template\": \"{{ x }}\\n\", \"added_tokens_decoder\": "
                            "{\"1\": {\"content\": \"<s>\"}}}");
    ASSERT_INT(gr_tokenizer_bos(tokenizer), 1);
    ASSERT_INT(gr_tokenizer_eos(tokenizer), 2);
    ASSERT_TEXT(gr_tokenizer_bos_text(tokenizer), "<s>");
    ASSERT_TEXT(gr_tokenizer_eos_text(tokenizer), "</s>");
    ASSERT_TEXT(gr_tokenizer_chat_template(tokenizer), "{{ x }}\n");
    gr_tokenizer_destroy(tokenizer);
    tokenizer = with_config("{\"bos_token\": null, \"chat_template\": [{\"name\": \"tool_use\", "
                            "\"template\": \"t\"}, {\"name\": \"default\", \"template\": \"d\"}]}");
    ASSERT_INT(gr_tokenizer_bos(tokenizer), -1);
    ASSERT_TEXT(gr_tokenizer_chat_template(tokenizer), "d");
    gr_tokenizer_destroy(tokenizer);
    gr_test_write_text("chat_template.jinja", "{{ file }}\n");
    tokenizer = with_config("{\"chat_template\": \"{{ x }}\"}");
    ASSERT_TEXT(gr_tokenizer_chat_template(tokenizer), "{{ file }}\n");
    gr_tokenizer_destroy(tokenizer);
}

TEST(tokenizer_config_of_another_model_is_refused)
{
    gr_test_enter_folder();
    write_tokenizer(&plain);
    gr_test_write_text("tokenizer_config.json", "{\"eos_token\": \"<end>\"}");
    assert_refused(GR_ERR_DATA, "./tokenizer_config.json: eos_token \"<end>\" is not a token of "
                                "tokenizer.json");
    gr_test_write_text("tokenizer_config.json",
                       "{\"added_tokens_decoder\": {\"3\": {\"content\": \"<pad>\"}}}");
    assert_refused(GR_ERR_DATA, "\"<pad>\" is not token 3 of tokenizer.json");
    gr_test_write_text("tokenizer_config.json",
                       "{\"added_tokens_decoder\": {\"1\": {\"content\": \"</s>\"}}}");
    assert_refused(GR_ERR_DATA, "\"</s>\" is not token 1 of tokenizer.json");
    gr_test_write_text("tokenizer_config.json", "{\"bos_token\": 1}");
    assert_refused(GR_ERR_DATA, "bos_token (found 1.0, expected a token)");
    gr_test_write_text("tokenizer_config.json", "{\"chat_template\": {}}");
    assert_refused(GR_ERR_DATA, "chat_template (found {}, expected a text)");
    gr_test_write_text("tokenizer_config.json", "{");
    assert_refused(GR_ERR_DATA, "./tokenizer_config.json:1: broken JSON");
}
