/* Module-name patterns on Oniguruma.  See name_match.h.
 * In Python's syntax, because these expressions are written for Python's re; those of a tokenizer
 * (data/tokenizer/pattern.c) are written for Oniguruma's own. */
#include "trainer/model/name_match.h"

#include "data/tokenizer/pattern.h"
#include "kernels/base/alloc.h"

#include <string.h>

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
                                const char *key)
{
    *patterns = (struct gr_name_patterns){.compiled = GR_NEW_ARRAY(void *, 1)};
    return compile(patterns, gr_format("(?:%s)\\Z", expression), expression, key);
}

gr_status gr_name_patterns_init_map(struct gr_name_patterns *patterns,
                                    const struct gr_name_map *map, const char *key)
{
    gr_status status = GR_OK;

    *patterns = (struct gr_name_patterns){.compiled = GR_NEW_ARRAY(void *, map->count),
                                          .value = map->value};
    for (int64_t i = 0; i < map->count; i++)
        GR_TRY(compile(patterns, gr_format("(.*\\.)?(%s)\\Z", map->key[i]), map->key[i], key));
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
