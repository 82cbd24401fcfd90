/* The stages of the tokenizer, each on a tokenizer made for it.  Where ids do not matter the model
 * knows no character and fuses unknown ones, so that every piece becomes one token: the offsets
 * show how the text was cut.  Expected values are those of `tokenizers` 0.22, offsets in bytes. */
#include "tests/tokenizer_helpers.h"

#include <time.h>

#define UNKNOWN_VOCAB "\"<unk>\": 0"
#define UNKNOWN_MODEL "\"unk_token\": \"<unk>\", \"fuse_unk\": true,"
#define ADDED(id, content, flags)                                                                  \
    "{\"id\": " #id ", \"content\": \"" content "\", \"normalized\": false" flags "}"

static void assert_cut(const char *pre, const char *text, const char *expected)
{
    struct tokenizer_json json = {.pre = pre, .vocab = UNKNOWN_VOCAB, .model = UNKNOWN_MODEL};
    struct gr_tokenizer *tokenizer = make_tokenizer(&json);
    char *spans = spans_of(tokenizer, text);

    ASSERT_MSG(strcmp(spans, expected) == 0, "%s cuts \"%s\"\n  into %s, expected %s", pre, text,
               spans, expected);
    gr_free(spans);
    gr_tokenizer_destroy(tokenizer);
}

/* ---- pre-tokenizers ---- */

static void assert_split(const char *behavior, const char *expected, const char *inverted)
{
    for (int invert = 0; invert < 2; invert++) {
        char *pre = gr_format("{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[-+]\"}, "
                              "\"behavior\": \"%s\", \"invert\": %s}",
                              behavior, invert ? "true" : "false");

        assert_cut(pre, "-a+-bc", invert ? inverted : expected);
        gr_free(pre);
    }
}

TEST(split_behaviors_join_matches_as_named)
{
    assert_split("Removed", "1-2 4-6", "0-1 2-3 3-4");
    assert_split("Isolated", "0-1 1-2 2-3 3-4 4-6", "0-1 1-2 2-3 3-4 4-6");
    assert_split("MergedWithPrevious", "0-1 1-3 3-4 4-6", "0-2 2-3 3-6");
    assert_split("MergedWithNext", "0-2 2-3 3-6", "0-1 1-3 3-4 4-6");
    assert_split("Contiguous", "0-1 1-2 2-4 4-6", "0-1 1-2 2-4 4-6");
}

TEST(split_text_is_literal_and_empty_matches_cut)
{
    assert_cut(
        "{\"type\": \"Split\", \"pattern\": {\"String\": \"..\"}, \"behavior\": \"Isolated\", "
        "\"invert\": false}",
        "ab...c", "0-2 2-4 4-6");
    assert_cut(
        "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"x*\"}, \"behavior\": \"Isolated\", "
        "\"invert\": false}",
        "ab\xC3\xA9xx", "0-1 1-2 2-4 4-6");
}

TEST(split_lookahead_ends_at_the_piece)
{
    assert_cut("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
               "{\"String\": \"b\"}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": "
               "\"Split\", \"pattern\": {\"Regex\": \"\\\\s+(?!\\\\S)\"}, \"behavior\": "
               "\"Isolated\", \"invert\": false}]}",
               "a   b  ", "0-1 1-4 4-5 5-7");
}

TEST(digits_alone_or_in_runs)
{
    assert_cut("{\"type\": \"Digits\", \"individual_digits\": true}", "a12\xC2\xBD b",
               "0-1 1-2 2-3 3-5 5-7");
    assert_cut("{\"type\": \"Digits\", \"individual_digits\": false}", "a12\xC2\xBD b",
               "0-1 1-5 5-7");
}

TEST(byte_level_regex_cuts_words_as_gpt2)
{
    const char *pre = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                      "\"trim_offsets\": true, \"use_regex\": true}";

    assert_cut(pre, "I'll  be 12,3\n\nok ",
               "0-1 1-4 4-5 5-8 8-11 11-12 12-13 13-14 14-15 15-17 17-18");
    assert_cut(pre, "\xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\x98\x80", "0-6 6-11");
}

TEST(byte_level_prefix_space_has_the_source_of_the_first_character)
{
    char *vocab = byte_level_vocab(NULL);
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .pre = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true}",
        .vocab = vocab});

    ASSERT_SAYS(ids_of(tokenizer, "\xC3\xA9", true), "32 195 169");
    ASSERT_SAYS(spans_of(tokenizer, "\xC3\xA9"), "0-2 0-1 1-2");
    ASSERT_SAYS(ids_of(tokenizer, " a", true), "32 97");
    ASSERT_SAYS(ids_of(tokenizer, "", true), "");
    gr_tokenizer_destroy(tokenizer);
    gr_free(vocab);
}

TEST(metaspace_schemes_and_split)
{
    static const struct {
        const char *scheme, *split, *expected, *behind_added;
    } cases[] = {
        {"always", "true", "0-1 1-2 2-4", "0-1 1-2"}, {"first", "true", "0-1 1-2 2-4", "0-1 1-2"},
        {"never", "true", "0-1 1-2 2-4", "0-1 1-2"},  {"always", "false", "0-4", "0-1 1-2"},
        {"never", "false", "0-4", "0-1 1-2"},
    };

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        char *pre = gr_format("{\"type\": \"Metaspace\", \"replacement\": \"_\", "
                              "\"prepend_scheme\": \"%s\", \"split\": %s}",
                              cases[i].scheme, cases[i].split);

        assert_cut(pre, "a  b", cases[i].expected);
        gr_free(pre);
    }
}

TEST(metaspace_first_means_the_start_of_the_input)
{
    static const struct {
        const char *scheme, *expected;
    } cases[] = {{"always", "1 2 4 1 2"}, {"first", "1 2 4 2"}, {"never", "2 4 2"}};

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        char *pre = gr_format("{\"type\": \"Metaspace\", \"replacement\": \"_\", "
                              "\"prepend_scheme\": \"%s\"}",
                              cases[i].scheme);
        struct gr_tokenizer *tokenizer = make_tokenizer(
            &(struct tokenizer_json){.pre = pre,
                                     .vocab = "\"<unk>\": 0, \"_\": 1, \"a\": 2, \"b\": 3",
                                     .added = ADDED(4, "<x>", "")});

        ASSERT_SAYS(ids_of(tokenizer, "a<x>a", true), cases[i].expected);
        gr_tokenizer_destroy(tokenizer);
        gr_free(pre);
    }
}

/* ---- normalizers ---- */

TEST(normalizers_prepend_and_replace_keep_sources)
{
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .normalizer =
            "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", "
            "\"prepend\": \"_\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
            "\"content\": \"_\"}]}",
        .vocab = "\"_\": 0, \"a\": 1, \"\xC3\xA9\": 2, \"_a\": 3",
        .merges = "\"_ a\"",
        .added = ADDED(4, "<x>", "")});

    ASSERT_SAYS(ids_of(tokenizer, "a \xC3\xA9<x>a", true), "3 0 2 4 3");
    ASSERT_SAYS(spans_of(tokenizer, "a \xC3\xA9<x>a"), "0-1 1-2 2-4 4-7 7-8");
    ASSERT_SAYS(spans_of(tokenizer, "\xC3\xA9"), "0-2 0-2");
    ASSERT_SAYS(ids_of(tokenizer, "", true), "");
    gr_tokenizer_destroy(tokenizer);
}

TEST(replace_of_several_characters_has_the_source_of_the_last)
{
    struct gr_tokenizer *tokenizer = make_tokenizer(
        &(struct tokenizer_json){.normalizer = "{\"type\": \"Replace\", \"pattern\": {\"Regex\": "
                                               "\"b+\xC3\xA9\"}, \"content\": \"cc\"}",
                                 .vocab = "\"a\": 0, \"c\": 1"});

    ASSERT_SAYS(ids_of(tokenizer,
                       "abb\xC3\xA9"
                       "a",
                       true),
                "0 1 1 0");
    ASSERT_SAYS(spans_of(tokenizer, "abb\xC3\xA9"
                                    "a"),
                "0-1 3-5 3-5 5-6");
    gr_tokenizer_destroy(tokenizer);
}

/* The ids are bytes, so that decoding shows the normalized text. */
static void assert_normalized(const char *form, const char *text, const char *expected,
                              const char *spans)
{
    char *vocab = byte_level_vocab(NULL), *normalizer = gr_format("{\"type\": \"%s\"}", form), *ids;
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .normalizer = normalizer,
        .vocab = vocab,
        .pre = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false}",
        .decoder =
            "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false}"});

    ids = ids_of(tokenizer, text, true);
    ASSERT_SAYS(text_of(tokenizer, ids, false), expected);
    ASSERT_SAYS(spans_of(tokenizer, text), spans);
    gr_free(ids);
    gr_tokenizer_destroy(tokenizer);
    gr_free(normalizer);
    gr_free(vocab);
}

TEST(unicode_forms_compose_decompose_and_align)
{
    assert_normalized("NFC", "ae\xCC\x81z", "a\xC3\xA9z", "0-1 1-2 1-2 4-5");
    assert_normalized("NFC", "\xC3\xA9z", "\xC3\xA9z", "0-1 1-2 2-3"); /* untouched: exact bytes */
    assert_normalized("NFD", "\xC3\xA9z", "e\xCC\x81z", "0-2 0-2 0-2 2-3");
    assert_normalized("NFKC", "\xEF\xAC\x81z", "fiz", "0-3 0-3 3-4");
    assert_normalized("NFKD", "\xEF\xBC\xA1", "A", "0-3");
    /* marks out of order: dot above (230) before dot below (220) */
    assert_normalized("NFD", "a\xCC\x87\xCC\xA3", "a\xCC\xA3\xCC\x87", "0-1 1-3 1-3 3-5 3-5");
    /* Hangul */
    assert_normalized("NFC", "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C", "0-3 0-3 0-3");
}

TEST(unicode_characters_after_version_9_are_left_alone)
{
    /* Dives Akuru vowel sign o, of Unicode 13, does not compose */
    assert_normalized("NFC", "\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0", "\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0",
                      "0-1 1-2 2-3 3-4 4-5 5-6 6-7 7-8");
    /* combining bindu below (class 7), of Unicode 11, does not move behind an overlay (class 1) */
    assert_normalized("NFD", "\xF0\x91\x8C\xBB\xCC\xB4", "\xF0\x91\x8C\xBB\xCC\xB4",
                      "0-1 1-2 2-3 3-4 4-5 5-6");
    /* square era name Reiwa, of 12.1, does not decompose */
    assert_normalized("NFKC", "\xE3\x8B\xBF", "\xE3\x8B\xBF", "0-1 1-2 2-3");
}

/* ---- added tokens ---- */

static void assert_added(const char *added, const char *text, const char *ids, const char *spans)
{
    struct tokenizer_json json = {.added = added, .vocab = UNKNOWN_VOCAB, .model = UNKNOWN_MODEL};
    struct gr_tokenizer *tokenizer = make_tokenizer(&json);

    ASSERT_SAYS(ids_of(tokenizer, text, false), ids);
    ASSERT_SAYS(spans_of(tokenizer, text), spans);
    gr_tokenizer_destroy(tokenizer);
}

TEST(added_tokens_longest_counts)
{
    assert_added(ADDED(1, "<x", "") "," ADDED(2, "<xyz>", "") "," ADDED(3, "yz", ""), "a<xyz><xyz",
                 "0 2 1 3", "0-1 1-6 6-8 8-10");
}

TEST(added_tokens_strip_takes_whitespace_along)
{
    assert_added(ADDED(1, "<x>", ", \"lstrip\": true"), "a \t<x> b", "0 1 0", "0-1 1-6 6-8");
    assert_added(ADDED(1, "<x>", ", \"rstrip\": true"), "a <x>\xE3\x80\x80\nb", "0 1 0",
                 "0-2 2-9 9-10");
    assert_added(ADDED(1, "<x>", ", \"lstrip\": true, \"rstrip\": true"), " <x>  <x> ", "1 1",
                 "0-6 6-10");
}

TEST(added_tokens_of_spaces_do_not_share_them)
{
    assert_added(ADDED(1, " ", ", \"lstrip\": true, \"rstrip\": true"), "a   b", "0 1 0",
                 "0-1 1-4 4-5");
    assert_added(ADDED(1, "<x>", ", \"rstrip\": true") "," ADDED(2, " b", ", \"lstrip\": true"),
                 "<x>   b", "1 2", "0-6 6-7");
    /* nothing of the second is left */
    assert_added(ADDED(1, "<x>", ", \"rstrip\": true") "," ADDED(2, "\\n", ", \"lstrip\": true"),
                 "<x> \n b", "1 0", "0-6 6-7");
}

TEST(added_tokens_single_word_needs_no_word_beside)
{
    const char *added = ADDED(1, "ab", ", \"single_word\": true");

    assert_added(added, "ab,ab abc", "1 0 1 0", "0-2 2-3 3-5 5-9");
    assert_added(added, "_ab", "0", "0-3");
    assert_added(added,
                 "\xCC\x81"
                 "ab",
                 "0", "0-4"); /* a combining mark */
    assert_added(added,
                 "\xE2\x92\xB6"
                 "ab",
                 "0", "0-5"); /* circled A, alphabetic */
    assert_added(added,
                 "\xC2\xBD"
                 "ab",
                 "0 1", "0-2 2-4"); /* one half is no word character */
}

TEST(added_tokens_normalized_are_found_in_the_normalized_text)
{
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .normalizer = "{\"type\": \"Prepend\", \"prepend\": \"_\"}",
        .vocab = UNKNOWN_VOCAB,
        .model = UNKNOWN_MODEL,
        .added = "{\"id\": 1, \"content\": \"<s>\", \"normalized\": true, \"special\": true}"});

    ASSERT_SAYS(ids_of(tokenizer, "<s>a", true), "1 0"); /* "_<s>" */
    ASSERT_SAYS(spans_of(tokenizer, "<s>a"), "0-3 3-4");
    ASSERT_SAYS(ids_of(tokenizer, "a<s>", true), "0"); /* as `tokenizers`: no "_<s>" there */
    gr_tokenizer_destroy(tokenizer);
}

TEST(added_tokens_special_come_first_where_normalized_texts_are_equal)
{
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .normalizer = "{\"type\": \"NFKC\"}",
        .vocab = UNKNOWN_VOCAB,
        .model = UNKNOWN_MODEL,
        .added = "{\"id\": 1, \"content\": \"fix\"}, "
                 "{\"id\": 2, \"content\": \"\xEF\xAC\x81x\", \"special\": true}"});

    ASSERT_SAYS(ids_of(tokenizer, "fix", true), "2");
    gr_tokenizer_destroy(tokenizer);
}

/* ---- model ---- */

TEST(bpe_merges_lowest_rank_first_and_leftmost)
{
    struct tokenizer_json json = {.vocab = "\"a\": 0, \"b\": 1, \"ab\": 2, \"aa\": 3, \"aab\": 4",
                                  .merges = "\"a a\", \"a b\", \"aa b\""};
    struct gr_tokenizer *tokenizer = make_tokenizer(&json);

    ASSERT_SAYS(ids_of(tokenizer, "aaab", true), "3 2");
    ASSERT_SAYS(ids_of(tokenizer, "aab", true), "4");
    ASSERT_SAYS(ids_of(tokenizer, "aaaaa", true), "3 3 0");
    ASSERT_SAYS(spans_of(tokenizer, "aaab"), "0-2 2-4");
    gr_tokenizer_destroy(tokenizer);
    json.merges = "[\"a\", \"a\"], [\"a\", \"b\"], [\"aa\", \"b\"]"; /* as newer files write them */
    tokenizer = make_tokenizer(&json);
    ASSERT_SAYS(ids_of(tokenizer, "aaab", true), "3 2");
    gr_tokenizer_destroy(tokenizer);
}

TEST(bpe_ignore_merges_takes_whole_words)
{
    struct tokenizer_json json = {.vocab = "\"a\": 0, \"b\": 1, \"aba\": 2"};
    struct gr_tokenizer *tokenizer = make_tokenizer(&json);

    ASSERT_SAYS(ids_of(tokenizer, "aba", true), "0 1 0");
    gr_tokenizer_destroy(tokenizer);
    json.model = "\"ignore_merges\": true,";
    tokenizer = make_tokenizer(&json);
    ASSERT_SAYS(ids_of(tokenizer, "aba", true), "2");
    ASSERT_SAYS(spans_of(tokenizer, "aba"), "0-3");
    gr_tokenizer_destroy(tokenizer);
}

TEST(bpe_byte_fallback_holds_exact_bytes)
{
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .vocab = "\"<unk>\": 0, \"<0xC3>\": 1, \"<0xA9>\": 2, \"a\": 3, \"<0xE6>\": 4",
        .model = "\"unk_token\": \"<unk>\", \"byte_fallback\": true, \"fuse_unk\": true,"});

    ASSERT_SAYS(ids_of(tokenizer, "a\xC3\xA9", true), "3 1 2");
    ASSERT_SAYS(spans_of(tokenizer, "a\xC3\xA9"), "0-1 1-2 2-3");
    /* not all bytes have a token: unknown as a whole, and held back over bytes that fall back */
    ASSERT_SAYS(ids_of(tokenizer,
                       "\xE6\x97\xA5\xC3\xA9"
                       "a",
                       true),
                "1 2 0 3");
    ASSERT_SAYS(spans_of(tokenizer, "\xE6\x97\xA5\xC3\xA9"
                                    "a"),
                "3-4 4-5 0-3 5-6");
    gr_tokenizer_destroy(tokenizer);
}

TEST(bpe_unknown_characters_fuse_if_asked)
{
    struct tokenizer_json json = {.vocab = "\"<unk>\": 0, \"a\": 1",
                                  .model = "\"unk_token\": \"<unk>\","};
    struct gr_tokenizer *tokenizer = make_tokenizer(&json);

    ASSERT_SAYS(ids_of(tokenizer, "xyaz", true), "0 0 1 0");
    gr_tokenizer_destroy(tokenizer);
    json.model = UNKNOWN_MODEL;
    tokenizer = make_tokenizer(&json);
    ASSERT_SAYS(ids_of(tokenizer, "xyaz", true), "0 1 0");
    ASSERT_SAYS(spans_of(tokenizer, "xyaz"), "0-2 2-3 3-4");
    gr_tokenizer_destroy(tokenizer);
    json.model = NULL; /* no unk_token: dropped */
    tokenizer = make_tokenizer(&json);
    ASSERT_SAYS(ids_of(tokenizer, "xyaz", true), "1");
    ASSERT_SAYS(spans_of(tokenizer, "xyaz"), "2-3");
    gr_tokenizer_destroy(tokenizer);
}

TEST(bpe_long_word_merges_in_order)
{
    enum { LENGTH = 20001 };
    static char text[LENGTH + 1];
    struct gr_encoding encoding = {0};
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .vocab = "\"a\": 0, \"aa\": 1, \"aaaa\": 2", .merges = "\"a a\", \"aa aa\""});

    memset(text, 'a', LENGTH);
    ASSERT_OK(gr_tokenizer_encode(tokenizer, &encoding, text, LENGTH, true));
    ASSERT_INT(encoding.count, LENGTH / 4 + 1);
    ASSERT_INT(encoding.ids[LENGTH / 4 - 1], 2);
    ASSERT_INT(encoding.ids[LENGTH / 4], 0);
    ASSERT_INT(encoding.end[LENGTH / 4], LENGTH);
    gr_encoding_release(&encoding);
    gr_tokenizer_destroy(tokenizer);
}

/* CPU seconds of the fastest of three encodings. */
static double seconds_of(const struct gr_tokenizer *tokenizer, const char *text, size_t length)
{
    struct gr_encoding encoding = {0};
    double best = 1e9;

    for (int i = 0; i < 3; i++) {
        struct timespec begin, end;
        double seconds;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
        ASSERT_OK(gr_tokenizer_encode(tokenizer, &encoding, text, length, true));
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
        seconds =
            (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
        best = seconds < best ? seconds : best;
    }
    gr_encoding_release(&encoding);
    return best;
}

/* n log n gives a bit more than 4 (and caches fill up), n squared 16. */
static void assert_no_square(const struct tokenizer_json *json, const char *const unit[2])
{
    enum { LONG = 400000 };
    struct gr_tokenizer *tokenizer = make_tokenizer(json);
    struct gr_buffer text = {0};
    double shorter, longer;

    for (uint32_t i = 0, random = 1; i < LONG; i++, random = random * 1664525u + 1013904223u)
        gr_buffer_add_text(&text, unit[random >> 31]);
    shorter = seconds_of(tokenizer, text.data, text.length / 4 & ~(size_t)1);
    longer = seconds_of(tokenizer, text.data, text.length);
    ASSERT_MSG(longer < 10 * shorter, "four times the text takes %.1f times as long (%g and %g s)",
               longer / shorter, shorter, longer);
    gr_buffer_release(&text);
    gr_tokenizer_destroy(tokenizer);
}

TEST(bpe_long_word_does_not_take_the_square)
{
    static const char *const letters[] = {"a", "b"};

    assert_no_square(
        &(struct tokenizer_json){
            .vocab = "\"a\": 0, \"b\": 1, \"ab\": 2, \"aa\": 3, \"abaa\": 4, \"bb\": 5, "
                     "\"aabb\": 6, \"abab\": 7, \"abababab\": 8, \"aabbabab\": 9",
            .merges = "\"a b\", \"a a\", \"ab aa\", \"b b\", \"aa bb\", \"ab ab\", "
                      "\"abab abab\", \"aabb abab\""},
        letters);
}

TEST(unicode_long_run_of_marks_does_not_take_the_square)
{
    static const char *const marks[] = {"\xCC\x81", "\xCC\xA3"}; /* above, below */

    assert_no_square(&(struct tokenizer_json){.normalizer = "{\"type\": \"NFC\"}",
                                              .vocab = UNKNOWN_VOCAB,
                                              .model = UNKNOWN_MODEL},
                     marks);
}

TEST(unicode_long_run_of_marks_is_in_order)
{
    enum { PAIRS = 100 };
    struct gr_buffer text = {0}, expected = {0};
    char *vocab = byte_level_vocab(NULL);
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .normalizer = "{\"type\": \"NFD\"}",
        .vocab = vocab,
        .pre = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false}"});

    for (int i = 0; i < PAIRS; i++) /* classes 230, 220, 230: the two of 230 keep their order */
        gr_buffer_add_text(&text, "\xCC\x81\xCC\xA3\xCC\x80");
    for (int i = 0; i < 3 * PAIRS; i++)
        gr_buffer_add_format(&expected, "%s%s", i == 0 ? "" : " ",
                             i < PAIRS              ? "204 163"
                             : (i - PAIRS) % 2 == 0 ? "204 129"
                                                    : "204 128");
    ASSERT_SAYS(ids_of(tokenizer, text.data, true), expected.data);
    gr_buffer_release(&text);
    gr_buffer_release(&expected);
    gr_tokenizer_destroy(tokenizer);
    gr_free(vocab);
}

/* ---- post-processor ---- */

TEST(template_surrounds_the_text_if_asked)
{
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .vocab = "\"a\": 0, \"<s>\": 1, \"</s>\": 2",
        .post =
            "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\", "
            "\"add_prefix_space\": true, \"trim_offsets\": true}, {\"type\": "
            "\"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"B\", \"type_id\": "
            "0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, {\"SpecialToken\": {\"id\": "
            "\"E\", \"type_id\": 0}}], \"pair\": [], \"special_tokens\": {\"B\": {\"id\": \"B\", "
            "\"ids\": [1, 1], \"tokens\": [\"<s>\", \"<s>\"]}, \"E\": {\"id\": \"E\", \"ids\": "
            "[2], \"tokens\": [\"</s>\"]}}}]}"});

    ASSERT_SAYS(ids_of(tokenizer, "aa", true), "1 1 0 0 2");
    ASSERT_SAYS(spans_of(tokenizer, "aa"), "0-0 0-0 0-1 1-2 0-0");
    ASSERT_SAYS(ids_of(tokenizer, "aa", false), "0 0");
    ASSERT_SAYS(ids_of(tokenizer, "", true), "1 1 2");
    gr_tokenizer_destroy(tokenizer);
}

/* ---- decoders ---- */

TEST(decoder_byte_level_replaces_broken_characters)
{
    char *vocab = byte_level_vocab("\"<x>\": 256");
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .vocab = vocab,
        .decoder = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true}",
        .added = ADDED(257, "<\xE6\x97\xA5>", ", \"special\": true")});

    ASSERT_SAYS(text_of(tokenizer, "32 195 169 10 257 256", false), " \xC3\xA9\n<\xE6\x97\xA5><x>");
    ASSERT_SAYS(text_of(tokenizer, "97 257 98", true), "ab");
    /* as String::from_utf8_lossy: one for each longest start of a character */
    ASSERT_SAYS(text_of(tokenizer, "230 151 97", false), "\xEF\xBF\xBD"
                                                         "a");
    ASSERT_SAYS(text_of(tokenizer, "237 160 128", false), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    ASSERT_SAYS(text_of(tokenizer, "240 159 152", false), "\xEF\xBF\xBD");
    ASSERT_SAYS(text_of(tokenizer, "192 128", false), "\xEF\xBF\xBD\xEF\xBF\xBD");
    gr_tokenizer_destroy(tokenizer);
    gr_free(vocab);
}

TEST(decoder_of_llama_joins_bytes_and_strips_one_space)
{
    struct gr_tokenizer *tokenizer = make_tokenizer(&(struct tokenizer_json){
        .vocab = "\"_a\": 0, \"<0xC3>\": 1, \"<0xa9>\": 2, \"_\": 3",
        .decoder =
            "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
            "{\"String\": \"_\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": "
            "\"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}"});

    ASSERT_SAYS(text_of(tokenizer, "3 0 0 1 2", false), " a a\xC3\xA9");
    ASSERT_SAYS(text_of(tokenizer, "1 1 2 0", false), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD a");
    ASSERT_SAYS(text_of(tokenizer, "", false), "");
    gr_tokenizer_destroy(tokenizer);
}

TEST(decoder_strip_and_metaspace_at_the_ends)
{
    struct tokenizer_json json = {.vocab = "\"__a__\": 0, \"_b\": 1, \"__\": 2"};
    struct gr_tokenizer *tokenizer;

    json.decoder = "{\"type\": \"Strip\", \"content\": \"_\", \"start\": 1, \"stop\": 3}";
    tokenizer = make_tokenizer(&json);
    ASSERT_SAYS(text_of(tokenizer, "0 1", false), "_ab");
    gr_tokenizer_destroy(tokenizer);
    json.decoder =
        "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"first\"}";
    tokenizer = make_tokenizer(&json);
    ASSERT_SAYS(text_of(tokenizer, "1 1 2", false), "b b  ");
    gr_tokenizer_destroy(tokenizer);
    json.decoder =
        "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"never\"}";
    tokenizer = make_tokenizer(&json);
    ASSERT_SAYS(text_of(tokenizer, "1 1", false), " b b");
    gr_tokenizer_destroy(tokenizer);
    json.decoder = NULL;
    tokenizer = make_tokenizer(&json);
    ASSERT_SAYS(text_of(tokenizer, "1 1", false), "_b _b");
    gr_tokenizer_destroy(tokenizer);
}

TEST(decode_ids_in_holes_are_nothing_and_others_refused)
{
    struct gr_buffer text = {0};
    struct gr_tokenizer *tokenizer =
        make_tokenizer(&(struct tokenizer_json){.vocab = "\"a\": 0, \"b\": 9"});

    ASSERT_INT(gr_tokenizer_vocab_size(tokenizer), 10);
    ASSERT_INT(gr_tokenizer_token_id(tokenizer, "b"), 9);
    ASSERT_INT(gr_tokenizer_token_id(tokenizer, "c"), -1);
    ASSERT_SAYS(text_of(tokenizer, "0 5 9", false), "a b");
    ASSERT_INT(gr_tokenizer_decode(tokenizer, &text, (uint32_t[]){10}, 1, false), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "./tokenizer.json: has no token 10 (10 tokens)");
    gr_buffer_release(&text);
    gr_tokenizer_destroy(tokenizer);
}
