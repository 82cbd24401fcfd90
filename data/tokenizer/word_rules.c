/* The word patterns by hand.  See word_rules.h.  Each alternative of a pattern stands above the
 * lines that try it, in the pattern's order. */
#include "data/tokenizer/word_rules.h"

#include "data/tokenizer/text.h"
#include "kernels/base/alloc.h"
#include "kernels/base/status.h"

#include <oniguruma.h>
#include <string.h>

enum { CODE_POINTS = 0x110000 };

#define CONTRACTIONS "'s|'t|'re|'ve|'m|'ll|'d"
#define SPACES       "\\s+(?!\\S)|\\s+"
#define NEWER_WORDS(numbers)                                                                       \
    "(?i:" CONTRACTIONS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers                                 \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|" SPACES

const char gr_gpt2_words[] = CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" SPACES;

/* One character: its class, and where the next one starts. */
static inline int class_at(const uint8_t *classes, const char *bytes, int64_t at, int64_t *next)
{
    const unsigned char *b = (const unsigned char *)bytes + at;

    if (b[0] < 0x80) {
        *next = at + 1;
        return classes[b[0]];
    }
    if (b[0] < 0xE0) {
        *next = at + 2;
        return classes[(b[0] & 0x1F) << 6 | (b[1] & 0x3F)];
    }
    if (b[0] < 0xF0) {
        *next = at + 3;
        return classes[(b[0] & 0x0F) << 12 | (b[1] & 0x3F) << 6 | (b[2] & 0x3F)];
    }
    *next = at + 4;
    return classes[(b[0] & 0x07) << 18 | (b[1] & 0x3F) << 12 | (b[2] & 0x3F) << 6 | (b[3] & 0x3F)];
}

/* Where the characters of a class that go on at `at` end, after at most `most` of them. */
static inline int64_t end_of_run(const uint8_t *classes, const char *bytes, int64_t at, int64_t end,
                                 int class, int64_t most)
{
    int64_t next;

    for (; at < end && most > 0 && class_at(classes, bytes, at, &next) == class; most--)
        at = next;
    return at;
}

/* 's|'t|'re|'ve|'m|'ll|'d: bytes of the one at `at`, which is an apostrophe; 0 if none is there.
 * The long s (U+017F) is an s too where case does not count. */
static int64_t contraction(const char *bytes, int64_t at, int64_t end, bool any_case)
{
    int fold = any_case ? 0x20 : 0;
    int first = at + 1 < end ? (unsigned char)bytes[at + 1] : 0;
    int second = at + 2 < end ? (unsigned char)bytes[at + 2] : 0;

    if (any_case && first == 0xC5 && second == 0xBF)
        return 3;
    first |= fold;
    second |= fold;
    if (first == 's' || first == 't' || first == 'm' || first == 'd')
        return 2;
    if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l'))
        return 3;
    return 0;
}

/* \s+(?!\S)|\s+: all spaces up to the end of the text; else all but the last, which goes with the
 * word behind; else the one.  With `newlines` \s*[\r\n]+ comes first: up to the last newline. */
static int64_t end_of_spaces(const uint8_t *classes, const char *bytes, int64_t at, int64_t end,
                             bool newlines)
{
    int64_t begin = at, last = at, behind_newline = -1, next;
    int class;

    for (; at < end; at = next) {
        class = class_at(classes, bytes, at, &next);
        if (class != GR_CHAR_SPACE && class != GR_CHAR_NEWLINE)
            break;
        last = at;
        if (class == GR_CHAR_NEWLINE)
            behind_newline = next;
    }
    if (newlines && behind_newline >= 0)
        return behind_newline;
    return at == end || last == begin ? at : last;
}

static bool find_gpt2(const uint8_t *classes, const char *bytes, int64_t from, int64_t end,
                      int64_t *match_begin, int64_t *match_end)
{
    int64_t next, count = 0;
    int class;

    *match_begin = from;
    if (from >= end)
        return false;
    if (bytes[from] == '\'')
        count = contraction(bytes, from, end, false);
    *match_end = from + count;
    if (count > 0)
        return true;
    /* | ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+ */
    class = class_at(classes, bytes, from, &next);
    if (bytes[from] == ' ' && next < end)
        class = class_at(classes, bytes, next, &next);
    if (class == GR_CHAR_SPACE || class == GR_CHAR_NEWLINE)
        *match_end = end_of_spaces(classes, bytes, from, end, false);
    else
        *match_end = end_of_run(classes, bytes, next, end, class, end);
    return true;
}

static inline bool find_newer(const uint8_t *classes, const char *bytes, int64_t from, int64_t end,
                              int64_t *match_begin, int64_t *match_end, int64_t most_numbers)
{
    int64_t next, behind, count = 0;
    int class, following = -1;

    *match_begin = from;
    if (from >= end)
        return false;
    if (bytes[from] == '\'')
        count = contraction(bytes, from, end, true);
    *match_end = from + count;
    if (count > 0)
        return true;
    class = class_at(classes, bytes, from, &next);
    behind = next;
    if (class != GR_CHAR_LETTER && next < end)
        following = class_at(classes, bytes, next, &behind);
    /* [^\r\n\p{L}\p{N}]?\p{L}+ */
    if (class == GR_CHAR_LETTER ||
        (following == GR_CHAR_LETTER && class != GR_CHAR_NUMBER && class != GR_CHAR_NEWLINE)) {
        *match_end = end_of_run(classes, bytes, behind, end, GR_CHAR_LETTER, end);
    } else if (class == GR_CHAR_NUMBER) { /* \p{N}, \p{N}{1,3} */
        *match_end = end_of_run(classes, bytes, next, end, GR_CHAR_NUMBER, most_numbers - 1);
    } else if (class == GR_CHAR_OTHER || (bytes[from] == ' ' && following == GR_CHAR_OTHER)) {
        /* ` ?[^\s\p{L}\p{N}]+[\r\n]*` */
        next = end_of_run(classes, bytes, next, end, GR_CHAR_OTHER, end);
        *match_end = end_of_run(classes, bytes, next, end, GR_CHAR_NEWLINE, end);
    } else {
        *match_end = end_of_spaces(classes, bytes, from, end, true);
    }
    return true;
}

static bool find_llama3(const uint8_t *classes, const char *bytes, int64_t from, int64_t end,
                        int64_t *match_begin, int64_t *match_end)
{
    return find_newer(classes, bytes, from, end, match_begin, match_end, 3);
}

static bool find_qwen2(const uint8_t *classes, const char *bytes, int64_t from, int64_t end,
                       int64_t *match_begin, int64_t *match_end)
{
    return find_newer(classes, bytes, from, end, match_begin, match_end, 1);
}

static bool find_number(const uint8_t *classes, const char *bytes, int64_t from, int64_t end,
                        int64_t *match_begin, int64_t *match_end)
{
    for (*match_begin = from; *match_begin < end; *match_begin = *match_end) {
        if (class_at(classes, bytes, *match_begin, match_end) == GR_CHAR_NUMBER)
            return true;
    }
    return false;
}

const struct gr_word_rule gr_word_rules[] = {
    {gr_gpt2_words, find_gpt2},
    {NEWER_WORDS("\\p{N}{1,3}"), find_llama3},
    {NEWER_WORDS("\\p{N}"), find_qwen2},
    {"\\p{N}", find_number},
    {0},
};

const struct gr_word_rule *gr_word_rule_find(const char *regex, size_t length)
{
    for (const struct gr_word_rule *rule = gr_word_rules; rule->regex != NULL; rule++) {
        if (strlen(rule->regex) == length && memcmp(rule->regex, regex, length) == 0)
            return rule;
    }
    return NULL;
}

/* Oniguruma gives the code points of a property as ranges: a count, then first and last of each. */
static void set_class(uint8_t *classes, const char *property, int class)
{
    const OnigEncoding utf8 = ONIG_ENCODING_UTF8;
    OnigUChar *name = (OnigUChar *)property;
    int type = utf8->property_name_to_ctype(utf8, name, name + strlen(property));
    const OnigCodePoint *range = NULL;
    OnigCodePoint single_byte_end;

    GR_CHECK(type >= 0 &&
                 utf8->get_ctype_code_range((OnigCtype)type, &single_byte_end, &range) == 0,
             "property %s", property);
    for (OnigCodePoint i = 0; i < range[0]; i++) {
        OnigCodePoint first = range[1 + 2 * i], last = range[2 + 2 * i];

        if (first < CODE_POINTS)
            memset(classes + first, class, (last < CODE_POINTS ? last + 1 : CODE_POINTS) - first);
    }
}

uint8_t *gr_char_classes_create(void)
{
    uint8_t *classes = GR_NEW_ARRAY(uint8_t, CODE_POINTS);

    set_class(classes, "L", GR_CHAR_LETTER);
    set_class(classes, "N", GR_CHAR_NUMBER);
    set_class(classes, "Space", GR_CHAR_SPACE);
    classes['\r'] = classes['\n'] = GR_CHAR_NEWLINE;
    return classes;
}
