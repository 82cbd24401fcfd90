/* Unicode normalization (UAX #15) over utf8proc's tables, keeping track of sources.  See unicode.h.
 *
 * Every character that comes out carries a change, the bookkeeping of `tokenizers`: 0, it stands
 * for the next character of the text; -n, it stands for that one and swallows n more; 1, it was
 * added behind the character before.  From the changes alone, in order, follow the sources. */
#include "data/tokenizer/unicode.h"

#include "kernels/base/alloc.h"
#include "kernels/base/status.h"

#include <oniguruma.h>
#include <string.h>
#include <utf8proc.h>

struct unit {
    int32_t code;
    int32_t change;
    uint16_t combining_class;
};

struct units {
    struct unit *unit;
    int64_t count, capacity;
    OnigCtype unicode_9; /* Oniguruma's number of the property "is in Unicode 9" */
};

/* `tokenizers` normalizes by tables of Unicode 9; characters that are newer neither decompose nor
 * combine for it.  What Unicode 9 has, Oniguruma knows. */
static bool is_known(const struct units *units, int32_t code)
{
    return ONIGENC_IS_CODE_CTYPE(ONIG_ENCODING_UTF8, (OnigCodePoint)code, units->unicode_9);
}

static OnigCtype find_unicode_9(void)
{
    static OnigUChar name[] = "Age=9.0";
    int found = ONIG_ENCODING_UTF8->property_name_to_ctype(ONIG_ENCODING_UTF8, name,
                                                           name + sizeof name - 1);

    GR_CHECK(found >= 0, "Oniguruma does not know the property Age=9.0");
    return (OnigCtype)found;
}

static void add_unit(struct units *units, int32_t code, int32_t change)
{
    uint16_t combining_class = (uint16_t)utf8proc_get_property(code)->combining_class;

    if (units->count == units->capacity) {
        units->capacity = units->capacity == 0 ? 256 : units->capacity * 2;
        units->unit = gr_realloc(units->unit, units->capacity, sizeof *units->unit);
    }
    if (combining_class != 0 && !is_known(units, code))
        combining_class = 0;
    units->unit[units->count++] = (struct unit){code, change, combining_class};
}

static void decompose(struct units *units, int32_t code, bool compatible)
{
    enum { LONGEST = 32 }; /* U+FDFA has 18 */
    utf8proc_option_t options = UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
    utf8proc_int32_t part[LONGEST] = {code};
    int boundary_class = 0;
    int64_t count = utf8proc_decompose_char(code, part, LONGEST, options, &boundary_class);

    if (part[0] != code && !is_known(units, code)) {
        part[0] = code;
        count = 1;
    }
    for (int64_t i = 0; i < count; i++)
        add_unit(units, part[i], i == 0 ? 0 : 1);
}

/* Canonical ordering: runs of combining characters by class, equal ones as they stand. */
static void reorder(struct units *units)
{
    for (int64_t i = 1; i < units->count; i++) {
        struct unit moved = units->unit[i];
        int64_t to = i;

        while (to > 0 && moved.combining_class != 0 &&
               units->unit[to - 1].combining_class > moved.combining_class) {
            units->unit[to] = units->unit[to - 1];
            to--;
        }
        units->unit[to] = moved;
    }
}

/* The character that two make together, -1 if none. */
static int32_t composed(const struct units *units, int32_t first, int32_t second)
{
    utf8proc_int32_t pair[2] = {first, second};

    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1 ||
        !is_known(units, pair[0]))
        return -1;
    return pair[0];
}

/* Canonical composition, in place: a combining character joins the last starter unless one of the
 * same or a higher class stands between. */
static void compose(struct units *units)
{
    int64_t starter = -1, kept = 0;

    for (int64_t i = 0; i < units->count; i++) {
        struct unit unit = units->unit[i];
        bool blocked =
            starter < 0 ||
            (kept - 1 > starter && units->unit[kept - 1].combining_class >= unit.combining_class);
        int32_t code = blocked ? -1 : composed(units, units->unit[starter].code, unit.code);

        if (code >= 0) {
            units->unit[starter].code = code;
            units->unit[starter].change += unit.change - 1;
            continue;
        }
        if (unit.combining_class == 0)
            starter = kept;
        units->unit[kept++] = unit;
    }
    units->count = kept;
}

/* Writes the units with the sources that follow from their changes. */
static void write_units(struct gr_text *out, const struct gr_text *in, struct gr_piece piece,
                        const struct units *units)
{
    struct gr_source previous = {in->source[piece.begin].begin, in->source[piece.begin].begin};
    int64_t at = piece.begin;

    for (int64_t i = 0; i < units->count; i++) {
        struct unit unit = units->unit[i];
        int64_t next = at;

        if (unit.change > 0) {
            gr_text_add_char(out, unit.code, previous);
            continue;
        }
        next += gr_char_bytes(in->bytes[at]);
        if (gr_char_at(in->bytes + at) == unit.code)
            gr_text_copy(out, in, at, next); /* the same character keeps its bytes' sources */
        else
            gr_text_add_char(out, unit.code, gr_text_source(in, at, next));
        for (int32_t swallowed = 0; swallowed < -unit.change; swallowed++) {
            at = next;
            next += gr_char_bytes(in->bytes[at]);
        }
        previous = gr_text_source(in, at, next);
        at = next;
    }
}

/* Characters below `limit` neither change nor combine. */
static bool is_normal(const struct gr_text *in, struct gr_piece piece, enum gr_unicode_form form)
{
    static const unsigned char lead[] = {
        /* first lead byte of a character that may: U+0300, U+00C0, U+00A0 */
        [GR_NFC] = 0xCC,
        [GR_NFD] = 0xC3,
        [GR_NFKC] = 0xC2,
        [GR_NFKD] = 0xC2};

    for (int64_t i = piece.begin; i < piece.end; i++) {
        if ((unsigned char)in->bytes[i] >= lead[form])
            return false;
    }
    return true;
}

void gr_unicode_normalize(struct gr_text *out, const struct gr_text *in, struct gr_piece piece,
                          enum gr_unicode_form form)
{
    struct units units = {.unicode_9 = find_unicode_9()};

    if (is_normal(in, piece, form)) {
        gr_text_copy(out, in, piece.begin, piece.end);
        return;
    }
    for (int64_t at = piece.begin; at < piece.end; at += gr_char_bytes(in->bytes[at]))
        decompose(&units, gr_char_at(in->bytes + at), form == GR_NFKC || form == GR_NFKD);
    reorder(&units);
    if (form == GR_NFC || form == GR_NFKC)
        compose(&units);
    write_units(out, in, piece, &units);
    gr_free(units.unit);
}
