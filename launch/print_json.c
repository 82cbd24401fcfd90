/* JSON on stdout.  See print_json.h. */
#include "launch/print_json.h"

#include <stdio.h>
#include <stdlib.h>

void gr_print_json(const json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);

    printf("%s\n", text);
    free(text); /* jansson's allocation */
}
