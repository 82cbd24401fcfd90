/* Messages for people, on stderr.  Results go to stdout, metrics to the event stream: neither here.
 * Every line appears once per job: only the rank that speaks prints notes and warnings. */
#ifndef GR_BASE_LOG_H
#define GR_BASE_LOG_H

#include "kernels/base/status.h"

/* A rank that does not speak drops notes and warnings.  Default: it speaks. */
void gr_log_speaks(bool speaks);
bool gr_log_does_speak(void);
/* A progress bar on the last line of the terminal: `clear` takes it away before a message is
 * printed, `redraw` puts it back behind it.  Both are called with stderr locked (flockfile), which
 * the bar's own thread does too.  NULL: no bar. */
void gr_log_set_bar(void (*clear)(void *bar), void (*redraw)(void *bar), void *bar);

void gr_note(const char *format, ...) __attribute__((format(printf, 1, 2))); /* "graft: ..." */
void gr_warn(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* "graft: warning: ..." */

/* Prints the thread's failure message: "graft: error: PLACE: what" and "  hint: ...".  Whether this
 * rank is the one to print is the caller's decision. */
void gr_print_error(void);
/* Likewise for a failure of one rank that the others may not know: "graft: error: rank 3: ...". */
void gr_print_error_of_rank(const char *rank);

#endif
