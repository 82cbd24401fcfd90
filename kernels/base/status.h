/* Status codes, and the one message that explains a failure.
 *
 * A function that can fail for a reason outside the program (a file, the user, a device, a peer)
 * returns gr_status and leaves its message with gr_fail; every caller passes the status on with
 * GR_TRY; only the program's main prints.  A bug in graft itself is a GR_CHECK, never a status. */
#ifndef GR_BASE_STATUS_H
#define GR_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

/* name, exit code of the program, words.  One list: enum, names and exit codes come from it. */
#define GR_STATUS_LIST(X)                                                                          \
    X(OK, 0, "done")                                                                               \
    X(ERR_USAGE, 2, "usage or configuration")                                                      \
    X(ERR_DATA, 3, "bad data or model files")                                                      \
    X(ERR_GATE, 4, "gate refused")                                                                 \
    X(ERR_DEVICE, 5, "device")                                                                     \
    X(ERR_FENCED, 6, "fenced or in use")                                                           \
    X(ERR_CREDENTIALS, 7, "credentials refused")                                                   \
    X(ERR_CORRUPT, 8, "checkpoints exist but none is good")                                        \
    X(ERR_DIVERGED, 9, "diverged")                                                                 \
    X(ERR_BUG, 70, "bug in graft")                                                                 \
    X(ERR_RETRY, 138, "stopped on request, peer lost or store down: start me again")               \
    X(ERR_EXISTS, 6, "object exists already") /* put-if-absent lost; callers decide */             \
    X(ERR_NOT_FOUND, 3, "object or file not found")

enum gr_status_code {
#define X(name, exit_code, words) GR_##name,
    GR_STATUS_LIST(X)
#undef X
        GR_STATUS_COUNT
};
typedef enum gr_status_code gr_status;

const char *gr_status_name(gr_status status); /* "ERR_DATA" */
int gr_status_exit_code(gr_status status);    /* decisions: 0, 2..9, 70, 138 */

/* Leaves the message of a failure on this thread and returns `status`.  `place` is the file, key or
 * command the user must look at (copied); `hint` is one sentence that says what to do (copied; NULL
 * for none).  The first message wins until gr_error_clear.  Message form:
 *   "what is wrong (found X, expected Y)", no newline, no full stop. */
gr_status gr_fail(gr_status status, const char *place, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Replaces the hint of the message just left, for hints that need values. */
void gr_hint(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The message left on this thread: "PLACE: what is wrong", and the hint ("" if none). */
const char *gr_error_message(void);
const char *gr_error_hint(void);
bool gr_error_is_set(void);
bool gr_error_is_shared(void); /* see struct gr_error */
void gr_error_clear(void);
/* Moves a message between threads: take it where it happened, put it where it is reported. */
struct gr_error {
    gr_status status;
    bool is_shared; /* every rank of the job has it: the one that speaks prints it */
    char message[1024];
    char hint[512];
};
struct gr_error gr_error_take(void);
void gr_error_put(const struct gr_error *error);

/* The one way to pass a failure on: needs a local `status` and a label `out`. */
#define GR_TRY(call)                                                                               \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != GR_OK)                                                                       \
            goto out;                                                                              \
    } while (0)

/* GR_CHECK(condition, "format", ...): a condition only a bug can break.  Prints place and values,
 * then ends the program with exit code 70, over MPI if the hook says so.  Stays on in every build.
 */
#define GR_CHECK(condition, ...)                                                                   \
    do {                                                                                           \
        if (!(condition))                                                                          \
            gr_bug(__FILE__, __LINE__, #condition, __VA_ARGS__);                                   \
    } while (0)
void gr_bug(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));

/* Called with the exit code when the process must end on the spot (a bug, no memory); the program
 * sets it to MPI_Abort once MPI runs.  Default: _exit. */
void gr_set_abort_hook(void (*hook)(int exit_code));
void gr_abort(int exit_code) __attribute__((noreturn));

#endif
