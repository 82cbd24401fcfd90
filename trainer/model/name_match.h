/* Regular expressions as PEFT uses Python's `re` on module names. */
#ifndef GR_TRAINER_NAME_MATCH_H
#define GR_TRAINER_NAME_MATCH_H

#include "trainer/model/lora.h"

/* Expressions compiled once, to be matched with the name of every linear. */
struct gr_name_patterns {
    void **compiled;     /* [count] */
    const double *value; /* [count] borrowed from the map */
    int64_t count;
};

/* One expression for re.fullmatch(expression, name).  `key` is the configuration's, for messages;
 * `is_new`: PEFT has not read the expression yet, in whatever Python it may run.
 * Errors, here and below: ERR_USAGE when an expression is broken, or not the same to Python. */
gr_status gr_name_patterns_init(struct gr_name_patterns *patterns, const char *expression,
                                const char *key, bool is_new);
/* For each key k of the map re.match(rf"(.*\.)?({k})$", name).  The map must stay. */
gr_status gr_name_patterns_init_map(struct gr_name_patterns *patterns,
                                    const struct gr_name_map *map, const char *key, bool is_new);
void gr_name_patterns_release(struct gr_name_patterns *patterns);

/* The first that matches, -1: none. */
int64_t gr_name_patterns_find(const struct gr_name_patterns *patterns, const char *name);

#endif
