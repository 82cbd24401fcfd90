/* Growing, cutting and rewriting the text of an encoding.  See text.h. */
#include "data/tokenizer/text.h"

#include "kernels/base/alloc.h"

#include <string.h>
#include <utf8proc.h>

static int64_t grown(int64_t capacity, int64_t need)
{
    int64_t next = capacity < 64 ? 64 : capacity;

    while (next < need)
        next *= 2;
    return next;
}

/* False if the text would outgrow 32-bit positions. */
static bool reserve(struct gr_text *text, int64_t count)
{
    int64_t need = text->length + count;

    if (text->too_long || need > INT32_MAX) {
        text->too_long = true;
        return false;
    }
    if (need > text->capacity) {
        text->capacity = grown(text->capacity, need);
        text->bytes = gr_realloc(text->bytes, text->capacity, sizeof *text->bytes);
        text->source = gr_realloc(text->source, text->capacity, sizeof *text->source);
    }
    return true;
}

void gr_text_init(struct gr_text *text, const char *input, int64_t length)
{
    memset(text, 0, sizeof *text);
    if (length <= 0 || !reserve(text, length))
        return;
    memcpy(text->bytes, input, (size_t)length);
    for (int32_t i = 0; i < (int32_t)length; i++)
        text->source[i] = (struct gr_source){i, i + 1};
    text->length = length;
    gr_text_add_piece(text, 0, length, -1);
}

void gr_text_release(struct gr_text *text)
{
    gr_free(text->bytes);
    gr_free(text->source);
    gr_free(text->piece);
    memset(text, 0, sizeof *text);
}

void gr_text_add(struct gr_text *text, const char *bytes, int64_t count, struct gr_source source)
{
    if (!reserve(text, count))
        return;
    memcpy(text->bytes + text->length, bytes, (size_t)count);
    for (int64_t i = 0; i < count; i++)
        text->source[text->length + i] = source;
    text->length += count;
}

void gr_text_add_char(struct gr_text *text, int32_t code, struct gr_source source)
{
    char bytes[4];

    gr_text_add(text, bytes, gr_char_write(bytes, code), source);
}

void gr_text_copy(struct gr_text *text, const struct gr_text *from, int64_t begin, int64_t end)
{
    size_t count = (size_t)(end - begin);

    if (!reserve(text, end - begin))
        return;
    memcpy(text->bytes + text->length, from->bytes + begin, count);
    memcpy(text->source + text->length, from->source + begin, count * sizeof *from->source);
    text->length += end - begin;
}

void gr_text_add_piece(struct gr_text *text, int64_t begin, int64_t end, int32_t token)
{
    if (begin >= end)
        return;
    if (text->piece_count == text->piece_capacity) {
        text->piece_capacity = grown(text->piece_capacity, text->piece_count + 1);
        text->piece = gr_realloc(text->piece, text->piece_capacity, sizeof *text->piece);
    }
    text->piece[text->piece_count++] = (struct gr_piece){(int32_t)begin, (int32_t)end, token};
}

struct gr_source gr_text_source(const struct gr_text *text, int64_t begin, int64_t end)
{
    return (struct gr_source){text->source[begin].begin, text->source[end - 1].end};
}

void gr_text_rewrite(struct gr_text *text, gr_rewrite *rewrite, const void *context)
{
    struct gr_text out = {.too_long = text->too_long};

    reserve(&out, text->length);
    for (int64_t i = 0; i < text->piece_count; i++) {
        struct gr_piece piece = text->piece[i];
        int64_t begin = out.length;

        if (piece.token >= 0)
            gr_text_copy(&out, text, piece.begin, piece.end);
        else
            rewrite(context, &out, text, piece);
        gr_text_add_piece(&out, begin, out.length, piece.token);
    }
    gr_text_release(text);
    *text = out;
}

struct gr_piece *gr_text_take_pieces(struct gr_text *text, int64_t *count)
{
    struct gr_piece *pieces = text->piece;

    *count = text->piece_count;
    text->piece = NULL;
    text->piece_count = text->piece_capacity = 0;
    return pieces;
}

int32_t gr_char_at(const char *bytes)
{
    utf8proc_int32_t code;

    utf8proc_iterate((const utf8proc_uint8_t *)bytes, gr_char_bytes(bytes[0]), &code);
    return code;
}

int64_t gr_char_write(char bytes[4], int32_t code)
{
    return utf8proc_encode_char(code, (utf8proc_uint8_t *)bytes);
}

/* Length of the character at `bytes`, or -(length of the longest valid start of one, at least 1).
 */
static int64_t valid_bytes(const unsigned char *bytes, int64_t length)
{
    unsigned char lead = bytes[0];
    int64_t need = lead < 0x80                  ? 1
                   : lead < 0xC2 || lead > 0xF4 ? 0
                   : lead < 0xE0                ? 2
                   : lead < 0xF0                ? 3
                                                : 4;
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    int64_t i = 1;

    for (; i < need && i < length && bytes[i] >= low && bytes[i] <= high; i++) {
        low = 0x80; /* only the second byte has narrower bounds: no overlong forms, surrogates */
        high = 0xBF;
    }
    return i == need ? need : -i;
}

void gr_utf8_add_lossy(struct gr_buffer *out, const char *bytes, int64_t length)
{
    int64_t i = 0;

    while (i < length) {
        int64_t count = valid_bytes((const unsigned char *)bytes + i, length - i);

        if (count > 0)
            gr_buffer_add(out, bytes + i, (size_t)count);
        else
            gr_buffer_add(out, "\xEF\xBF\xBD", 3);
        i += count > 0 ? count : -count;
    }
}

int64_t gr_utf8_invalid_at(const char *bytes, int64_t length)
{
    int64_t i = 0;

    while (i < length) {
        int64_t count = valid_bytes((const unsigned char *)bytes + i, length - i);

        if (count < 0)
            return i;
        i += count;
    }
    return -1;
}
