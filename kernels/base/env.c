/* The only file that reads the environment.  See env.h. */
#include "kernels/base/env.h"

#include "kernels/base/alloc.h"

#include <stdlib.h>
#include <string.h>

extern char **environ;

const char *gr_env(enum gr_env variable)
{
    static const char *const names[GR_ENV_COUNT] = {
#define X(name, words) [GR_ENV_##name] = #name,
        GR_ENV_LIST(X)
#undef X
    };
    const char *value = getenv(names[variable]);

    return value == NULL || value[0] == '\0' ? NULL : value;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void gr_env_each(const char *prefix,
                 void (*visit)(void *context, const char *name, const char *value), void *context)
{
    size_t length = strlen(prefix);
    int64_t count = 0;
    char **found = NULL;

    for (char **e = environ; e != NULL && *e != NULL; e++)
        count += strncmp(*e, prefix, length) == 0;
    found = GR_NEW_ARRAY(char *, count);
    count = 0;
    for (char **e = environ; e != NULL && *e != NULL; e++) {
        if (strncmp(*e, prefix, length) == 0 && strchr(*e, '=') != NULL)
            found[count++] = gr_strdup(*e);
    }
    qsort(found, (size_t)count, sizeof *found, compare_text);
    for (int64_t i = 0; i < count; i++) {
        char *equals = strchr(found[i], '=');

        *equals = '\0';
        visit(context, found[i] + length, equals + 1);
        gr_free(found[i]);
    }
    gr_free(found);
}
