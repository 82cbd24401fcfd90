/* Supervised text made visible.  See show.h. */
#include "data/show.h"

#include "kernels/base/alloc.h"

#include <string.h>

/* style, label -> what goes before and after a run of tokens */
static const struct {
    const char *before, *after;
} marks[2][2] = {[GR_SHOW_BRACKETS] = {{"", ""}, {"[[", "]]"}},
                 [GR_SHOW_COLOURS] = {{"\x1b[2m", "\x1b[0m"}, {"\x1b[32m", "\x1b[0m"}}};

static void add_printable(struct gr_buffer *text, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        unsigned char next = i + 1 < length ? (unsigned char)bytes[i + 1] : 0;

        if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f)
            gr_buffer_add_format(text, "\\x%02x", byte);
        else if (byte == 0xc2 && next >= 0x80 && next <= 0x9f) /* U+0080 to U+009F */
            gr_buffer_add_format(text, "\\x%02x", bytes[++i] & 0xff);
        else
            gr_buffer_add(text, bytes + i, 1);
    }
}

static size_t common_prefix(const struct gr_buffer *a, const struct gr_buffer *b)
{
    size_t length = 0;

    while (length < a->length && length < b->length && a->data[length] == b->data[length])
        length++;
    return length;
}

/* Without the replacement characters at the end: a character whose bytes go on in the next token.
 */
static size_t whole_characters(const struct gr_buffer *text)
{
    size_t length = text->length;

    while (length >= 3 && memcmp(text->data + length - 3, "\xef\xbf\xbd", 3) == 0)
        length -= 3;
    return length;
}

/* Decoders look at more than one token (spaces at the start, characters in pieces), so a run is
 * what the text up to its end has more than the text up to its beginning. */
static gr_status show_tokens(struct gr_buffer *text, const struct gr_tokenizer *tokenizer,
                             const uint32_t *ids, const uint8_t *labels, int64_t count,
                             enum gr_show_style style)
{
    struct gr_buffer before = {0}, now = {0};
    gr_status status = GR_OK;

    for (int64_t begin = 0, end = 0; begin < count; begin = end) {
        bool label = labels[begin] != 0;
        struct gr_buffer swap;
        size_t from;

        while (end < count && (labels[end] != 0) == label)
            end++;
        gr_buffer_clear(&now);
        GR_TRY(gr_tokenizer_decode(tokenizer, &now, ids, end, false));
        from = common_prefix(&before, &now);
        if (end < count)
            now.length = whole_characters(&now);
        gr_buffer_add_text(text, marks[style][label].before);
        if (now.length > from)
            add_printable(text, now.data + from, now.length - from);
        gr_buffer_add_text(text, marks[style][label].after);
        swap = before;
        before = now;
        now = swap;
    }
out:
    gr_buffer_release(&before);
    gr_buffer_release(&now);
    return status;
}

gr_status gr_show_document(struct gr_buffer *text, const struct gr_tokenizer *tokenizer,
                           const struct gr_documents *documents, int64_t number,
                           enum gr_show_style style)
{
    const struct gr_document *d;

    GR_CHECK(number >= 0 && number < documents->count, "document %lld of %lld", (long long)number,
             (long long)documents->count);
    d = &documents->document[number];
    return show_tokens(text, tokenizer, documents->tokens + d->offset,
                       documents->labels + d->offset, d->length, style);
}

gr_status gr_show_first_pack(struct gr_buffer *text, const struct gr_tokenizer *tokenizer,
                             const struct gr_batch *batch, int64_t micro_batch_size,
                             enum gr_show_style style)
{
    int64_t pack_rows = batch->rows / micro_batch_size;
    uint8_t *labels = GR_NEW_ARRAY(uint8_t, batch->rows);
    gr_status status = GR_OK;

    for (int64_t i = 0; i < batch->label_count; i++)
        labels[batch->label_rows[i] + 1] = 1; /* a row's label is the token of the next row */
    for (int64_t i = 0; i < batch->doc_count && batch->docs[2 * i] < pack_rows; i++) {
        int64_t begin = batch->docs[2 * i], end = batch->docs[2 * i + 1], supervised = 0;

        for (int64_t row = begin; row < end; row++)
            supervised += labels[row];
        gr_buffer_add_format(text, "-- document %lld: %lld tokens, %lld supervised\n",
                             (long long)i + 1, (long long)(end - begin), (long long)supervised);
        GR_TRY(show_tokens(text, tokenizer, (const uint32_t *)batch->ids + begin, labels + begin,
                           end - begin, style));
        gr_buffer_add_text(text, "\n");
    }
out:
    gr_free(labels);
    return status;
}
