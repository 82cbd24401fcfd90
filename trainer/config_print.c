/* The configuration as text: the resolved file, the identity of a run, and the list of keys.  What
 * is written here config_value.c reads back to the same value. */
#include "kernels/base/alloc.h"
#include "trainer/config_table.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* JSON's form of a text, which is also YAML's. */
static void write_quoted(struct gr_buffer *out, const char *text)
{
    gr_buffer_add_text(out, "\"");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            gr_buffer_add_text(out, "\\");
        gr_buffer_add(out, c, 1);
    }
    gr_buffer_add_text(out, "\"");
}

/* Would any reader of YAML take it for a text without quotes? */
static bool is_plain_text(const char *text)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no",
                                        "on",   "off",  "y",     "n"};

    for (int64_t i = 0; i < GR_COUNT(words); i++) {
        if (strcasecmp(text, words[i]) == 0)
            return false;
    }
    if (!isalpha((unsigned char)text[0]) && text[0] != '/')
        return false;
    for (const char *c = text; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && strchr("_-./", *c) == NULL)
            return false;
    }
    return true;
}

static void write_text(struct gr_buffer *out, const char *text, bool is_json)
{
    if (text == NULL)
        gr_buffer_add_text(out, "null");
    else if (!is_json && is_plain_text(text))
        gr_buffer_add_text(out, text);
    else
        write_quoted(out, text);
}

/* The least digits (but not below printf's six) that read back to the same double, with a point:
 * readers of YAML 1.1 take 1e-08 for a text. */
static void write_real(struct gr_buffer *out, double value)
{
    char digits[32];
    const char *exponent = NULL;
    int mantissa = 0;

    for (int precision = 6; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    exponent = strchr(digits, 'e');
    mantissa = exponent == NULL ? (int)strlen(digits) : (int)(exponent - digits);
    gr_buffer_add_format(out, "%.*s%s%s", mantissa, digits, strchr(digits, '.') == NULL ? ".0" : "",
                         exponent == NULL ? "" : exponent);
}

static void write_bytes(struct gr_buffer *out, int64_t bytes, bool is_json)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    int64_t unit = 0;

    while (!is_json && unit + 1 < GR_COUNT(units) && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    gr_buffer_add_format(out, "%" PRId64 "%s", bytes, units[unit]);
}

static void write_list(struct gr_buffer *out, const struct gr_text_list *list, bool is_json)
{
    gr_buffer_add_text(out, "[");
    for (int64_t i = 0; i < list->count; i++) {
        gr_buffer_add_text(out, i == 0 ? "" : is_json ? "," : ", ");
        write_text(out, list->item[i], is_json);
    }
    gr_buffer_add_text(out, "]");
}

static void write_map(struct gr_buffer *out, const struct gr_pattern_map *map, bool is_json)
{
    gr_buffer_add_text(out, "{");
    for (int64_t i = 0; i < map->count; i++) {
        gr_buffer_add_text(out, i == 0 ? "" : is_json ? "," : ", ");
        write_text(out, map->item[i].pattern, is_json);
        gr_buffer_add_format(out, is_json ? ":%" PRId64 : ": %" PRId64, map->item[i].value);
    }
    gr_buffer_add_text(out, "}");
}

static void write_value(struct gr_buffer *out, const struct gr_config *config,
                        const struct gr_config_field *field, bool is_json)
{
    const void *member = (const char *)config + field->offset;
    bool is_auto = (field->type == GR_CONFIG_AUTO_INTEGER || field->type == GR_CONFIG_BYTES) &&
                   *(const int64_t *)member == 0;
    bool is_one_name = field->type == GR_CONFIG_NAMES && !config->lora.target_modules_is_list;

    if (is_auto) {
        write_text(out, "auto", is_json);
        return;
    }
    if (is_one_name) {
        write_text(out, ((const struct gr_text_list *)member)->item[0], is_json);
        return;
    }
    switch (field->type) {
    case GR_CONFIG_TEXT:
        write_text(out, *(char *const *)member, is_json);
        break;
    case GR_CONFIG_CHOICE: /* a word without quotes, also where it is true or false */
        gr_buffer_add_format(out, is_json ? "\"%s\"" : "%s", *(char *const *)member);
        break;
    case GR_CONFIG_INTEGER:
    case GR_CONFIG_AUTO_INTEGER:
        gr_buffer_add_format(out, "%" PRId64, *(const int64_t *)member);
        break;
    case GR_CONFIG_BYTES:
        write_bytes(out, *(const int64_t *)member, is_json);
        break;
    case GR_CONFIG_REAL:
        write_real(out, *(const double *)member);
        break;
    case GR_CONFIG_FLAG:
        gr_buffer_add_text(out, *(const bool *)member ? "true" : "false");
        break;
    case GR_CONFIG_LIST:
    case GR_CONFIG_NAMES:
        write_list(out, member, is_json);
        break;
    case GR_CONFIG_MAP:
        write_map(out, member, is_json);
        break;
    case GR_CONFIG_TYPE_COUNT:
        break;
    }
}

enum { HELP_COLUMNS = 80 };

/* The words of a text, on as many lines as they need; each begins with the prefix.  Returns the
 * columns of the last one, which is not ended. */
static size_t write_wrapped(struct gr_buffer *out, const char *prefix, const char *text)
{
    size_t column = 0;

    while (*text != '\0') {
        size_t word = strcspn(text, " ");

        if (column > 0 && column + 1 + word > HELP_COLUMNS) {
            gr_buffer_add_text(out, "\n");
            column = 0;
        }
        gr_buffer_add_text(out, column == 0 ? prefix : " ");
        column += (column == 0 ? strlen(prefix) : 1) + word;
        gr_buffer_add(out, text, word);
        text += word + (text[word] == ' ');
    }
    return column;
}

/* "rank of the adapters (an integer in [1, 65536])", with the unit, and whether it is free; on a
 * line of its own what is between the brackets, where it does not fit. */
static void write_help(struct gr_buffer *out, const char *prefix,
                       const struct gr_config_field *field)
{
    struct gr_buffer takes = {0};
    size_t column = write_wrapped(out, prefix, field->help);

    gr_buffer_add_text(&takes, "(");
    gr_config_expected(&takes, field);
    if (field->unit[0] != '\0')
        gr_buffer_add_format(&takes, ", %s", field->unit);
    if (!field->is_identity)
        gr_buffer_add_text(&takes, "; may change on resume");
    gr_buffer_add_text(&takes, ")");
    if (column + 1 + takes.length > HELP_COLUMNS)
        gr_buffer_add_format(out, "\n%s%s\n", prefix, takes.data);
    else
        gr_buffer_add_format(out, " %s\n", takes.data);
    gr_buffer_release(&takes);
}

static void write_line(struct gr_buffer *out, const struct gr_config *config,
                       const struct gr_config_field *field)
{
    gr_buffer_add_format(out, "%s: ", gr_config_last_name(field->key));
    write_value(out, config, field, false);
}

void gr_config_print_key(struct gr_buffer *yaml, const struct gr_config *config, const char *key)
{
    const struct gr_config_field *field = gr_config_find(key);

    GR_CHECK(field != NULL, "%s", key);
    write_line(yaml, config, field);
}

void gr_config_print(struct gr_buffer *yaml, const struct gr_config *config, bool with_help)
{
    const char *section = "";
    size_t section_length = 0;

    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        const struct gr_config_field *field = &gr_config_field_table[i];
        const char *name = gr_config_last_name(field->key);
        size_t prefix_length = (size_t)(name - field->key); /* with its dot; 0: top level */
        const char *indent = prefix_length == 0 ? "" : "  ";

        if (prefix_length != section_length || strncmp(field->key, section, prefix_length) != 0) {
            section = field->key;
            section_length = prefix_length;
            gr_buffer_add_format(yaml, "%s%.*s:\n", with_help ? "\n" : "", (int)prefix_length - 1,
                                 section);
        }
        if (with_help)
            write_help(yaml, prefix_length == 0 ? "# " : "  # ", field);
        gr_buffer_add_text(yaml, indent);
        write_line(yaml, config, field);
        gr_buffer_add_text(yaml, "\n");
    }
}

static int compare_keys(const void *a, const void *b)
{
    const struct gr_config_field *const *left = a, *const *right = b;

    return strcmp((*left)->key, (*right)->key);
}

void gr_config_identity(struct gr_buffer *json, const struct gr_config *config)
{
    const struct gr_config_field *sorted[GR_CONFIG_FIELD_COUNT];
    size_t count = 0;

    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        if (gr_config_field_table[i].is_identity)
            sorted[count++] = &gr_config_field_table[i];
    }
    qsort(sorted, count, sizeof *sorted, compare_keys);
    for (size_t i = 0; i < count; i++) {
        gr_buffer_add_format(json, "%s\"%s\":", i == 0 ? "{" : ",", sorted[i]->key);
        write_value(json, config, sorted[i], true);
    }
    gr_buffer_add_text(json, "}");
}

void gr_config_help(struct gr_buffer *text)
{
    gr_buffer_add_text(text, "keys, in run.yaml and for --set:\n");
    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        const struct gr_config_field *field = &gr_config_field_table[i];

        gr_buffer_add_format(text, "  %s (default %s)\n", field->key, field->default_text);
        write_help(text, "      ", field);
    }
}
