/* Unicode normalization (UAX #15) over utf8proc's tables, keeping track of sources.  See unicode.h.
 *
 * Every character that comes out carries a change, the bookkeeping of `tokenizers`: 0, it stands
 * for the next character of the text; -n, it stands for that one and swallows n more; 1, it was
 * added behind the character before.  From the changes alone, in order, follow the sources. */
#include "data/tokenizer/unicode.h"

#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"

#include <string.h>
#include <utf8proc.h>

struct unit {
    int32_t code;
    int32_t change;
    uint8_t combining_class;
};

struct units {
    struct unit *unit;
    int64_t count, capacity;
};

/* `tokenizers` normalizes by the tables of Unicode 9.  What has come since, up to Unicode 18, and
 * would decompose or combine lies in these ranges, together with characters that do neither; no
 * older character that does lies in them. */
static bool is_newer(int32_t code)
{
    static const struct {
        int32_t first, last;
    } range[] = {{0x0558, 0x0558},   {0x058B, 0x058C},   {0x05C8, 0x05C9},   {0x07FD, 0x07FD},
                 {0x0897, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},   {0x0D3B, 0x0D3C},
                 {0x0EBA, 0x0EBA},   {0x1715, 0x1715},   {0x1ABF, 0x1AF0},   {0x1DF6, 0x1DFA},
                 {0x209D, 0x209F},   {0x32FF, 0x32FF},   {0xA7F1, 0xA7F4},   {0xA82C, 0xA82C},
                 {0xAB69, 0xAB69},   {0x105C9, 0x107BF}, {0x10D24, 0x10F85}, {0x11070, 0x11070},
                 {0x1133B, 0x1133B}, {0x11383, 0x113D0}, {0x1145E, 0x1145E}, {0x11839, 0x11A99},
                 {0x11D42, 0x1612F}, {0x16D68, 0x1B126}, {0x1CCD6, 0x1D128}, {0x1D250, 0x1D281},
                 {0x1D6A6, 0x1D6A6}, {0x1DF95, 0x1DFFF}, {0x1E030, 0x1E6F5}, {0x1F16C, 0x1F16C},
                 {0x1FBF0, 0x1FBF9}};

    for (int64_t i = 0; i < GR_COUNT(range) && range[i].first <= code; i++) {
        if (code <= range[i].last)
            return true;
    }
    return false;
}

static void add_unit(struct units *units, int32_t code, int32_t change)
{
    uint8_t combining_class = (uint8_t)utf8proc_get_property(code)->combining_class;

    if (units->count == units->capacity) {
        units->capacity = units->capacity == 0 ? 256 : units->capacity * 2;
        units->unit = gr_realloc(units->unit, units->capacity, sizeof *units->unit);
    }
    if (combining_class != 0 && is_newer(code))
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

    if (part[0] != code && is_newer(code)) {
        part[0] = code;
        count = 1;
    }
    for (int64_t i = 0; i < count; i++)
        add_unit(units, part[i], i == 0 ? 0 : 1);
}

static void insert_by_class(struct unit *unit, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        struct unit moved = unit[i];
        int64_t to = i;

        while (to > 0 && unit[to - 1].combining_class > moved.combining_class) {
            unit[to] = unit[to - 1];
            to--;
        }
        unit[to] = moved;
    }
}

static void count_by_class(struct unit *unit, int64_t count)
{
    int64_t place[UINT8_MAX + 2] = {0}; /* where the next unit of a class goes */
    struct unit *sorted = GR_NEW_ARRAY(struct unit, count);

    for (int64_t i = 0; i < count; i++)
        place[unit[i].combining_class + 1]++;
    for (int64_t c = 0; c < UINT8_MAX; c++)
        place[c + 1] += place[c];
    for (int64_t i = 0; i < count; i++)
        sorted[place[unit[i].combining_class]++] = unit[i];
    memcpy(unit, sorted, (size_t)count * sizeof *unit);
    gr_free(sorted);
}

/* Canonical ordering: runs of combining characters by class, equal ones as they stand. */
static void reorder(struct units *units)
{
    enum { SHORT = 64 };
    int64_t end;

    for (int64_t begin = 0; begin < units->count; begin = end) {
        end = begin + 1;
        if (units->unit[begin].combining_class == 0)
            continue;
        while (end < units->count && units->unit[end].combining_class != 0)
            end++;
        if (end - begin <= SHORT)
            insert_by_class(units->unit + begin, end - begin);
        else
            count_by_class(units->unit + begin, end - begin);
    }
}

/* The character that two make together, -1 if none. */
static int32_t composed(int32_t first, int32_t second)
{
    utf8proc_int32_t pair[2] = {first, second};

    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1 ||
        is_newer(pair[0]))
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
        int32_t code = blocked ? -1 : composed(units->unit[starter].code, unit.code);

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
    int32_t first = gr_text_source(in, piece.begin, piece.begin + 1).begin;
    struct gr_origin previous = {first, first};
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
    struct units units = {0};

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

const char *gr_tokenizer_unicode_library(void)
{
    return utf8proc_version();
}
