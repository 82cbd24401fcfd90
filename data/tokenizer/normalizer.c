/* The normalizer stage: rewrites the text before it is cut.  Each component sees one piece at a
 * time, so Prepend acts behind every added token.  Table at the end; called by tokenizer.c. */
#include "data/tokenizer/component.h"
#include "data/tokenizer/unicode.h"

static void prepend_to(const void *context, struct gr_text *out, const struct gr_text *in,
                       struct gr_piece piece)
{
    const struct gr_component *c = context;
    int64_t first = piece.begin + gr_char_bytes(in->bytes[piece.begin]);

    gr_text_add(out, c->text, c->text_length, gr_text_source(in, piece.begin, first));
    gr_text_copy(out, in, piece.begin, piece.end);
}

static void prepend(const struct gr_component *c, struct gr_text *text, bool *gave_up)
{
    (void)gave_up;
    gr_text_rewrite(text, prepend_to, c);
}

struct replacing {
    const struct gr_component *component;
    struct gr_scan *scan;
};

/* The new text has the source of the last character it replaces, as in `tokenizers`; where it
 * replaces nothing, that of the character before. */
static void replace_in(const void *context, struct gr_text *out, const struct gr_text *in,
                       struct gr_piece piece)
{
    const struct replacing *replacing = context;
    const struct gr_component *c = replacing->component;
    struct gr_scan *scan = replacing->scan;
    int64_t written = piece.begin;

    gr_scan_begin(scan, &c->pattern, in->bytes + piece.begin, piece.end - piece.begin);
    while (gr_scan_next(scan)) {
        int64_t end = piece.begin + scan->end, last = end - 1;
        int32_t first = gr_text_source(in, piece.begin, piece.begin + 1).begin;
        struct gr_origin source = {first, first};

        while (last > piece.begin && ((unsigned char)in->bytes[last] & 0xC0) == 0x80)
            last--;
        if (last >= piece.begin)
            source = gr_text_source(in, last, end);
        gr_text_copy(out, in, written, piece.begin + scan->begin);
        gr_text_add(out, c->text, c->text_length, source);
        written = end;
    }
    gr_text_copy(out, in, written, piece.end);
}

static void replace(const struct gr_component *c, struct gr_text *text, bool *gave_up)
{
    struct gr_scan scan = {0};
    struct replacing replacing = {c, &scan};

    gr_text_rewrite(text, replace_in, &replacing);
    *gave_up = *gave_up || scan.gave_up;
    gr_scan_release(&scan);
}

static void normalize(const void *context, struct gr_text *out, const struct gr_text *in,
                      struct gr_piece piece)
{
    gr_unicode_normalize(out, in, piece, *(const enum gr_unicode_form *)context);
}

#define GR_UNICODE_FORM(function, form)                                                            \
    static void function(const struct gr_component *c, struct gr_text *text, bool *gave_up)        \
    {                                                                                              \
        enum gr_unicode_form wanted = form;                                                        \
                                                                                                   \
        (void)c;                                                                                   \
        (void)gave_up;                                                                             \
        gr_text_rewrite(text, normalize, &wanted);                                                 \
    }
GR_UNICODE_FORM(nfc, GR_NFC)
GR_UNICODE_FORM(nfd, GR_NFD)
GR_UNICODE_FORM(nfkc, GR_NFKC)
GR_UNICODE_FORM(nfkd, GR_NFKD)

static const struct gr_component_option prepend_options[] = {{.key = "prepend", .kind = GR_AS_TEXT},
                                                             {0}};

static const struct gr_component_type types[] = {
    {"Prepend", prepend_options, .apply.to_text = prepend},
    {"Replace", gr_replace_options, .apply.to_text = replace},
    {"NFC", .apply.to_text = nfc},
    {"NFD", .apply.to_text = nfd},
    {"NFKC", .apply.to_text = nfkc},
    {"NFKD", .apply.to_text = nfkd},
    {0},
};
const struct gr_stage_kind gr_normalizer = {"normalizer", "normalizers", types};
