/* Reading, writing and checking UTF-8.  See utf8.h. */
#include "data/utf8.h"

#include <string.h>
#include <utf8proc.h>

int32_t gr_char_at(const char *bytes)
{
    utf8proc_int32_t code;

    utf8proc_iterate((const utf8proc_uint8_t *)bytes, gr_char_bytes(bytes[0]), &code);
    return code;
}

int64_t gr_char_write(char bytes[4], int32_t code)
{
    return utf8proc_encode_char(code, (utf8proc_uint8_t *)bytes);
}

/* Length of the character at `bytes`, or -(length of the longest valid start of one, at least 1).
 */
static int64_t valid_bytes(const unsigned char *bytes, int64_t length)
{
    unsigned char lead = bytes[0];
    int64_t need = lead < 0x80                  ? 1
                   : lead < 0xC2 || lead > 0xF4 ? 0
                   : lead < 0xE0                ? 2
                   : lead < 0xF0                ? 3
                                                : 4;
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    int64_t i = 1;

    for (; i < need && i < length && bytes[i] >= low && bytes[i] <= high; i++) {
        low = 0x80; /* only the second byte has narrower bounds: no overlong forms, surrogates */
        high = 0xBF;
    }
    return i == need ? need : -i;
}

void gr_utf8_add_lossy(struct gr_buffer *out, const char *bytes, int64_t length)
{
    int64_t i = 0;

    while (i < length) {
        int64_t count = valid_bytes((const unsigned char *)bytes + i, length - i);

        if (count > 0)
            gr_buffer_add(out, bytes + i, (size_t)count);
        else
            gr_buffer_add(out, "\xEF\xBF\xBD", 3);
        i += count > 0 ? count : -count;
    }
}

int64_t gr_utf8_invalid_at(const char *bytes, int64_t length)
{
    int64_t i = 0;

    while (i < length) {
        int64_t count;
        uint64_t eight;

        if (i + 8 <= length) { /* eight bytes of ASCII at once */
            memcpy(&eight, bytes + i, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        count = valid_bytes((const unsigned char *)bytes + i, length - i);

        if (count < 0)
            return i;
        i += count;
    }
    return -1;
}
