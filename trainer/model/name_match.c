/* Module-name patterns on Oniguruma with Python's syntax.  See name_match.h. */
#include "trainer/model/name_match.h"

#include "kernels/base/alloc.h"

#include <oniguruma.h>
#include <string.h>

static gr_status match(bool *matches, const char *expression, const char *shown, const char *name,
                       const char *key)
{
    OnigEncoding encoding = ONIG_ENCODING_UTF8;
    OnigErrorInfo info;
    regex_t *regex = NULL;
    const OnigUChar *begin = (const OnigUChar *)expression, *text = (const OnigUChar *)name;
    size_t length = strlen(name);
    int result;

    onig_initialize(&encoding, 1);
    result = onig_new(&regex, begin, begin + strlen(expression), ONIG_OPTION_NONE, encoding,
                      ONIG_SYNTAX_PYTHON, &info);
    if (result != ONIG_NORMAL) {
        OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN] = "";

        onig_error_code_to_str(reason, result, &info);
        return gr_fail(GR_ERR_USAGE, key, "regular expressions are those of Python's re",
                       "not a regular expression: %s (found \"%s\", expected one that names "
                       "modules)",
                       (const char *)reason, shown);
    }
    *matches = onig_match(regex, text, text + length, text, NULL, ONIG_OPTION_NONE) == (int)length;
    onig_free(regex);
    return GR_OK;
}

gr_status gr_name_full_match(bool *matches, const char *expression, const char *name,
                             const char *key)
{
    char *whole = gr_format("(?:%s)\\Z", expression);
    gr_status status = match(matches, whole, expression, name, key);

    gr_free(whole);
    return status;
}

gr_status gr_name_map_lookup(double *value, const struct gr_name_map *map, const char *name,
                             const char *key)
{
    gr_status status = GR_OK;
    bool matches = false;

    for (int64_t i = 0; i < map->count && !matches; i++) {
        char *whole = gr_format("(.*\\.)?(%s)\\Z", map->key[i]);

        status = match(&matches, whole, map->key[i], name, key);
        gr_free(whole);
        GR_TRY(status);
        if (matches)
            *value = map->value[i];
    }
out:
    return status;
}
