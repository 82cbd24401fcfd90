/* Writing and reading the names of the protocol.  See names.h. */
#include "trainer/state/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEX "0123456789abcdef"

enum { STEP_DIGITS = 12, TERM_DIGITS = 8 };

/* Exactly `digits` decimal digits; *text moves behind them. */
static bool parse_digits(int64_t *value, const char **text, int digits)
{
    int64_t number = 0;

    for (int i = 0; i < digits; i++, (*text)++) {
        if (**text < '0' || **text > '9')
            return false;
        number = 10 * number + (**text - '0');
    }
    *value = number;
    return true;
}

static bool skip(const char **text, const char *expected)
{
    size_t length = strlen(expected);
    bool matches = strncmp(*text, expected, length) == 0;

    *text += matches ? length : 0;
    return matches;
}

/* STEP-TERM; *text moves behind it. */
static bool parse_name(int64_t *step, int64_t *term, const char **text)
{
    return parse_digits(step, text, STEP_DIGITS) && skip(text, "-") &&
           parse_digits(term, text, TERM_DIGITS) && *step > 0 && *term > 0;
}

void gr_name_checkpoint(char name[GR_CHECKPOINT_NAME_BYTES], int64_t step, int64_t term)
{
    GR_CHECK(step >= 1 && step <= GR_STEP_MOST && term >= 1 && term <= GR_TERM_MOST,
             "step %" PRId64 ", term %" PRId64, step, term);
    snprintf(name, GR_CHECKPOINT_NAME_BYTES, "%0*" PRId64 "-%0*" PRId64, STEP_DIGITS, step,
             TERM_DIGITS, term);
}

bool gr_name_parse_checkpoint(int64_t *step, int64_t *term, const char *name)
{
    return parse_name(step, term, &name) && *name == '\0';
}

void gr_key_term(char key[GR_KEY_BYTES], int64_t term)
{
    snprintf(key, GR_KEY_BYTES, "term/%0*" PRId64 ".json", TERM_DIGITS, term);
}

bool gr_key_parse_term(int64_t *term, const char *key)
{
    return skip(&key, "term/") && parse_digits(term, &key, TERM_DIGITS) && *term > 0 &&
           strcmp(key, ".json") == 0;
}

void gr_key_record(char key[GR_KEY_BYTES], const char *folder, const char *name)
{
    snprintf(key, GR_KEY_BYTES, "%s/%s.json", folder, name);
}

bool gr_key_parse_record(char name[GR_CHECKPOINT_NAME_BYTES], const char *folder, const char *key)
{
    int64_t step = 0, term = 0;

    if (!skip(&key, folder) || !skip(&key, "/") || !parse_name(&step, &term, &key) ||
        strcmp(key, ".json") != 0)
        return false;
    gr_name_checkpoint(name, step, term);
    return true;
}

void gr_key_object(char key[GR_KEY_BYTES], const char *name, const char *uuid, const char *object)
{
    snprintf(key, GR_KEY_BYTES, "objects/%s-%s/%s", name, uuid, object);
}

bool gr_key_parse_object(char name[GR_CHECKPOINT_NAME_BYTES], const char *key)
{
    int64_t step = 0, term = 0;

    if (!skip(&key, "objects/") || !parse_name(&step, &term, &key) || *key != '-')
        return false;
    gr_name_checkpoint(name, step, term);
    return true;
}

bool gr_name_is_checkpoint(const char *text)
{
    int64_t step = 0, term = 0;

    return gr_name_parse_checkpoint(&step, &term, text);
}

bool gr_name_is_hash(const char *text)
{
    return strlen(text) == GR_SHA256_HEX_BYTES - 1 && strspn(text, HEX) == GR_SHA256_HEX_BYTES - 1;
}

bool gr_name_is_uuid(const char *text)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    bool is_uuid = strlen(text) == sizeof form - 1;

    for (size_t i = 0; is_uuid && i < sizeof form - 1; i++)
        is_uuid = form[i] == '-' ? text[i] == '-' : strchr(HEX, text[i]) != NULL;
    return is_uuid;
}

bool gr_name_is_file(const char *text)
{
    size_t length = strlen(text);

    return length > 0 && length < GR_STATE_NAME_BYTES && text[0] != '.' &&
           strspn(text, HEX "ghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.") == length;
}
