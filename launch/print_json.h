/* What --json prints: one object, one line, on stdout. */
#ifndef GR_LAUNCH_PRINT_JSON_H
#define GR_LAUNCH_PRINT_JSON_H

#include <jansson.h>

void gr_print_json(const json_t *object);

#endif
