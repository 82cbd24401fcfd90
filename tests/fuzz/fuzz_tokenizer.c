/* A tokenizer.json is refused, or texts can be encoded and decoded with it.  Parts: tokenizer.json,
 * tokenizer_config.json, chat_template.jinja, and text. */
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void decode(const struct gr_tokenizer *tokenizer, const uint32_t *ids, int64_t count)
{
    for (int skip = 0; skip < 2; skip++) {
        struct gr_buffer text = {0};

        fuzz_end(gr_tokenizer_decode(tokenizer, &text, ids, count, skip == 1));
        gr_buffer_release(&text);
    }
}

static void encode(const struct gr_tokenizer *tokenizer, const struct fuzz_part *text)
{
    int64_t vocab = gr_tokenizer_vocab_size(tokenizer);

    for (int specials = 0; specials < 2; specials++) {
        struct gr_encoding e = {0};
        gr_status status =
            gr_tokenizer_encode(tokenizer, &e, text->bytes, text->count, specials == 1);

        for (int64_t i = 0; i < e.count && status == GR_OK; i++) {
            FUZZ_ASSERT(e.ids[i] < vocab);
            FUZZ_ASSERT(e.begin[i] >= 0 && e.begin[i] <= e.end[i] &&
                        e.end[i] <= (int64_t)text->count);
        }
        if (status == GR_OK)
            decode(tokenizer, e.ids, e.count);
        gr_encoding_release(&e);
        fuzz_end(status);
    }
}

/* The text once more, as ids of nobody's making. */
static void decode_bytes(const struct gr_tokenizer *tokenizer, const struct fuzz_part *text)
{
    int64_t vocab = gr_tokenizer_vocab_size(tokenizer), count = (int64_t)text->count;
    uint32_t *ids = GR_NEW_ARRAY(uint32_t, count);

    for (int64_t i = 0; i < count; i++)
        ids[i] = (uint32_t)((uint8_t)text->bytes[i] % (vocab + (i % 8 == 0)));
    decode(tokenizer, ids, count);
    gr_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_part nothing = {.bytes = ""};
    struct fuzz_part part[FUZZ_PARTS];
    int count = fuzz_split(part, data, size);
    const struct fuzz_part *text = fuzz_find(part, count, "text");
    struct gr_tokenizer *tokenizer = NULL;
    gr_status status;

    fuzz_write_part("tokenizer.json", fuzz_find(part, count, "tokenizer.json"));
    fuzz_write_part("tokenizer_config.json", fuzz_find(part, count, "tokenizer_config.json"));
    fuzz_write_part("chat_template.jinja", fuzz_find(part, count, "chat_template.jinja"));
    status = gr_tokenizer_create(&tokenizer, fuzz_folder());
    fuzz_end(status);
    if (status == GR_OK) {
        FUZZ_ASSERT(gr_tokenizer_vocab_size(tokenizer) > 0);
        FUZZ_ASSERT(gr_tokenizer_eos(tokenizer) < gr_tokenizer_vocab_size(tokenizer));
        FUZZ_ASSERT(gr_tokenizer_bos(tokenizer) < gr_tokenizer_vocab_size(tokenizer));
        encode(tokenizer, text == NULL ? &nothing : text);
        decode_bytes(tokenizer, text == NULL ? &nothing : text);
    }
    gr_tokenizer_destroy(tokenizer);
    return 0;
}
