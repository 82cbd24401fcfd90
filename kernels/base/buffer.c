/* Growable bytes.  See buffer.h. */
#include "kernels/base/buffer.h"

#include "kernels/base/alloc.h"
#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void gr_buffer_reserve(struct gr_buffer *b, size_t capacity)
{
    size_t grown = b->capacity < 64 ? 64 : b->capacity;

    if (capacity + 1 <= b->capacity)
        return;
    while (grown < capacity + 1)
        grown *= 2;
    b->data = gr_realloc(b->data, (int64_t)grown, 1);
    b->capacity = grown;
}

void gr_buffer_add(struct gr_buffer *b, const void *bytes, size_t count)
{
    gr_buffer_reserve(b, b->length + count);
    if (count > 0)
        memcpy(b->data + b->length, bytes, count);
    b->length += count;
    b->data[b->length] = '\0';
}

void gr_buffer_add_text(struct gr_buffer *b, const char *text)
{
    gr_buffer_add(b, text, strlen(text));
}

void gr_buffer_add_format(struct gr_buffer *b, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    GR_CHECK(length >= 0, "%s", format);
    gr_buffer_reserve(b, b->length + (size_t)length);
    va_start(args, format);
    vsnprintf(b->data + b->length, (size_t)length + 1, format, args);
    va_end(args);
    b->length += (size_t)length;
}

void gr_buffer_clear(struct gr_buffer *b)
{
    b->length = 0;
    if (b->data != NULL)
        b->data[0] = '\0';
}

void gr_buffer_release(struct gr_buffer *b)
{
    gr_free(b->data);
    memset(b, 0, sizeof *b);
}
