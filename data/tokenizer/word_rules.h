/* Hand-written twins of the word patterns that most tokenizers have.  A pattern is recognised by
 * its text, byte for byte; all others go through Oniguruma.  What a letter, a digit or a space is
 * comes from Oniguruma's own tables, so that both find the same matches in every text.
 * Used by pattern.c; test_word_rules compares each row with its regular expression. */
#ifndef GR_DATA_TOKENIZER_WORD_RULES_H
#define GR_DATA_TOKENIZER_WORD_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* For each code point one of these.  \r and \n are spaces too. */
enum gr_char_class {
    GR_CHAR_OTHER, /* [^\s\p{L}\p{N}] */
    GR_CHAR_LETTER,
    GR_CHAR_NUMBER,
    GR_CHAR_SPACE,
    GR_CHAR_NEWLINE
};

struct gr_word_rule {
    const char *regex;
    /* The first match at or behind `from` in bytes [from, end) of valid UTF-8, where the text
     * ends at `end`; false if there is none.  Matches are never empty. */
    bool (*find)(const uint8_t *classes, const char *bytes, int64_t from, int64_t end,
                 int64_t *match_begin, int64_t *match_end);
};
extern const struct gr_word_rule gr_word_rules[]; /* ends with regex NULL */

/* The pattern GPT-2 cuts words with, as its tokenizer.json files leave it to ByteLevel. */
extern const char gr_gpt2_words[];

/* NULL: no rule has this regular expression. */
const struct gr_word_rule *gr_word_rule_find(const char *regex, size_t length);
/* enum gr_char_class of every code point, one byte each; the caller frees it. */
uint8_t *gr_char_classes_create(void);

#endif
