/* The configuration of a run: every key of run.yaml with its value.
 *
 * Values come, each over the one before, from the table's defaults, the file, the environment
 * (KUBEFLOW_TRAINER_OPT_*) and --set.  All errors are ERR_USAGE.  What a key means to the model,
 * the data or the device is checked where it is used; here: name, type, range, and keys that
 * contradict each other. */
#ifndef GR_TRAINER_CONFIG_H
#define GR_TRAINER_CONFIG_H

#include "kernels/base/buffer.h"
#include "kernels/base/status.h"
#include "trainer/config_fields.h"

#include <stdbool.h>
#include <stdint.h>

struct gr_text_list {
    char **item;
    int64_t count;
};

/* Pattern -> value, in the order of the file: the first match counts. */
struct gr_pattern_value {
    char *pattern;
    int64_t value;
};
struct gr_pattern_map {
    struct gr_pattern_value *item;
    int64_t count;
};

/* config.lora.r, config.data.train, ...: the keys are the members.  See config_fields.h. */
struct gr_config {
#define GR_CONFIG_MEMBER(section, name, type, ...) GR_CONFIG_MEMBERS_##type(name)
    /* clang-format off */
    GR_CONFIG_TOP(GR_CONFIG_MEMBER)
    struct { GR_CONFIG_DATA(GR_CONFIG_MEMBER) } data;
    struct { GR_CONFIG_LORA(GR_CONFIG_MEMBER) } lora;
    struct { GR_CONFIG_TRAIN(GR_CONFIG_MEMBER) } train;
    struct { GR_CONFIG_DEVICE(GR_CONFIG_MEMBER) } device;
    struct { GR_CONFIG_DIST(GR_CONFIG_MEMBER) } dist;
    /* clang-format on */
#undef GR_CONFIG_MEMBER
};

void gr_config_init(struct gr_config *config); /* the defaults */
void gr_config_release(struct gr_config *config);

/* default < file < environment < --set, in this order.  file: NULL for none; sets: "key=value".
 * `config` need not be initialised; it must be released even on failure. */
gr_status gr_config_resolve(struct gr_config *config, const char *file, const char *const *sets,
                            int64_t set_count);

void gr_text_list_clear(struct gr_text_list *list);
/* The list becomes this one text. */
void gr_text_list_set(struct gr_text_list *list, const char *text);

/* The steps of gr_config_resolve.  A key that fails keeps its former value. */
gr_status gr_config_load_file(struct gr_config *config, const char *path);
/* The same from a file's text; place: what messages call it. */
gr_status gr_config_load_text(struct gr_config *config, const struct gr_buffer *text,
                              const char *place);
gr_status gr_config_load_env(struct gr_config *config);
/* "key=value": value is a YAML flow scalar or sequence; keys that are lists also take a,b,c. */
gr_status gr_config_set(struct gr_config *config, const char *assignment);

/* What the caller is going to do decides which keys must be there. */
enum gr_config_purpose {
    GR_CONFIG_TO_TRAIN,   /* model, output, data.train */
    GR_CONFIG_TO_READ,    /* model, data.train */
    GR_CONFIG_TO_EVALUATE /* model */
};
/* Missing keys, and keys that contradict each other.  place: the file, or what stands for it. */
gr_status gr_config_check(const struct gr_config *config, const char *place,
                          enum gr_config_purpose purpose);

/* Appends the configuration as YAML that loads back to the same one.  with_help: each key under a
 * comment that says what it is. */
void gr_config_print(struct gr_buffer *yaml, const struct gr_config *config, bool with_help);
/* Appends one of its lines, "max_length: 1024", without indent and newline. */
void gr_config_print_key(struct gr_buffer *yaml, const struct gr_config *config, const char *key);
/* Appends the identity keys as canonical JSON: sorted, without spaces. */
void gr_config_identity(struct gr_buffer *json, const struct gr_config *config);
/* Appends every key with type, default, unit and help, for --help. */
void gr_config_help(struct gr_buffer *text);

#endif
