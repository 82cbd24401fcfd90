/* The checked allocator.  See alloc.h. */
#include "kernels/base/alloc.h"

#include "kernels/base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gr_no_memory(const char *what)
{
    fprintf(stderr,
            "graft: error: host memory: an allocation failed (%s)\n"
            "  hint: give the job more memory, or lower data.max_length\n",
            what);
    gr_abort(gr_status_exit_code(GR_ERR_DEVICE));
}

static void *or_die(void *memory, size_t bytes)
{
    if (memory == NULL) {
        char what[64];

        snprintf(what, sizeof what, "asked for %zu bytes", bytes);
        gr_no_memory(what);
    }
    return memory;
}

int64_t gr_mul(int64_t a, int64_t b)
{
    int64_t product = 0;

    GR_CHECK(a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, &product), "%lld x %lld",
             (long long)a, (long long)b);
    return product;
}

void *gr_alloc(int64_t count, size_t size)
{
    int64_t bytes = gr_mul(count, (int64_t)size);

    if (bytes == 0)
        bytes = 1;
    return or_die(calloc((size_t)bytes, 1), (size_t)bytes);
}

void *gr_realloc(void *memory, int64_t count, size_t size)
{
    int64_t bytes = gr_mul(count, (int64_t)size);

    if (bytes == 0)
        bytes = 1;
    return or_die(realloc(memory, (size_t)bytes), (size_t)bytes);
}

char *gr_strdup(const char *text)
{
    return gr_strndup(text, strlen(text));
}

char *gr_strndup(const char *text, size_t length)
{
    char *copy = gr_alloc((int64_t)length + 1, 1);

    memcpy(copy, text, length);
    return copy;
}

char *gr_format_list(const char *format, va_list args)
{
    va_list again;
    char *text = NULL;
    int length;

    va_copy(again, args);
    length = vsnprintf(NULL, 0, format, args);
    GR_CHECK(length >= 0, "%s", format);
    text = gr_alloc((int64_t)length + 1, 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

char *gr_format(const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = gr_format_list(format, args);
    va_end(args);
    return text;
}

void gr_free(void *memory)
{
    free(memory);
}
