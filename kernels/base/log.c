/* Notes, warnings and the final error line.  See log.h. */
#include "kernels/base/log.h"

#include <stdarg.h>
#include <stdio.h>

static bool this_rank_speaks = true;
static void (*clear_bar)(void *bar);
static void (*redraw_bar)(void *bar);
static void *the_bar;

void gr_log_speaks(bool speaks)
{
    this_rank_speaks = speaks;
}

bool gr_log_does_speak(void)
{
    return this_rank_speaks;
}

void gr_log_set_bar(void (*clear)(void *bar), void (*redraw)(void *bar), void *bar)
{
    flockfile(stderr);
    clear_bar = clear;
    redraw_bar = redraw;
    the_bar = bar;
    funlockfile(stderr);
}

/* One write per line, so that lines of several processes do not mix. */
static void print_line(const char *prefix, const char *format, va_list args)
{
    char line[2048];
    int length = snprintf(line, sizeof line, "%s", prefix);

    vsnprintf(line + length, sizeof line - (size_t)length, format, args);
    flockfile(stderr);
    if (clear_bar != NULL)
        clear_bar(the_bar);
    fprintf(stderr, "%s\n", line);
    if (redraw_bar != NULL)
        redraw_bar(the_bar);
    funlockfile(stderr);
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

static void print_error(const char *who)
{
    const char *hint = gr_error_hint();

    flockfile(stderr);
    if (clear_bar != NULL)
        clear_bar(the_bar);
    fprintf(stderr, "graft: error: %s%s\n", who, gr_error_message());
    if (hint[0] != '\0')
        fprintf(stderr, "  hint: %s\n", hint);
    funlockfile(stderr);
}

void gr_print_error(void)
{
    print_error("");
}

void gr_print_error_of_rank(const char *rank)
{
    char who[32];

    snprintf(who, sizeof who, "rank %s: ", rank);
    print_error(who);
}
