/* Growing, cutting and rewriting the text of an encoding.  See text.h. */
#include "data/tokenizer/text.h"

#include "kernels/base/alloc.h"

#include <string.h>

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
        text->own = gr_realloc(text->own, text->capacity, sizeof *text->own);
        text->source = gr_realloc(text->source, text->capacity, sizeof *text->source);
        text->bytes = text->own;
    }
    return true;
}

void gr_text_init(struct gr_text *text, const char *input, int64_t length)
{
    memset(text, 0, sizeof *text);
    text->too_long = length > INT32_MAX;
    if (length <= 0 || text->too_long)
        return;
    text->bytes = input;
    text->length = length;
    gr_text_add_piece(text, 0, length, -1);
}

void gr_text_release(struct gr_text *text)
{
    gr_free(text->own);
    gr_free(text->source);
    gr_free(text->piece);
    memset(text, 0, sizeof *text);
}

void gr_text_add(struct gr_text *text, const char *bytes, int64_t count, struct gr_origin source)
{
    if (!reserve(text, count))
        return;
    for (int64_t i = 0; i < count; i++) {
        text->own[text->length + i] = bytes[i];
        text->source[text->length + i] = source;
    }
    text->length += count;
}

void gr_text_add_char(struct gr_text *text, int32_t code, struct gr_origin source)
{
    char bytes[4];

    gr_text_add(text, bytes, gr_char_write(bytes, code), source);
}

void gr_text_copy(struct gr_text *text, const struct gr_text *from, int64_t begin, int64_t end)
{
    size_t count = (size_t)(end - begin);
    struct gr_origin *source;

    if (!reserve(text, end - begin))
        return;
    source = text->source + text->length;
    memcpy(text->own + text->length, from->bytes + begin, count);
    if (from->source != NULL)
        memcpy(source, from->source + begin, count * sizeof *source);
    for (int32_t i = (int32_t)begin; from->source == NULL && i < (int32_t)end; i++)
        *source++ = (struct gr_origin){i, i + 1};
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
