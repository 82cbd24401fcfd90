/* Literals and regular expressions.  See pattern.h. */
#include "data/tokenizer/pattern.h"

#include "data/tokenizer/text.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"

#include <string.h>

gr_status gr_pattern_set_regex(struct gr_pattern *pattern, const char *regex, size_t length,
                               const char *place)
{
    const OnigUChar *text = (const OnigUChar *)regex;
    OnigErrorInfo info;
    int result;

    pattern->rule = gr_word_rule_find(regex, length);
    if (pattern->rule != NULL) {
        pattern->classes = gr_char_classes_create();
        return GR_OK;
    }
    result = gr_onig_checked(onig_new(&pattern->regex, text, text + length, ONIG_OPTION_NONE,
                                      ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info));
    if (result != ONIG_NORMAL) {
        OnigUChar message[ONIG_MAX_ERROR_MESSAGE_LEN];

        onig_error_code_to_str(message, result, &info);
        pattern->regex = NULL;
        return gr_fail(GR_ERR_DATA, place, "regular expressions are those of Oniguruma",
                       "the regular expression \"%.200s\" cannot be used: %s", regex,
                       (const char *)message);
    }
    return GR_OK;
}

void gr_pattern_set_literal(struct gr_pattern *pattern, const char *literal, int64_t length)
{
    pattern->literal = gr_strndup(literal, (size_t)length);
    pattern->literal_length = length;
}

gr_status gr_pattern_read(struct gr_pattern *pattern, const struct gr_json *json, const char *key)
{
    const json_t *value = json_object_get(json->value, key);
    const json_t *literal = json_object_get(value, "String");
    const json_t *regex = json_object_get(value, "Regex");

    if (json_object_size(value) != 1 || json_string_length(literal == NULL ? regex : literal) == 0)
        return gr_json_wrong(json, key, value, "{\"String\": text} or {\"Regex\": text}");
    if (regex != NULL)
        return gr_pattern_set_regex(pattern, json_string_value(regex), json_string_length(regex),
                                    json->place);
    gr_pattern_set_literal(pattern, json_string_value(literal),
                           (int64_t)json_string_length(literal));
    return GR_OK;
}

void gr_pattern_release(struct gr_pattern *pattern)
{
    if (pattern->regex != NULL)
        onig_free(pattern->regex);
    gr_free(pattern->classes);
    gr_free(pattern->literal);
    memset(pattern, 0, sizeof *pattern);
}

void gr_scan_begin(struct gr_scan *scan, const struct gr_pattern *pattern, const char *bytes,
                   int64_t length)
{
    scan->pattern = pattern;
    scan->bytes = bytes;
    scan->length = length;
    scan->from = 0;
    scan->last_end = -1;
    if (pattern->regex != NULL && scan->region == NULL) {
        scan->region = onig_region_new();
        gr_onig_checked(scan->region == NULL ? ONIGERR_MEMORY : ONIG_NORMAL);
    }
}

static bool search_regex(struct gr_scan *scan)
{
    const OnigUChar *text = (const OnigUChar *)scan->bytes;
    const OnigUChar *end = text + scan->length;
    int result = gr_onig_checked(onig_search(scan->pattern->regex, text, end, text + scan->from,
                                             end, scan->region, ONIG_OPTION_NONE));

    scan->gave_up = scan->gave_up || (result < 0 && result != ONIG_MISMATCH);
    if (result < 0)
        return false;
    scan->begin = scan->region->beg[0];
    scan->end = scan->region->end[0];
    return true;
}

static bool search_literal(struct gr_scan *scan)
{
    const struct gr_pattern *p = scan->pattern;
    const char *found = memmem(scan->bytes + scan->from, (size_t)(scan->length - scan->from),
                               p->literal, (size_t)p->literal_length);

    if (found == NULL)
        return false;
    scan->begin = found - scan->bytes;
    scan->end = scan->begin + p->literal_length;
    return true;
}

bool gr_scan_next(struct gr_scan *scan)
{
    const struct gr_word_rule *rule = scan->pattern->rule;

    if (rule != NULL) {
        bool found = rule->find(scan->pattern->classes, scan->bytes, scan->from, scan->length,
                                &scan->begin, &scan->end);

        scan->from = scan->end;
        return found;
    }
    while (scan->from <= scan->length) {
        if (!(scan->pattern->regex != NULL ? search_regex(scan) : search_literal(scan)))
            return false;
        if (scan->begin < scan->end || scan->begin != scan->last_end) {
            scan->from = scan->last_end = scan->end;
            return true;
        }
        /* An empty match right behind the last match does not count: look one character on. */
        scan->from += scan->from < scan->length ? gr_char_bytes(scan->bytes[scan->from]) : 1;
    }
    return false;
}

void gr_scan_release(struct gr_scan *scan)
{
    if (scan->region != NULL)
        onig_region_free(scan->region, 1);
    memset(scan, 0, sizeof *scan);
}

const char *gr_tokenizer_regex_library(void)
{
    return onig_version();
}
