/* Module-name patterns on Oniguruma.  See name_match.h.
 * In Python's syntax, because these expressions are written for Python's re; those of a tokenizer
 * (data/tokenizer/pattern.c) are written for Oniguruma's own. */
#include "trainer/model/name_match.h"

#include "data/tokenizer/pattern.h"
#include "kernels/base/alloc.h"
#include "trainer/model/name_syntax.h"

#include <string.h>

static gr_status check(const char *expression, const char *key, bool is_new, bool is_inner)
{
    struct gr_name_syntax found = gr_name_syntax_check(expression, is_new, is_inner);

    if (found.length == 0)
        return GR_OK;
    return gr_fail(
        GR_ERR_USAGE, key,
        "PEFT matches by Python's re; letters, \\. . \\d \\w [a-z] [^.] (a|b) (?:...) "
        "(?!...) * + ? and {2,3} mean the same in all its versions and in graft",
        "%.*s in column %lld is not read alike by PEFT and graft (found \"%s\", expected an "
        "expression that is)",
        (int)found.length, expression + found.begin, (long long)found.begin + 1, expression);
}

/* whole: what is compiled; shown: what the user wrote. */
static gr_status compile(struct gr_name_patterns *patterns, char *whole, const char *shown,
                         const char *key)
{
    OnigEncoding encoding = ONIG_ENCODING_UTF8;
    OnigErrorInfo info;
    regex_t *regex = NULL;
    const OnigUChar *begin = (const OnigUChar *)whole;
    int result;

    onig_initialize(&encoding, 1);
    result = gr_onig_checked(onig_new(&regex, begin, begin + strlen(whole), ONIG_OPTION_NONE,
                                      encoding, ONIG_SYNTAX_PYTHON, &info));
    gr_free(whole);
    if (result != ONIG_NORMAL) {
        OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN] = "";

        onig_error_code_to_str(reason, result, &info);
        return gr_fail(GR_ERR_USAGE, key, "regular expressions are those of Python's re",
                       "not a regular expression: %s (found \"%s\", expected one that names "
                       "modules)",
                       (const char *)reason, shown);
    }
    patterns->compiled[patterns->count++] = regex;
    return GR_OK;
}

gr_status gr_name_patterns_init(struct gr_name_patterns *patterns, const char *expression,
                                const char *key, bool is_new)
{
    gr_status status = GR_OK;

    *patterns = (struct gr_name_patterns){.compiled = GR_NEW_ARRAY(void *, 1)};
    GR_TRY(check(expression, key, is_new, false));
    GR_TRY(compile(patterns, gr_format("(?:%s)\\Z", expression), expression, key));
out:
    return status;
}

gr_status gr_name_patterns_init_map(struct gr_name_patterns *patterns,
                                    const struct gr_name_map *map, const char *key, bool is_new)
{
    gr_status status = GR_OK;

    *patterns = (struct gr_name_patterns){.compiled = GR_NEW_ARRAY(void *, map->count),
                                          .value = map->value};
    for (int64_t i = 0; i < map->count; i++) {
        GR_TRY(check(map->key[i], key, is_new, true));
        GR_TRY(compile(patterns, gr_format("(.*\\.)?(%s)\\Z", map->key[i]), map->key[i], key));
    }
out:
    return status;
}

void gr_name_patterns_release(struct gr_name_patterns *patterns)
{
    for (int64_t i = 0; i < patterns->count; i++)
        onig_free(patterns->compiled[i]);
    gr_free(patterns->compiled);
    memset(patterns, 0, sizeof *patterns);
}

int64_t gr_name_patterns_find(const struct gr_name_patterns *patterns, const char *name)
{
    const OnigUChar *text = (const OnigUChar *)name;
    int length = (int)strlen(name);

    for (int64_t i = 0; i < patterns->count; i++) {
        int matched =
            onig_match(patterns->compiled[i], text, text + length, text, NULL, ONIG_OPTION_NONE);

        if (gr_onig_checked(matched) == length)
            return i;
    }
    return -1;
}
