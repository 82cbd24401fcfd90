/* What to look for in a text: a literal, or a regular expression of the tokenizer's own file,
 * compiled once by Oniguruma, which is also what `tokenizers` uses; well-known expressions have a
 * hand-written rule instead (word_rules.h).  Safe for several threads.
 *
 * What a letter or a digit is follows the Unicode version of the Oniguruma graft is built with: 14
 * in 6.9.8, where `tokenizers` 0.23 has 16 in its own.  The characters of 14 are the same in both;
 * newer ones are unassigned here, so that a text may be cut otherwise next to a digit of Kawi
 * (U+11F50). */
#ifndef GR_DATA_TOKENIZER_PATTERN_H
#define GR_DATA_TOKENIZER_PATTERN_H

#include "data/tokenizer/strict_json.h"
#include "data/tokenizer/word_rules.h"
#include "kernels/base/alloc.h"

#include <oniguruma.h>
#include <stdbool.h>

/* The result of a call of Oniguruma, but for want of memory, which ends the program. */
static inline int gr_onig_checked(int result)
{
    if (result == ONIGERR_MEMORY)
        gr_no_memory("Oniguruma asked");
    return result;
}

/* One of the three. */
struct gr_pattern {
    OnigRegex regex;
    const struct gr_word_rule *rule;
    uint8_t *classes; /* for the rule */
    char *literal;
    int64_t literal_length; /* > 0 */
};

/* Reads json[key]: {"String": text} or {"Regex": text}.  Errors, here and below: ERR_DATA for an
 * expression that is broken. */
gr_status gr_pattern_read(struct gr_pattern *pattern, const struct gr_json *json, const char *key);
gr_status gr_pattern_set_regex(struct gr_pattern *pattern, const char *regex, size_t length,
                               const char *place);
void gr_pattern_set_literal(struct gr_pattern *pattern, const char *literal, int64_t length);
void gr_pattern_release(struct gr_pattern *pattern);

/* Goes over the matches of a pattern in one text, left to right, without overlap. */
struct gr_scan {
    const struct gr_pattern *pattern;
    const char *bytes;
    int64_t length;
    int64_t from;       /* where the next search starts */
    int64_t last_end;   /* of the last match, -1 before the first */
    int64_t begin, end; /* the match */
    OnigRegion *region;
    bool gave_up; /* the regular expression failed (its limit of retries); matches ended early */
};
/* A zeroed scan may be begun again and again; it is released once. */
void gr_scan_begin(struct gr_scan *scan, const struct gr_pattern *pattern, const char *bytes,
                   int64_t length);
bool gr_scan_next(struct gr_scan *scan);
void gr_scan_release(struct gr_scan *scan);

#endif
