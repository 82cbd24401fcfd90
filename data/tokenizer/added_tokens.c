/* Finds added tokens in texts.  See added_tokens.h; they are read in added_tokens_read.c.
 * Source of the rules: AddedVocabulary of `tokenizers` (tokenizer/added_vocabulary.rs). */
#include "data/tokenizer/added_tokens.h"

#include "kernels/base/alloc.h"

#include <utf8proc.h>

/* The index of the longest token that starts at `at`, -1 if none. */
static int32_t longest_at(const struct gr_token_tree *tree, const char *bytes, int64_t at,
                          int64_t end, int64_t *token_end)
{
    int32_t node = 0, token = -1;

    for (; at < end; at++) {
        node = tree->node[node].child;
        while (node != 0 && tree->node[node].byte != (unsigned char)bytes[at])
            node = tree->node[node].sibling;
        if (node == 0)
            break;
        if (tree->node[node].token >= 0) {
            token = tree->node[node].token;
            *token_end = at + 1;
        }
    }
    return token;
}

/* Word characters of UTS #18: alphabetic, marks, decimal digits, connectors, joiners. */
static bool is_word(int32_t code)
{
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* the joiners, and the circled and squared letters, which are symbols */
        return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) ||
               (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
               (code >= 0x1F170 && code <= 0x1F189);
    }
}

/* White_Space of Unicode. */
static bool is_space(int32_t code)
{
    return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* Where the character before `at` starts. */
static int64_t before(const char *bytes, int64_t at)
{
    do
        at--;
    while (((unsigned char)bytes[at] & 0xC0) == 0x80);
    return at;
}

static bool stands_alone(const struct gr_text *text, struct gr_piece piece, int64_t begin,
                         int64_t end)
{
    return (begin == piece.begin ||
            !is_word(gr_char_at(text->bytes + before(text->bytes, begin)))) &&
           (end == piece.end || !is_word(gr_char_at(text->bytes + end)));
}

static void split_piece(const struct gr_added_tokens *added, const struct gr_token_tree *tree,
                        struct gr_text *text, struct gr_piece piece)
{
    int64_t done = piece.begin; /* what is before has become pieces */
    int64_t end = piece.begin;

    for (int64_t at = piece.begin; at < piece.end; at = end) {
        int32_t index = -1;
        int64_t from = at, to;

        end = at + 1;
        if (tree->starts[(unsigned char)text->bytes[at]])
            index = longest_at(tree, text->bytes, at, piece.end, &end);
        if (index < 0 || (added->token[index].single_word && !stands_alone(text, piece, at, end)))
            continue;
        to = end;
        while (added->token[index].lstrip && from > done &&
               is_space(gr_char_at(text->bytes + before(text->bytes, from))))
            from = before(text->bytes, from);
        while (added->token[index].rstrip && to < piece.end &&
               is_space(gr_char_at(text->bytes + to)))
            to += gr_char_bytes(text->bytes[to]);
        if (added->token[index].lstrip && from < done)
            from = done; /* a token that starts with spaces, inside those the last one took along */
        if (from > to)
            continue; /* nothing is left of it */
        gr_text_add_piece(text, done, from, -1);
        gr_text_add_piece(text, from, to, added->token[index].id);
        done = to;
    }
    gr_text_add_piece(text, done, piece.end, -1);
}

void gr_added_tokens_split(const struct gr_added_tokens *added, const struct gr_token_tree *tree,
                           struct gr_text *text)
{
    int64_t count;
    struct gr_piece *pieces;

    if (tree->count == 0)
        return;
    pieces = gr_text_take_pieces(text, &count);
    for (int64_t i = 0; i < count; i++) {
        if (pieces[i].token >= 0)
            gr_text_add_piece(text, pieces[i].begin, pieces[i].end, pieces[i].token);
        else
            split_piece(added, tree, text, pieces[i]);
    }
    gr_free(pieces);
}
