/* Notes, warnings and the final error line.  See log.h. */
#include "kernels/base/log.h"

#include <stdarg.h>
#include <stdio.h>

static bool this_rank_speaks = true;
static void (*clear_hook)(void);

void gr_log_speaks(bool speaks)
{
    this_rank_speaks = speaks;
}

bool gr_log_does_speak(void)
{
    return this_rank_speaks;
}

void gr_log_set_clear_hook(void (*hook)(void))
{
    clear_hook = hook;
}

/* One write per line, so that lines of several processes do not mix. */
static void print_line(const char *prefix, const char *format, va_list args)
{
    char line[2048];
    int length = snprintf(line, sizeof line, "%s", prefix);

    vsnprintf(line + length, sizeof line - (size_t)length, format, args);
    if (clear_hook != NULL)
        clear_hook();
    fprintf(stderr, "%s\n", line);
}

void gr_note(const char *format, ...)
{
    va_list args;

    if (!this_rank_speaks)
        return;
    va_start(args, format);
    print_line("graft: ", format, args);
    va_end(args);
}

void gr_warn(const char *format, ...)
{
    va_list args;

    if (!this_rank_speaks)
        return;
    va_start(args, format);
    print_line("graft: warning: ", format, args);
    va_end(args);
}

void gr_print_error(void)
{
    const char *hint = gr_error_hint();

    if (clear_hook != NULL)
        clear_hook();
    if (hint[0] != '\0')
        fprintf(stderr, "graft: error: %s\n  hint: %s\n", gr_error_message(), hint);
    else
        fprintf(stderr, "graft: error: %s\n", gr_error_message());
}
