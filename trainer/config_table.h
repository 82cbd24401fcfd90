/* The table of keys as data, and what the files of the configuration share.  Included by
 * trainer/config*.c alone. */
#ifndef GR_TRAINER_CONFIG_TABLE_H
#define GR_TRAINER_CONFIG_TABLE_H

#include "trainer/config.h"

#include <stddef.h>
#include <yaml.h>

enum gr_config_type {
    GR_CONFIG_TEXT,
    GR_CONFIG_CHOICE,
    GR_CONFIG_INTEGER,
    GR_CONFIG_AUTO_INTEGER,
    GR_CONFIG_BYTES,
    GR_CONFIG_REAL,
    GR_CONFIG_FLAG,
    GR_CONFIG_LIST,
    GR_CONFIG_NAMES,
    GR_CONFIG_MAP,
    GR_CONFIG_TYPE_COUNT
};

struct gr_config_field {
    const char *key; /* "lora.r" */
    enum gr_config_type type;
    const char *default_text;
    const char *range;
    const char *unit;
    bool is_identity;
    const char *help;
    size_t offset; /* of the value in struct gr_config */
};

enum {
#define GR_CONFIG_COUNT_ROW(...) +1
    GR_CONFIG_FIELD_COUNT = 0 GR_CONFIG_FIELDS(GR_CONFIG_COUNT_ROW)
#undef GR_CONFIG_COUNT_ROW
};
extern const struct gr_config_field gr_config_field_table[GR_CONFIG_FIELD_COUNT];

/* The row of a whole key, or NULL. */
const struct gr_config_field *gr_config_find(const char *key);
/* The key without its section: "r" of "lora.r". */
const char *gr_config_last_name(const char *key);

/* Where a value comes from. */
struct gr_config_source {
    const char *place;         /* file, "--set", or the variable */
    bool has_lines;            /* messages say PLACE:LINE */
    bool splits_commas;        /* a,b,c is a list */
    yaml_document_t *document; /* of the node being read */
};

/* Fails at the place of a node, and passes the status on. */
gr_status gr_config_fail_at(const struct gr_config_source *source, const yaml_node_t *node,
                            const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Reads the value of a key.  Errors: ERR_USAGE at its place; the key then keeps its former value.
 */
gr_status gr_config_read_value(struct gr_config *config, const struct gr_config_field *field,
                               const struct gr_config_source *source, const yaml_node_t *node);
void gr_config_release_value(struct gr_config *config, const struct gr_config_field *field);
/* What the key takes, in words: "an integer in [1, 65536]". */
void gr_config_expected(struct gr_buffer *words, const struct gr_config_field *field);

/* A scalar that was written without quotes and means nothing: null, ~ or empty. */
bool gr_config_is_null(const yaml_node_t *node);

#endif
