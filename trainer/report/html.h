/* Foreign text into a page: escaped for HTML and XML alike, whatever bytes it has.  Everything that
 * the page did not write itself goes through here. */
#ifndef GR_TRAINER_REPORT_HTML_H
#define GR_TRAINER_REPORT_HTML_H

#include "kernels/base/buffer.h"

/* Appends the bytes: markup as entities, broken UTF-8 and characters that XML forbids as U+FFFD,
 * other control characters as their pictures (U+2400 on). */
void gr_html_add(struct gr_buffer *html, const char *bytes, size_t length);
void gr_html_add_text(struct gr_buffer *html, const char *text); /* NULL: nothing */

/* "12,345,678" */
const char *gr_html_count(char text[32], int64_t count);

#endif
