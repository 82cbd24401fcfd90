/* Small tokenizers written into the current folder, and what they make of a text in one line. */
#ifndef GR_TESTS_TOKENIZER_HELPERS_H
#define GR_TESTS_TOKENIZER_HELPERS_H

#include "data/tokenizer/bytelevel.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"

/* Members of a tokenizer.json as JSON text; NULL: null, an empty list, or no such option. */
struct tokenizer_json {
    const char *added, *normalizer, *pre, *post, *decoder;
    const char *vocab, *merges;
    const char *model; /* further options, each with a comma behind it */
};

static const char *or_else(const char *text, const char *otherwise)
{
    return text == NULL ? otherwise : text;
}

static void write_tokenizer(const struct tokenizer_json *json)
{
    char *text = gr_format("{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,"
                           "\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s,"
                           "\"post_processor\": %s, \"decoder\": %s, \"model\": {\"type\": \"BPE\","
                           "%s \"vocab\": {%s}, \"merges\": [%s]}}",
                           or_else(json->added, ""), or_else(json->normalizer, "null"),
                           or_else(json->pre, "null"), or_else(json->post, "null"),
                           or_else(json->decoder, "null"), or_else(json->model, ""),
                           or_else(json->vocab, ""), or_else(json->merges, ""));

    gr_test_write_text("tokenizer.json", text);
    gr_free(text);
}

/* In a folder of the case's own, which the first call enters. */
static inline struct gr_tokenizer *make_tokenizer(const struct tokenizer_json *json)
{
    static bool inside;
    struct gr_tokenizer *tokenizer = NULL;

    if (!inside)
        gr_test_enter_folder();
    inside = true;
    write_tokenizer(json);
    ASSERT_OK(gr_tokenizer_create(&tokenizer, "."));
    return tokenizer;
}

/* The byte-level alphabet as vocab members: the token of a byte has the byte as its id; `more`
 * follows, from id 256. */
static inline char *byte_level_vocab(const char *more)
{
    struct gr_buffer text = {0};

    for (int byte = 0; byte < 256; byte++)
        gr_buffer_add_format(&text, "\"\\u%04X\": %d, ",
                             (unsigned)gr_byte_level_char((unsigned char)byte), byte);
    gr_buffer_add_text(&text, or_else(more, "\"unused\": 256"));
    return text.data;
}

/* "12 7": the ids. */
static inline char *ids_of(const struct gr_tokenizer *tokenizer, const char *text, bool specials)
{
    struct gr_encoding encoding = {0};
    struct gr_buffer out = {0};

    ASSERT_OK(gr_tokenizer_encode(tokenizer, &encoding, text, strlen(text), specials));
    gr_buffer_add(&out, "", 0);
    for (int64_t i = 0; i < encoding.count; i++)
        gr_buffer_add_format(&out, "%s%u", i == 0 ? "" : " ", encoding.ids[i]);
    gr_encoding_release(&encoding);
    return out.data;
}

/* "0-3 3-4": the bytes of each token. */
static inline char *spans_of(const struct gr_tokenizer *tokenizer, const char *text)
{
    struct gr_encoding encoding = {0};
    struct gr_buffer out = {0};

    ASSERT_OK(gr_tokenizer_encode(tokenizer, &encoding, text, strlen(text), true));
    gr_buffer_add(&out, "", 0);
    for (int64_t i = 0; i < encoding.count; i++)
        gr_buffer_add_format(&out, "%s%d-%d", i == 0 ? "" : " ", (int)encoding.begin[i],
                             (int)encoding.end[i]);
    gr_encoding_release(&encoding);
    return out.data;
}

/* Ids given as "12 7", decoded. */
static inline char *text_of(const struct gr_tokenizer *tokenizer, const char *ids,
                            bool skip_specials)
{
    struct gr_buffer out = {0};
    uint32_t list[64];
    int64_t count = 0;
    int used = 0;

    for (; sscanf(ids, "%u%n", &list[count], &used) == 1; ids += used)
        count++;
    gr_buffer_add(&out, "", 0);
    ASSERT_OK(gr_tokenizer_decode(tokenizer, &out, list, count, skip_specials));
    return out.data;
}

#define ASSERT_SAYS(call, expected)                                                                \
    do {                                                                                           \
        char *said_ = (call);                                                                      \
        ASSERT_MSG(strcmp(said_, (expected)) == 0, "%s is\n  \"%s\", expected\n  \"%s\"", #call,   \
                   said_, (expected));                                                             \
        gr_free(said_);                                                                            \
    } while (0)

#endif
