/* Heap memory for graft's own bookkeeping: never NULL, sizes multiplied with a check.
 * Tensors live in arenas (base/arena.h), not here. */
#ifndef GR_BASE_ALLOC_H
#define GR_BASE_ALLOC_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* a * b for sizes and counts; a negative factor or an overflow is a bug and ends the program. */
int64_t gr_mul(int64_t a, int64_t b);

/* count elements of `size` bytes, zeroed.  Without memory the program ends (exit 5, one message).
 */
void *gr_alloc(int64_t count, size_t size);
/* Grows or shrinks; the new part is not cleared. */
void *gr_realloc(void *memory, int64_t count, size_t size);
/* For what a library could not allocate: ends the program in the same way.  what: whose it was. */
void gr_no_memory(const char *what) __attribute__((noreturn));
char *gr_strdup(const char *text);
char *gr_strndup(const char *text, size_t length);
char *gr_format(const char *format, ...) __attribute__((format(printf, 1, 2))); /* caller frees */
char *gr_format_list(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
void gr_free(void *memory); /* NULL is fine */

#define GR_NEW(type)              ((type *)gr_alloc(1, sizeof(type)))
#define GR_NEW_ARRAY(type, count) ((type *)gr_alloc((count), sizeof(type)))
#define GR_COUNT(array)           ((int64_t)(sizeof(array) / sizeof((array)[0])))

#endif
