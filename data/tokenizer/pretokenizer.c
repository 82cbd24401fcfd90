/* The pre-tokenizer stage: cuts the text into words and, for byte-level models, spells each byte as
 * a character.  Table at the end; called by tokenizer.c. */
#include "data/tokenizer/bytelevel.h"
#include "data/tokenizer/component.h"
#include "kernels/base/alloc.h"

#include <string.h>

/* Pieces between and on the matches of a pattern, joined as the behavior says. */
struct cutter {
    struct gr_text *text; /* collects the pieces */
    enum gr_split_behavior behavior;
    int64_t begin, end; /* the piece being made */
    bool open;          /* there is one */
    bool match;         /* the last segment was a match */
};

static void cut_segment(struct cutter *cutter, int64_t begin, int64_t end, bool match)
{
    bool joins = false;

    switch (cutter->behavior) {
    case GR_SPLIT_REMOVED:
    case GR_SPLIT_ISOLATED:
        break;
    case GR_SPLIT_WITH_PREVIOUS:
        joins = match && !cutter->match;
        break;
    case GR_SPLIT_WITH_NEXT:
        joins = !match && cutter->match;
        break;
    case GR_SPLIT_CONTIGUOUS:
        joins = match == cutter->match;
        break;
    }
    if (cutter->open && !joins)
        gr_text_add_piece(cutter->text, cutter->begin, cutter->end, -1);
    if (!cutter->open || !joins)
        cutter->begin = begin;
    cutter->end = end;
    cutter->open = !(match && cutter->behavior == GR_SPLIT_REMOVED);
    cutter->match = match;
}

static void cut_piece(struct gr_text *text, struct gr_piece piece, const struct gr_component *c,
                      struct gr_scan *scan)
{
    struct cutter cutter = {.text = text, .behavior = (enum gr_split_behavior)c->behavior};
    int64_t done = 0, length = piece.end - piece.begin;

    gr_scan_begin(scan, &c->pattern, text->bytes + piece.begin, length);
    while (gr_scan_next(scan)) {
        if (done < scan->begin)
            cut_segment(&cutter, piece.begin + done, piece.begin + scan->begin, c->invert);
        cut_segment(&cutter, piece.begin + scan->begin, piece.begin + scan->end, !c->invert);
        done = scan->end;
    }
    if (done < length)
        cut_segment(&cutter, piece.begin + done, piece.end, c->invert);
    if (cutter.open)
        gr_text_add_piece(text, cutter.begin, cutter.end, -1);
}

static void split(const struct gr_component *c, struct gr_text *text, bool *gave_up)
{
    struct gr_scan scan = {0};
    int64_t count;
    struct gr_piece *pieces = gr_text_take_pieces(text, &count);

    for (int64_t i = 0; i < count; i++) {
        if (pieces[i].token >= 0)
            gr_text_add_piece(text, pieces[i].begin, pieces[i].end, pieces[i].token);
        else
            cut_piece(text, pieces[i], c, &scan);
    }
    *gave_up = *gave_up || scan.gave_up;
    gr_scan_release(&scan);
    gr_free(pieces);
}

static gr_status digits_prepare(struct gr_component *c, const struct gr_json *json)
{
    c->behavior = c->individual_digits ? GR_SPLIT_ISOLATED : GR_SPLIT_CONTIGUOUS;
    return gr_pattern_set_regex(&c->pattern, "\\p{N}", 5, json->place);
}

static gr_status byte_level_prepare(struct gr_component *c, const struct gr_json *json)
{
    c->behavior = GR_SPLIT_ISOLATED;
    return gr_pattern_set_regex(&c->pattern, gr_gpt2_words, strlen(gr_gpt2_words), json->place);
}

/* Puts `prefix` before a piece that does not start with it; it has the source of the first
 * character, so that it is masked like the word it belongs to. */
static void add_prefix(struct gr_text *out, const struct gr_text *in, struct gr_piece piece,
                       const char *prefix, int64_t length)
{
    int64_t first = piece.begin + gr_char_bytes(in->bytes[piece.begin]);

    if (piece.end - piece.begin < length ||
        memcmp(in->bytes + piece.begin, prefix, (size_t)length) != 0)
        gr_text_add(out, prefix, length, gr_text_source(in, piece.begin, first));
}

static void prefix_space(const void *context, struct gr_text *out, const struct gr_text *in,
                         struct gr_piece piece)
{
    (void)context;
    add_prefix(out, in, piece, " ", 1);
    gr_text_copy(out, in, piece.begin, piece.end);
}

static void spell_bytes(const void *context, struct gr_text *out, const struct gr_text *in,
                        struct gr_piece piece)
{
    (void)context;
    for (int64_t i = piece.begin; i < piece.end; i++)
        gr_text_add_char(out, gr_byte_level_char((unsigned char)in->bytes[i]),
                         gr_text_source(in, i, i + 1));
}

static void byte_level(const struct gr_component *c, struct gr_text *text, bool *gave_up)
{
    if (c->add_prefix_space)
        gr_text_rewrite(text, prefix_space, NULL);
    if (c->use_regex)
        split(c, text, gave_up);
    if (c->leaves_spelling)
        text->spelled = true;
    else
        gr_text_rewrite(text, spell_bytes, NULL);
}

void gr_pre_tokenizer_leave_spelling(struct gr_stage *stage)
{
    struct gr_component *last;

    if (stage->count == 0)
        return;
    last = &stage->component[stage->count - 1];
    last->leaves_spelling = last->type->apply.to_text == byte_level;
}

static gr_status metaspace_prepare(struct gr_component *c, const struct gr_json *json)
{
    c->behavior = GR_SPLIT_WITH_NEXT;
    return gr_metaspace_prepare(c, json);
}

/* Spaces become the replacement; "first" means at the very start of the input. */
static void replace_spaces(const void *context, struct gr_text *out, const struct gr_text *in,
                           struct gr_piece piece)
{
    const struct gr_component *c = context;
    bool starts_with_space = in->bytes[piece.begin] == ' ';
    bool wanted = c->prepend_scheme == GR_PREPEND_ALWAYS ||
                  (c->prepend_scheme == GR_PREPEND_FIRST &&
                   gr_text_source(in, piece.begin, piece.begin + 1).begin == 0);
    int64_t end;

    if (wanted && !starts_with_space)
        add_prefix(out, in, piece, c->text, c->text_length);
    for (int64_t i = piece.begin; i < piece.end; i = end + 1) {
        const char *space = memchr(in->bytes + i, ' ', (size_t)(piece.end - i));

        end = space == NULL ? piece.end : space - in->bytes;
        gr_text_copy(out, in, i, end);
        if (space != NULL)
            gr_text_add(out, c->text, c->text_length, gr_text_source(in, end, end + 1));
    }
}

static void metaspace(const struct gr_component *c, struct gr_text *text, bool *gave_up)
{
    gr_text_rewrite(text, replace_spaces, c);
    if (c->split)
        split(c, text, gave_up);
}

static const struct gr_component_option split_options[] = {
    {.key = "pattern", .kind = GR_AS_PATTERN, .offset = GR_FIELD(pattern)},
    {.key = "behavior",
     .kind = GR_AS_WORD,
     .offset = GR_FIELD(behavior),
     .words = gr_split_behavior_words},
    {.key = "invert", .kind = GR_AS_BOOL, .offset = GR_FIELD(invert)},
    {0},
};
static const struct gr_component_option digits_options[] = {
    {.key = "individual_digits", .kind = GR_AS_BOOL, .offset = GR_FIELD(individual_digits)},
    {0},
};

static const struct gr_component_type types[] = {
    {"Split", split_options, .apply.to_text = split},
    {"Digits", digits_options, digits_prepare, .apply.to_text = split},
    {"ByteLevel", gr_byte_level_options, byte_level_prepare, .apply.to_text = byte_level},
    {"Metaspace", gr_metaspace_options, metaspace_prepare, .apply.to_text = metaspace},
    {0},
};
const struct gr_stage_kind gr_pre_tokenizer = {"pre_tokenizer", "pretokenizers", types};
