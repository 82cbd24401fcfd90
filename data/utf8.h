/* Characters of UTF-8.  Called by the tokenizer and by what writes text that others made. */
#ifndef GR_DATA_UTF8_H
#define GR_DATA_UTF8_H

#include "kernels/base/buffer.h"

#include <stdint.h>

/* Bytes of the UTF-8 character that starts with `lead`, in valid text. */
static inline int64_t gr_char_bytes(char lead)
{
    unsigned char byte = (unsigned char)lead;

    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}
int32_t gr_char_at(const char *bytes);              /* the code point there, in valid text */
int64_t gr_char_write(char bytes[4], int32_t code); /* returns the number of bytes */
/* Appends the bytes as valid UTF-8: each broken character, or longest start of one, as U+FFFD. */
void gr_utf8_add_lossy(struct gr_buffer *out, const char *bytes, int64_t length);
/* Position of the first byte that is not valid UTF-8, -1 if there is none. */
int64_t gr_utf8_invalid_at(const char *bytes, int64_t length);

#endif
