/* The byte-level alphabet of GPT-2: every byte as one printable character.  Bytes that are
 * printable in Latin-1 are themselves; the others, in order, are U+0100, U+0101, ... */
#ifndef GR_DATA_TOKENIZER_BYTELEVEL_H
#define GR_DATA_TOKENIZER_BYTELEVEL_H

#include <stdint.h>

static inline int32_t gr_byte_level_char(unsigned char byte)
{
    if (byte <= 0x20)
        return 0x100 + byte;
    if (byte >= 0x7F && byte <= 0xA0)
        return 0x121 + (byte - 0x7F);
    return byte == 0xAD ? 0x143 : byte;
}

/* The byte a character stands for, -1 if it is not of the alphabet. */
static inline int gr_byte_level_byte(int32_t code)
{
    int byte = code < 0x100    ? code
               : code <= 0x120 ? code - 0x100
               : code <= 0x142 ? code - 0x121 + 0x7F
               : code == 0x143 ? 0xAD
                               : -1;

    return byte >= 0 && gr_byte_level_char((unsigned char)byte) == code ? byte : -1;
}

#endif
