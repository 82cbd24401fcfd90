/* A stage of the tokenizer (normalizer, pre-tokenizer, post-processor, decoder) as a flat list of
 * components, read from the file by tables: each stage lists the types it knows, each type its
 * options.  Whatever is not in a table is refused by name.  How the stages work on a text is in
 * normalizer.c, pretokenizer.c, postprocessor.c and decoder.c. */
#ifndef GR_DATA_TOKENIZER_COMPONENT_H
#define GR_DATA_TOKENIZER_COMPONENT_H

#include "data/tokenizer/pattern.h"
#include "data/tokenizer/text.h"
#include "data/tokenizer/tokenizer.h"

enum gr_split_behavior { /* what becomes of a match that splits; as gr_split_behavior_words */
                         GR_SPLIT_REMOVED,
                         GR_SPLIT_ISOLATED,
                         GR_SPLIT_WITH_PREVIOUS,
                         GR_SPLIT_WITH_NEXT,
                         GR_SPLIT_CONTIGUOUS
};
enum gr_prepend_scheme { GR_PREPEND_ALWAYS, GR_PREPEND_FIRST, GR_PREPEND_NEVER };

struct gr_component_type;

/* One component.  Which fields mean something, and the option each is read from, is said by the
 * type's option table. */
struct gr_component {
    const struct gr_component_type *type;
    struct gr_pattern
        pattern; /* Split, Replace: as given; Digits, ByteLevel, Metaspace: their own */
    char *text;  /* Prepend, Replace, Metaspace, Strip: what to write or to strip */
    int64_t text_length;
    bool add_prefix_space, use_regex, individual_digits, invert, split;
    bool leaves_spelling;  /* ByteLevel: the model spells the bytes, word by word */
    int behavior;          /* enum gr_split_behavior */
    int prepend_scheme;    /* enum gr_prepend_scheme */
    int64_t start, stop;   /* Strip: at most so many characters at either end of a token */
    uint32_t *ids;         /* TemplateProcessing: ids before the text, then ids after it */
    int64_t before, after; /* how many of each */
};

/* Tokens on their way to text, in a decoder. */
struct gr_parts {
    struct gr_buffer bytes; /* all parts, one after another */
    size_t *end;            /* of each part, in bytes */
    int64_t count, capacity;
};
void gr_parts_add(struct gr_parts *parts, const char *bytes, size_t count);
void gr_parts_release(struct gr_parts *parts);

enum gr_component_option_kind {
    GR_AS_BOOL,    /* bool */
    GR_AS_COUNT,   /* int64_t, from 0 */
    GR_AS_TEXT,    /* text and text_length */
    GR_AS_CHAR,    /* the same, one character */
    GR_AS_PATTERN, /* struct gr_pattern */
    GR_AS_WORD,    /* int: the index in `words` */
    GR_AS_OTHER    /* read by the type's own `prepare`, or without effect on ids */
};
#define GR_FIELD(name) offsetof(struct gr_component, name)
struct gr_component_option {
    const char *key;
    enum gr_component_option_kind kind;
    size_t offset;            /* in struct gr_component */
    const char *const *words; /* NULL-terminated */
    bool optional;
    bool fallback; /* value of a BOOL that is left out */
};
extern const char *const gr_split_behavior_words[];
extern const struct gr_component_option gr_byte_level_options[], gr_metaspace_options[],
    gr_replace_options[];

struct gr_component_type {
    const char *name;
    const struct gr_component_option *options; /* ends with key NULL; NULL: none */
    /* Completes a component whose options are read; NULL: nothing to do. */
    gr_status (*prepare)(struct gr_component *component, const struct gr_json *json);
    /* What it does; the stage decides which. */
    union {
        void (*to_text)(const struct gr_component *component, struct gr_text *text, bool *gave_up);
        void (*to_encoding)(const struct gr_component *component, struct gr_encoding *encoding);
        void (*to_parts)(const struct gr_component *component, struct gr_parts *parts);
    } apply;
};
struct gr_stage_kind {
    const char *key;                       /* in tokenizer.json */
    const char *members;                   /* key of the list in a Sequence */
    const struct gr_component_type *types; /* ends with name NULL */
};
extern const struct gr_stage_kind gr_normalizer, gr_pre_tokenizer, gr_post_processor, gr_decoder;

struct gr_stage {
    struct gr_component *component; /* in the order in which they are applied */
    int64_t count;
};

/* Reads root[kind->key]; missing or null: no components.  Errors: ERR_DATA naming the key, the type
 * or the option. */
gr_status gr_stage_read(struct gr_stage *stage, const struct gr_stage_kind *kind,
                        const struct gr_json *root);
void gr_stage_release(struct gr_stage *stage);
/* Normalizer, pre-tokenizer: applies all components, in order.  False if a regular expression gave
 * up on the text. */
bool gr_stage_apply(const struct gr_stage *stage, struct gr_text *text);

/* Pre-tokenizer: a ByteLevel at its end cuts words, but leaves spelling them to the model. */
void gr_pre_tokenizer_leave_spelling(struct gr_stage *stage);

/* Prepare function of Metaspace, pre-tokenizer and decoder.  Errors: ERR_DATA. */
gr_status gr_metaspace_prepare(struct gr_component *component, const struct gr_json *json);

#endif
