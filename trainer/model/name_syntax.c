/* Reads an expression as Python's re does (its Lib/re/_parser.py), to find what Oniguruma would
 * take for something else.  See name_syntax.h; name_match.c calls it before it compiles.
 * A list of what is allowed, so that what nobody thought of is refused.  Names of modules are of
 * letters, digits, `_` and `.`: what tells only line ends apart is alike on them. */
#include "trainer/model/name_syntax.h"

#include "data/utf8.h"

#include <string.h>

enum {
    VARIES = -1,     /* as a width: matches are not all equally long */
    CLASS = -1,      /* as a member of brackets: many characters */
    MOST_DEPTH = 200 /* of groups; Python's own recursion ends soon after */
};

struct scan {
    const char *text;
    const char *at;
    bool is_new, is_inner;
    int depth;
    struct gr_name_syntax found;
};

/* What was read of it, and whether a * may follow. */
struct item {
    int64_t width; /* in characters, or VARIES */
    bool repeats;
};

static int64_t read_alternatives(struct scan *s);

static bool is_one_of(const char *set, char c)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static bool is_digit(char c)
{
    return is_one_of("0123456789", c);
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Ends the scan, as far as its loops can see. */
static void refuse(struct scan *s, const char *begin, const char *end)
{
    if (s->found.length == 0)
        s->found = (struct gr_name_syntax){begin - s->text, end - begin};
    s->at = s->text + strlen(s->text);
}

/* Alike in Oniguruma, but not in every Python, or hardly ever written. */
static void pass_rare(struct scan *s, const char *begin, const char *end)
{
    s->at = end;
    if (s->is_new)
        refuse(s, begin, end);
}

static const char *skip_char(const char *at)
{
    return *at == '\0' ? at : at + gr_char_bytes(*at);
}

/* ---- escapes and brackets ---- */

/* So many hexadecimal digits behind \x or \u. */
static int32_t read_hex(struct scan *s, int digits)
{
    int32_t code = 0;
    const char *begin = s->at;

    s->at += 2;
    for (int i = 0; i < digits; i++, s->at++) {
        static const char hex[] = "0123456789abcdef";
        const char *digit = *s->at == '\0' ? NULL : strchr(hex, *s->at | (is_letter(*s->at) << 5));

        if (digit == NULL) {
            refuse(s, begin, begin + 2);
            return CLASS;
        }
        code = code * 16 + (int32_t)(digit - hex);
    }
    return code;
}

/* An escape for one character or a class of them: its code point, or CLASS. */
static int32_t read_escaped(struct scan *s)
{
    static const char names[] = "nrtfvab", codes[] = "\n\r\t\f\v\a\b";
    const char *begin = s->at;
    char c = begin[1];
    int32_t code = CLASS;

    if (c == 'x' && is_one_of("01234567", begin[2])) /* above: a byte to Oniguruma */
        return read_hex(s, 2);
    if (c == 'u')
        return read_hex(s, 4);
    s->at = skip_char(begin + 1);
    if (is_one_of("dDsSwW", c))
        return CLASS;
    if (is_one_of(names, c))
        return codes[strchr(names, c) - names];
    if (is_letter(c) || is_digit(c))
        refuse(s, begin, s->at);
    else if (c != '\0')
        code = gr_char_at(begin + 1);
    return code;
}

static int32_t read_member(struct scan *s)
{
    const char *begin = s->at, *end = NULL;
    bool is_doubled = is_one_of("&-~|", begin[0]) && begin[0] == begin[1];

    if (begin[0] == '\\')
        return read_escaped(s);
    s->at = skip_char(begin);
    if (begin[0] == '[' && is_one_of(":.=", begin[1])) {
        end = strstr(begin, ":]");
        refuse(s, begin, end == NULL ? begin + 2 : end + 2);
    } else if (is_doubled || begin[0] == '[') { /* operations on sets in some later Python */
        pass_rare(s, begin, begin + 1 + is_doubled);
        s->at -= is_doubled && *s->at != '\0';
    }
    return begin[0] == '\0' ? CLASS : gr_char_at(begin);
}

static struct item read_brackets(struct scan *s)
{
    bool is_first = true;

    s->at += s->at[1] == '^' ? 2 : 1;
    for (; *s->at != '\0' && (is_first || *s->at != ']'); is_first = false) {
        const char *begin = s->at;
        int32_t low = read_member(s), high;

        if (s->at[0] != '-' || s->at[1] == ']' || s->at[1] == '\0')
            continue;
        s->at++;
        high = read_member(s);
        if (low == CLASS || high == CLASS || low > high)
            refuse(s, begin, s->at);
    }
    s->at = skip_char(s->at);
    return (struct item){1, true};
}

static struct item read_escape(struct scan *s)
{
    const char *begin = s->at;

    if (is_one_of("bBAZ", begin[1])) {
        s->at += 2;
        return (struct item){0, false};
    }
    if (is_digit(begin[1]) && begin[1] != '0' && !is_digit(begin[2])) {
        pass_rare(s, begin, begin + 2);
        return (struct item){VARIES, true};
    }
    read_escaped(s);
    return (struct item){1, true};
}

/* ---- groups ---- */

/* (?i) and (?i:...), s->at at the flags. */
static struct item read_flags(struct scan *s, const char *begin)
{
    const char *flags = s->at, *end;

    flags += *flags == '-';
    end = flags + strspn(flags, "ims");
    if (end > flags && *end == ':') {
        s->at = end + 1;
        return (struct item){read_alternatives(s), true};
    }
    s->at = end;
    if (end == flags || *end != ')' || *s->at == '-' || begin > s->text || s->is_inner)
        refuse(s, begin, skip_char(end));
    return (struct item){0, false};
}

/* (?P<name>...) and (?P=name) */
static struct item read_named(struct scan *s, const char *begin)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    char kind = s->at[1], end = kind == '<' ? '>' : ')';
    const char *name = s->at + 2;

    if ((kind != '<' && kind != '=') || is_digit(*name) || strspn(name, word) == 0 ||
        name[strspn(name, word)] != end) {
        refuse(s, begin, begin + 3);
        return (struct item){VARIES, false};
    }
    s->at = name + strspn(name, word);
    if (kind == '=') {
        pass_rare(s, begin, s->at);
        return (struct item){VARIES, true};
    }
    s->at++;
    return (struct item){read_alternatives(s), true};
}

static struct item read_look_behind(struct scan *s, const char *begin)
{
    if (s->at[1] != '=' && s->at[1] != '!') {
        refuse(s, begin, begin + 3);
    } else {
        s->at += 2;
        if (read_alternatives(s) == VARIES)
            refuse(s, begin, skip_char(s->at));
    }
    return (struct item){0, false};
}

/* Behind "(?". */
static struct item read_extension(struct scan *s, const char *begin)
{
    switch (*s->at) {
    case ':':
        s->at++;
        return (struct item){read_alternatives(s), true};
    case '=':
    case '!':
        s->at++;
        read_alternatives(s);
        return (struct item){0, false};
    case '<':
        return read_look_behind(s, begin);
    case 'P':
        return read_named(s, begin);
    case '>':
        pass_rare(s, begin, s->at + 1);
        return (struct item){read_alternatives(s), true};
    case '#':
        pass_rare(s, begin, s->at + 1);
        s->at += strcspn(s->at, ")");
        return (struct item){0, false};
    default:
        return read_flags(s, begin);
    }
}

static struct item read_group(struct scan *s)
{
    const char *begin = s->at;
    struct item item = {0, true};

    if (++s->depth > MOST_DEPTH) {
        refuse(s, begin, begin + 1);
        return item;
    }
    s->at += begin[1] == '?' ? 2 : 1;
    if (begin[1] == '?')
        item = read_extension(s, begin);
    else
        item.width = read_alternatives(s);
    s->at = skip_char(s->at); /* the parenthesis that ends it */
    s->depth--;
    return item;
}

/* ---- repetitions ---- */

/* {2} {2,} {2,3} {,3}; the width of an item that stands so often. */
static int64_t read_interval(struct scan *s, int64_t width)
{
    const char *begin = s->at, *end = begin + strcspn(begin, "}");
    int64_t count[2] = {0, 0};
    int given[2] = {0, 0}, i = 0;

    for (s->at++; s->at < end && (is_digit(*s->at) || (*s->at == ',' && i == 0)); s->at++) {
        if (*s->at == ',') {
            i = 1;
        } else if (++given[i] < 9) {
            count[i] = count[i] * 10 + (*s->at - '0');
        }
    }
    if (*end == '\0' || s->at != end || given[0] + given[1] == 0 || given[0] > 8 || given[1] > 8 ||
        (given[1] > 0 && count[0] > count[1])) {
        refuse(s, begin, *end == '\0' ? begin + 1 : end + 1);
        return VARIES;
    }
    s->at = end + 1;
    return width == VARIES || (i == 1 && (given[1] == 0 || count[0] != count[1]))
               ? VARIES
               : width * count[0];
}

static int64_t read_repeats(struct scan *s, struct item item)
{
    const char *begin = s->at;
    int64_t width = item.width;

    if (!is_one_of("*+?{", *begin))
        return width;
    if (!item.repeats) {
        refuse(s, begin, begin + 1);
    } else if (*begin == '{') {
        width = read_interval(s, width);
    } else {
        s->at++;
        width = VARIES;
    }
    s->at += *s->at == '?';
    if (is_one_of("*+?{", *s->at)) /* ++ is one thing in Python 3.11, an error before, two here */
        refuse(s, begin, s->at + 1);
    return width;
}

static struct item read_item(struct scan *s)
{
    const char *begin = s->at;

    switch (*begin) {
    case '\\':
        return read_escape(s);
    case '[':
        return read_brackets(s);
    case '(':
        return read_group(s);
    case '*':
    case '+':
    case '?':
    case '{':
        return (struct item){0, false};
    default:
        s->at = skip_char(begin);
        if (*begin == '^' || *begin == '$')
            return (struct item){0, false};
        return (struct item){1, true};
    }
}

static int64_t read_branch(struct scan *s)
{
    int64_t width = 0;

    while (*s->at != '\0' && *s->at != '|' && *s->at != ')') {
        int64_t more = read_repeats(s, read_item(s));

        width = width == VARIES || more == VARIES ? VARIES : width + more;
    }
    return width;
}

/* Up to the end or the parenthesis there. */
static int64_t read_alternatives(struct scan *s)
{
    int64_t width = read_branch(s);

    while (*s->at == '|') {
        s->at++;
        if (read_branch(s) != width)
            width = VARIES;
    }
    return width;
}

struct gr_name_syntax gr_name_syntax_check(const char *expression, bool is_new, bool is_inner)
{
    struct scan s = {.text = expression, .at = expression, .is_new = is_new, .is_inner = is_inner};

    if (gr_utf8_invalid_at(expression, (int64_t)strlen(expression)) >= 0)
        return s.found; /* compiling finds it */
    read_alternatives(&s);
    if (*s.at == ')')
        refuse(&s, s.at, s.at + 1);
    return s.found;
}
