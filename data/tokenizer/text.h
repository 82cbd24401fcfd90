/* The text of one encoding on its way through the stages: its bytes, where each byte comes from in
 * the input, and the pieces it is cut into.  Splitting only cuts pieces; rewriting makes new bytes.
 * Used by the stages (added tokens, normalizer, pre-tokenizer); nothing outside data/tokenizer. */
#ifndef GR_DATA_TOKENIZER_TEXT_H
#define GR_DATA_TOKENIZER_TEXT_H

#include "data/utf8.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes [begin, end) of the input.  An untouched byte i has {i, i + 1}; a byte of a character that
 * a stage made has the range of the character it was made from, as in `tokenizers`. */
struct gr_origin {
    int32_t begin, end;
};

struct gr_piece {
    int32_t begin, end; /* bytes of the text; never empty */
    int32_t token;      /* id of the added token the piece is; -1: still text */
};

struct gr_text {
    const char *bytes;        /* the input, until a stage rewrites the text */
    struct gr_origin *source; /* one per byte; NULL: byte i is byte i of the input */
    int64_t length;
    char *own; /* bytes of a text that was written here; NULL: they are borrowed */
    int64_t capacity;
    bool spelled; /* for a byte-level model: each byte stands for the character it is spelled as */
    struct gr_piece *piece;
    int64_t piece_count, piece_capacity;
    bool too_long; /* sticky: positions would not fit in 32 bits; later additions do nothing */
};

/* One piece: the whole of the input (none if it is empty), which must be valid UTF-8 and stays the
 * caller's. */
void gr_text_init(struct gr_text *text, const char *input, int64_t length);
void gr_text_release(struct gr_text *text);

/* Appends bytes that all come from `source`. */
void gr_text_add(struct gr_text *text, const char *bytes, int64_t count, struct gr_origin source);
void gr_text_add_char(struct gr_text *text, int32_t code, struct gr_origin source);
/* Appends bytes [begin, end) of another text with their sources. */
void gr_text_copy(struct gr_text *text, const struct gr_text *from, int64_t begin, int64_t end);
/* A piece [begin, end); empty ones are left out. */
void gr_text_add_piece(struct gr_text *text, int64_t begin, int64_t end, int32_t token);
/* The input bytes that bytes [begin, end) of the text stand for; begin < end. */
static inline struct gr_origin gr_text_source(const struct gr_text *text, int64_t begin,
                                              int64_t end)
{
    if (text->source == NULL)
        return (struct gr_origin){(int32_t)begin, (int32_t)end};
    return (struct gr_origin){text->source[begin].begin, text->source[end - 1].end};
}

/* Gives every piece that is still text to `rewrite`, which appends what shall stand in its place
 * to `out`; added tokens are kept. */
typedef void gr_rewrite(const void *context, struct gr_text *out, const struct gr_text *in,
                        struct gr_piece piece);
void gr_text_rewrite(struct gr_text *text, gr_rewrite *rewrite, const void *context);

/* Takes the piece list away (the caller frees it) and leaves the text without pieces. */
struct gr_piece *gr_text_take_pieces(struct gr_text *text, int64_t *count);

#endif
