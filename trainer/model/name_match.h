/* Regular expressions as PEFT uses Python's `re` on module names. */
#ifndef GR_TRAINER_NAME_MATCH_H
#define GR_TRAINER_NAME_MATCH_H

#include "trainer/model/lora.h"

/* re.fullmatch(expression, name).  `key` is the configuration's, for messages.
 * Errors, here and below: ERR_USAGE when the expression is broken. */
gr_status gr_name_full_match(bool *matches, const char *expression, const char *name,
                             const char *key);

/* The value of the first key k of the map with re.match(rf"(.*\.)?({k})$", name), else *value stays
 * as it is. */
gr_status gr_name_map_lookup(double *value, const struct gr_name_map *map, const char *name,
                             const char *key);

#endif
