/* Status names, exit codes and the thread's one failure message. */
#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    int exit_code;
} status_table[GR_STATUS_COUNT] = {
#define X(name, exit_code, words) [GR_##name] = {#name, exit_code},
    GR_STATUS_LIST(X)
#undef X
};

static _Thread_local struct gr_error last_error;
static void (*abort_hook)(int exit_code);

const char *gr_status_name(gr_status status)
{
    return status_table[status].name;
}

int gr_status_exit_code(gr_status status)
{
    return status_table[status].exit_code;
}

/* Names out of hostile files stay on the one line of a message and cannot speak to the terminal. */
static void replace_control_characters(char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)text[0], next = (unsigned char)text[1];

        if (byte < ' ' || byte == 0x7f)
            text[0] = '?';
        else if (byte == 0xc2 && next >= 0x80 && next < 0xa0) /* U+0080 to U+009F */
            text[0] = text[1] = '?';
    }
}

gr_status gr_fail(gr_status status, const char *place, const char *hint, const char *format, ...)
{
    struct gr_error *error = &last_error;
    va_list args;
    int length = 0;

    if (error->status != GR_OK)
        return error->status;
    error->status = status;
    error->is_shared = false;
    if (place != NULL && place[0] != '\0')
        length = snprintf(error->message, sizeof error->message, "%s: ", place);
    if (length < 0 || (size_t)length >= sizeof error->message)
        length = 0;
    va_start(args, format);
    vsnprintf(error->message + length, sizeof error->message - (size_t)length, format, args);
    va_end(args);
    replace_control_characters(error->message);
    snprintf(error->hint, sizeof error->hint, "%s", hint == NULL ? "" : hint);
    return status;
}

void gr_hint(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(last_error.hint, sizeof last_error.hint, format, args);
    va_end(args);
}

const char *gr_error_message(void)
{
    return last_error.message;
}

const char *gr_error_hint(void)
{
    return last_error.hint;
}

bool gr_error_is_set(void)
{
    return last_error.status != GR_OK;
}

bool gr_error_is_shared(void)
{
    return last_error.is_shared;
}

void gr_error_clear(void)
{
    memset(&last_error, 0, sizeof last_error);
}

struct gr_error gr_error_take(void)
{
    struct gr_error error = last_error;

    gr_error_clear();
    return error;
}

void gr_error_put(const struct gr_error *error)
{
    if (last_error.status == GR_OK)
        last_error = *error;
}

void gr_set_abort_hook(void (*hook)(int exit_code))
{
    abort_hook = hook;
}

_Noreturn void gr_abort(int exit_code)
{
    fflush(NULL);
    if (abort_hook != NULL)
        abort_hook(exit_code);
    _exit(exit_code);
}

_Noreturn void gr_bug(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "graft: bug: %s:%d: %s does not hold", file, line, condition);
    if (format[0] != '\0') {
        fputs(": ", stderr);
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
    }
    fputs("\n  hint: this is a fault of graft, not of your input; please report it\n", stderr);
    gr_abort(gr_status_exit_code(GR_ERR_BUG));
}
