/* Escaping.  See html.h. */
#include "trainer/report/html.h"

#include "data/utf8.h"
#include "kernels/base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* NULL: the character stands for itself. */
static const char *entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void gr_html_add(struct gr_buffer *html, const char *bytes, size_t length)
{
    struct gr_buffer valid = {0};
    int64_t count;

    gr_utf8_add_lossy(&valid, bytes, (int64_t)length);
    for (size_t i = 0; i < valid.length; i += (size_t)count) {
        const char *at = valid.data + i;
        int32_t code = gr_char_at(at);

        count = gr_char_bytes(*at);
        if (entity(*at) != NULL)
            gr_buffer_add_text(html, entity(*at));
        else if (code == '\n' || code == '\t')
            gr_buffer_add(html, at, 1);
        else if (code < 0x20 || code == 0x7f)
            gr_buffer_add_format(html, "&#x%x;", code == 0x7f ? 0x2421U : 0x2400U + (unsigned)code);
        else if ((code >= 0x80 && code <= 0x9f) || code == 0xfffe || code == 0xffff)
            gr_buffer_add_text(html, "&#xfffd;");
        else
            gr_buffer_add(html, at, (size_t)count);
    }
    gr_buffer_release(&valid);
}

void gr_html_add_text(struct gr_buffer *html, const char *text)
{
    if (text != NULL)
        gr_html_add(html, text, strlen(text));
}

const char *gr_html_count(char text[32], int64_t count)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%" PRId64, count), out = 0;

    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0 && digits[i - 1] != '-')
            text[out++] = ',';
        text[out++] = digits[i];
    }
    text[out] = '\0';
    return text;
}
