/* A growable run of bytes: text being built, a file being read, a list of ids. */
#ifndef GR_BASE_BUFFER_H
#define GR_BASE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

struct gr_buffer {
    char *data;      /* NUL-terminated at data[length] once anything was added; NULL when new */
    size_t length;   /* bytes in use, without the NUL */
    size_t capacity; /* bytes owned */
};

/* A zeroed struct is an empty buffer. */
void gr_buffer_add(struct gr_buffer *b, const void *bytes, size_t count);
void gr_buffer_add_text(struct gr_buffer *b, const char *text);
void gr_buffer_add_format(struct gr_buffer *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void gr_buffer_reserve(struct gr_buffer *b, size_t capacity);
void gr_buffer_clear(struct gr_buffer *b); /* keeps the memory */
void gr_buffer_release(struct gr_buffer *b);

#endif
