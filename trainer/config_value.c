/* One value of the configuration: from a YAML node into its member, by the type of its key.  Each
 * type is a row of `types`; what it refuses is told with the same words that --help shows. */
#include "kernels/base/alloc.h"
#include "kernels/base/nearest.h"
#include "trainer/config_table.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A value on its way into the configuration: zeroed, filled by a reader, then moved or released. */
union value {
    char *text;
    int64_t integer;
    double real;
    bool flag;
    struct gr_text_list list;
    struct gr_pattern_map map;
};

struct input {
    const struct gr_config_field *field;
    const struct gr_config_source *source;
    const yaml_node_t *node;
};

/* ---- scalars of YAML ---- */

static const char *scalar_text(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static bool is_scalar(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE;
}

static bool is_plain(const yaml_node_t *node)
{
    return is_scalar(node) && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static bool plain_is(const yaml_node_t *node, const char *const *words)
{
    if (!is_plain(node))
        return false;
    for (; *words != NULL; words++) {
        if (strcmp(scalar_text(node), *words) == 0)
            return true;
    }
    return false;
}

bool gr_config_is_null(const yaml_node_t *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};

    return plain_is(node, words);
}

/* Texts are paths, names and patterns: not empty, and without control characters, ends of lines and
 * what else YAML does not show as it is, so that every message and file has them on one line. */
static bool is_text(const yaml_node_t *node)
{
    /* U+2028, U+2029, U+FEFF, U+FFFE, U+FFFF */
    static const char *const unseen[] = {"\xE2\x80\xA8", "\xE2\x80\xA9", "\xEF\xBB\xBF",
                                         "\xEF\xBF\xBE", "\xEF\xBF\xBF"};

    if (!is_scalar(node) || node->data.scalar.length == 0)
        return false;
    for (size_t i = 0; i < node->data.scalar.length; i++) {
        unsigned char c = node->data.scalar.value[i];
        bool is_c1 = c == 0xC2 && node->data.scalar.value[i + 1] < 0xA0; /* U+0080..U+009F */

        if (c < 0x20 || c == 0x7F || is_c1)
            return false;
    }
    for (int64_t i = 0; i < GR_COUNT(unseen); i++) {
        if (strstr((const char *)node->data.scalar.value, unseen[i]) != NULL)
            return false;
    }
    return true;
}

/* ---- failures ---- */

void gr_config_expected(struct gr_buffer *words, const struct gr_config_field *field)
{
    static const char *const formats[GR_CONFIG_TYPE_COUNT] = {
        [GR_CONFIG_TEXT] = "a text",
        [GR_CONFIG_CHOICE] = "%s",
        [GR_CONFIG_INTEGER] = "an integer in %s",
        [GR_CONFIG_AUTO_INTEGER] = "auto or an integer in %s",
        [GR_CONFIG_BYTES] = "auto or a size such as 12GiB",
        [GR_CONFIG_REAL] = "a number in %s",
        [GR_CONFIG_FLAG] = "true or false",
        [GR_CONFIG_LIST] = "a list of texts",
        [GR_CONFIG_NAMES] = "a list of texts or one text",
        [GR_CONFIG_MAP] = "a mapping from patterns to integers in %s",
    };
    const char *format = formats[field->type];
    const char *hole = strstr(format, "%s");

    if (hole == NULL) {
        gr_buffer_add_text(words, format);
        return;
    }
    gr_buffer_add(words, format, (size_t)(hole - format));
    gr_buffer_add_text(words, field->range);
}

gr_status gr_config_fail_at(const struct gr_config_source *source, const yaml_node_t *node,
                            const char *hint, const char *format, ...)
{
    char *place = source->has_lines && node != NULL
                      ? gr_format("%s:%zu", source->place, node->start_mark.line + 1)
                      : gr_strdup(source->place);
    char what[sizeof((struct gr_error *)0)->message];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    gr_fail(GR_ERR_USAGE, place, hint, "%s", what);
    gr_free(place);
    return GR_ERR_USAGE;
}

/* Bytes of a text that a message shows: whole characters, not too many. */
static int shown_bytes(const yaml_node_t *node)
{
    enum { MOST = 60 };
    size_t length = node->data.scalar.length;

    if (length > MOST) {
        length = MOST;
        while (length > 0 && (node->data.scalar.value[length] & 0xC0) == 0x80)
            length--;
    }
    return (int)length;
}

static void describe(struct gr_buffer *words, const yaml_node_t *node)
{
    const char *quote = is_plain(node) ? "" : "\"";

    if (node->type == YAML_SEQUENCE_NODE)
        gr_buffer_add_text(words, "a list");
    else if (node->type == YAML_MAPPING_NODE)
        gr_buffer_add_text(words, "a mapping");
    else if (is_plain(node) && node->data.scalar.length == 0)
        gr_buffer_add_text(words, "nothing");
    else
        gr_buffer_add_format(words, "%s%.*s%s", quote, shown_bytes(node), scalar_text(node), quote);
}

/* "lora.r is out of range (found 0, expected an integer in [1, 65536])" */
static gr_status refuse(const struct input *in, const yaml_node_t *node, const char *what)
{
    struct gr_buffer found = {0}, expected = {0};

    describe(&found, node);
    gr_config_expected(&expected, in->field);
    gr_config_fail_at(in->source, node, NULL, "%s %s (found %s, expected %s)", in->field->key, what,
                      found.data, expected.data);
    gr_hint("graft config prints every key with what it takes");
    gr_buffer_release(&expected);
    gr_buffer_release(&found);
    return GR_ERR_USAGE;
}

static gr_status refuse_type(const struct input *in, const yaml_node_t *node)
{
    return refuse(in, node, "is of the wrong type");
}

/* ---- numbers ---- */

/* "[1, 65536]", "(0, inf)": a bracket includes the bound. */
static bool in_range(const char *range, double value)
{
    char *end = NULL;
    double low = strtod(range + 1, &end), high = strtod(end + 1, &end);

    return (range[0] == '[' ? value >= low : value > low) &&
           (*end == ']' ? value <= high : value < high);
}

/* Decimal digits after an optional sign; no 0x, no 1_000, no 1e3. */
static bool parse_integer(const char *text, int64_t *value)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    long long parsed = 0;

    if (digits[0] == '\0' || strspn(digits, "0123456789") != strlen(digits))
        return false;
    errno = 0;
    parsed = strtoll(text, NULL, 10);
    if (errno == ERANGE)
        parsed = text[0] == '-' ? LLONG_MIN : LLONG_MAX; /* outside of every range */
    *value = (int64_t)parsed;
    return true;
}

static bool parse_real(const char *text, double *value)
{
    char *end = NULL;

    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text))
        return false;
    *value = strtod(text, &end);
    return *end == '\0' && isfinite(*value);
}

static gr_status read_integer_node(const struct input *in, const yaml_node_t *node, int64_t *value)
{
    if (!is_plain(node) || !parse_integer(scalar_text(node), value))
        return refuse_type(in, node);
    if (!in_range(in->field->range, (double)*value))
        return refuse(in, node, "is out of range");
    return GR_OK;
}

static gr_status read_integer(const struct input *in, union value *value)
{
    return read_integer_node(in, in->node, &value->integer);
}

static bool is_auto(const yaml_node_t *node)
{
    return is_scalar(node) && strcmp(scalar_text(node), "auto") == 0;
}

static gr_status read_auto_integer(const struct input *in, union value *value)
{
    return is_auto(in->node) ? GR_OK : read_integer(in, value);
}

static gr_status read_real(const struct input *in, union value *value)
{
    if (!is_plain(in->node) || !parse_real(scalar_text(in->node), &value->real))
        return refuse_type(in, in->node);
    if (!in_range(in->field->range, value->real))
        return refuse(in, in->node, "is out of range");
    return GR_OK;
}

static gr_status read_bytes(const struct input *in, union value *value)
{
    static const struct {
        const char *unit;
        int64_t bytes;
    } units[] = {{"", 1},
                 {"KiB", INT64_C(1) << 10},
                 {"MiB", INT64_C(1) << 20},
                 {"GiB", INT64_C(1) << 30},
                 {"TiB", INT64_C(1) << 40}};
    const char *unit = NULL;
    char *number = NULL;
    bool is_number = false;

    if (is_auto(in->node))
        return GR_OK;
    if (!is_plain(in->node))
        return refuse_type(in, in->node);
    unit = scalar_text(in->node) + strspn(scalar_text(in->node), "0123456789");
    number = gr_strndup(scalar_text(in->node), (size_t)(unit - scalar_text(in->node)));
    is_number = parse_integer(number, &value->integer);
    gr_free(number);
    for (int64_t i = 0; is_number && i < GR_COUNT(units); i++) {
        if (strcmp(unit, units[i].unit) != 0)
            continue;
        if (value->integer < 1 || value->integer > INT64_MAX / units[i].bytes)
            return refuse(in, in->node, "is out of range");
        value->integer *= units[i].bytes;
        return GR_OK;
    }
    return refuse_type(in, in->node);
}

/* ---- words ---- */

static gr_status read_flag(const struct input *in, union value *value)
{
    static const char *const yes[] = {"true", "True", "TRUE", NULL};
    static const char *const no[] = {"false", "False", "FALSE", NULL};

    value->flag = plain_is(in->node, yes);
    return value->flag || plain_is(in->node, no) ? GR_OK : refuse_type(in, in->node);
}

static gr_status read_text(const struct input *in, union value *value)
{
    bool may_be_null = strcmp(in->field->default_text, "null") == 0;

    if (gr_config_is_null(in->node) && may_be_null)
        return GR_OK;
    if (gr_config_is_null(in->node) || !is_text(in->node))
        return refuse_type(in, in->node);
    value->text = gr_strdup(scalar_text(in->node));
    return GR_OK;
}

/* range is "one | two | three". */
static gr_status read_choice(const struct input *in, union value *value)
{
    const char *found = is_scalar(in->node) ? scalar_text(in->node) : "";
    char *words = gr_strdup(in->field->range);
    const char *choices[16];
    int64_t count = 0;
    char *rest = NULL;
    const char *nearest = NULL;

    for (char *w = strtok_r(words, " |", &rest); w != NULL; w = strtok_r(NULL, " |", &rest)) {
        GR_CHECK(count < GR_COUNT(choices), "%s has too many choices", in->field->key);
        choices[count++] = w;
    }
    for (int64_t i = 0; i < count && value->text == NULL; i++) {
        if (strcmp(found, choices[i]) == 0)
            value->text = gr_strdup(found);
    }
    if (value->text == NULL) {
        refuse(in, in->node, "is not one of its choices");
        nearest = gr_nearest(found, choices, count);
        if (nearest != NULL)
            gr_hint("did you mean %s?", nearest);
    }
    gr_free(words);
    return value->text == NULL ? GR_ERR_USAGE : GR_OK;
}

/* ---- lists and mappings ---- */

static void list_add(struct gr_text_list *list, char *item)
{
    list->item = gr_realloc(list->item, list->count + 1, sizeof *list->item);
    list->item[list->count++] = item;
}

/* "a,b,c" as it comes from --set; spaces around an item are not part of it. */
static gr_status split_commas(const struct input *in, struct gr_text_list *list)
{
    const char *item = scalar_text(in->node);

    for (;;) {
        size_t length = strcspn(item, ","), end = length;
        size_t begin = strspn(item, " ");

        while (end > begin && item[end - 1] == ' ')
            end--;
        if (end <= begin)
            return refuse_type(in, in->node);
        list_add(list, gr_strndup(item + begin, end - begin));
        if (item[length] == '\0')
            return GR_OK;
        item += length + 1;
    }
}

static gr_status read_list(const struct input *in, union value *value)
{
    yaml_document_t *document = in->source->document;

    if (gr_config_is_null(in->node))
        return GR_OK;
    if (is_text(in->node)) {
        if (in->source->splits_commas && is_plain(in->node))
            return split_commas(in, &value->list);
        list_add(&value->list, gr_strdup(scalar_text(in->node)));
        return GR_OK;
    }
    if (in->node->type != YAML_SEQUENCE_NODE)
        return refuse_type(in, in->node);
    for (yaml_node_item_t *i = in->node->data.sequence.items.start;
         i < in->node->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(document, *i);

        if (gr_config_is_null(item) || !is_text(item))
            return refuse(in, item, "holds an item of the wrong type");
        list_add(&value->list, gr_strdup(scalar_text(item)));
    }
    return GR_OK;
}

/* One text, or a list that names something. */
static gr_status read_names(const struct input *in, union value *value)
{
    gr_status status = read_list(in, value);

    if (status == GR_OK && value->list.count == 0)
        return refuse(in, in->node, "names nothing");
    return status;
}

static gr_status read_map(const struct input *in, union value *value)
{
    struct gr_pattern_map *map = &value->map;
    yaml_document_t *document = in->source->document;

    if (gr_config_is_null(in->node))
        return GR_OK;
    if (in->node->type != YAML_MAPPING_NODE)
        return refuse_type(in, in->node);
    for (yaml_node_pair_t *pair = in->node->data.mapping.pairs.start;
         pair < in->node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(document, pair->key);
        gr_status status = GR_OK;
        int64_t number = 0;

        if (!is_text(key))
            return refuse(in, key, "holds a pattern of the wrong type");
        for (int64_t i = 0; i < map->count; i++) {
            if (strcmp(map->item[i].pattern, scalar_text(key)) == 0)
                return refuse(in, key, "holds a pattern twice");
        }
        status = read_integer_node(in, yaml_document_get_node(document, pair->value), &number);
        if (status != GR_OK)
            return status;
        map->item = gr_realloc(map->item, map->count + 1, sizeof *map->item);
        map->item[map->count++] = (struct gr_pattern_value){gr_strdup(scalar_text(key)), number};
    }
    return GR_OK;
}

/* ---- the types ---- */

static void release_text(union value *value)
{
    gr_free(value->text);
}

static void release_list(union value *value)
{
    for (int64_t i = 0; i < value->list.count; i++)
        gr_free(value->list.item[i]);
    gr_free(value->list.item);
}

static void release_map(union value *value)
{
    for (int64_t i = 0; i < value->map.count; i++)
        gr_free(value->map.item[i].pattern);
    gr_free(value->map.item);
}

static const struct {
    size_t size; /* of the member */
    gr_status (*read)(const struct input *in, union value *value);
    void (*release)(union value *value); /* NULL: owns nothing */
} types[GR_CONFIG_TYPE_COUNT] = {
    [GR_CONFIG_TEXT] = {sizeof(char *), read_text, release_text},
    [GR_CONFIG_CHOICE] = {sizeof(char *), read_choice, release_text},
    [GR_CONFIG_INTEGER] = {sizeof(int64_t), read_integer, NULL},
    [GR_CONFIG_AUTO_INTEGER] = {sizeof(int64_t), read_auto_integer, NULL},
    [GR_CONFIG_BYTES] = {sizeof(int64_t), read_bytes, NULL},
    [GR_CONFIG_REAL] = {sizeof(double), read_real, NULL},
    [GR_CONFIG_FLAG] = {sizeof(bool), read_flag, NULL},
    [GR_CONFIG_LIST] = {sizeof(struct gr_text_list), read_list, release_list},
    [GR_CONFIG_NAMES] = {sizeof(struct gr_text_list), read_names, release_list},
    [GR_CONFIG_MAP] = {sizeof(struct gr_pattern_map), read_map, release_map},
};

void gr_config_release_value(struct gr_config *config, const struct gr_config_field *field)
{
    union value value = {0};
    char *member = (char *)config + field->offset;

    if (types[field->type].release == NULL)
        return;
    memcpy(&value, member, types[field->type].size);
    types[field->type].release(&value);
    memset(member, 0, types[field->type].size);
}

gr_status gr_config_read_value(struct gr_config *config, const struct gr_config_field *field,
                               const struct gr_config_source *source, const yaml_node_t *node)
{
    struct input in = {field, source, node};
    union value value;
    gr_status status = GR_OK;

    memset(&value, 0, sizeof value);
    GR_TRY(types[field->type].read(&in, &value));
    gr_config_release_value(config, field);
    memcpy((char *)config + field->offset, &value, types[field->type].size);
    if (field->type == GR_CONFIG_NAMES) /* the one key of its type */
        config->lora.target_modules_is_list =
            node->type == YAML_SEQUENCE_NODE || config->lora.target_modules.count > 1;
    return GR_OK;
out:
    if (types[field->type].release != NULL)
        types[field->type].release(&value);
    return status;
}
