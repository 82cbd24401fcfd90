/* Messages for people, on stderr.  Results go to stdout, metrics to the event stream: neither here.
 * Every line appears once per job: only the rank that speaks prints notes and warnings. */
#ifndef GR_BASE_LOG_H
#define GR_BASE_LOG_H

#include "kernels/base/status.h"

/* A rank that does not speak drops notes and warnings.  Default: it speaks. */
void gr_log_speaks(bool speaks);
bool gr_log_does_speak(void);
/* Called before a line is printed, so that a progress bar can get out of the way; NULL: nothing. */
void gr_log_set_clear_hook(void (*hook)(void));

void gr_note(const char *format, ...) __attribute__((format(printf, 1, 2))); /* "graft: ..." */
void gr_warn(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* "graft: warning: ..." */

/* Prints the thread's failure message: "graft: error: PLACE: what" and "  hint: ...".  Whether this
 * rank is the one to print is the caller's decision. */
void gr_print_error(void);

#endif
