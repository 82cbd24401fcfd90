/* The lock of a run directory.  See lock.h. */
#include "trainer/state/lock.h"

#include "data/json.h"
#include "data/store/file_error.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POLL_NS = 50 * 1000 * 1000, MAX_CONTENT = 1024 };

struct gr_run_lock {
    bool is_held;
    int file;
};

/* Returns an errno or 0.  Not waiting: the time to wait is counted by us. */
static int try_lock(int file)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(file, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
}

static bool is_held_by_another(int error)
{
    return error == EAGAIN || error == EACCES;
}

/* For the message of who comes later.  Failing to write it takes nothing from the lock. */
static void write_holder(int file)
{
    char host[256] = "";
    json_t *holder = json_object();
    char *text = NULL;

    gethostname(host, sizeof host - 1);
    json_object_set_new(holder, "pid", json_integer(getpid()));
    json_object_set_new(holder, "host", json_string(host));
    json_object_set_new(holder, "time", json_real(gr_clock_unix_s()));
    text = json_dumps(holder, JSON_SORT_KEYS);
    if (text != NULL && ftruncate(file, 0) == 0 &&
        pwrite(file, text, strlen(text), 0) != (ssize_t)strlen(text))
        gr_warn("the holder of the run's lock could not be noted (%s)", strerror(errno));
    free(text); /* jansson's allocation */
    json_decref(holder);
}

/* "run in use by PID on HOST", as far as the file says who. */
static gr_status fail_in_use(const char *folder, int file)
{
    static const char hint[] = "wait for it to end, or start with --takeover to fence it off";
    char text[MAX_CONTENT];
    ssize_t length = pread(file, text, sizeof text, 0);
    json_t *holder = json_loadb(text, length > 0 ? (size_t)length : 0, 0, NULL);
    const char *host = json_string_value(json_object_get(holder, "host"));
    json_int_t pid = json_integer_value(json_object_get(holder, "pid"));
    gr_status status = host == NULL ? gr_fail(GR_ERR_FENCED, folder, hint, "run in use")
                                    : gr_fail(GR_ERR_FENCED, folder, hint,
                                              "run in use by %lld on %s", (long long)pid, host);

    json_decref(holder);
    return status;
}

/* Returns an errno or 0. */
static int wait_for_lock(int file, const char *folder, double patience_s)
{
    int64_t end_ns = gr_clock_ns() + (int64_t)(patience_s * 1e9);
    int error = try_lock(file);

    if (is_held_by_another(error) && patience_s > 0)
        gr_note("%s is in use, waiting up to %g s for it", folder, patience_s);
    while (is_held_by_another(error) && gr_clock_ns() < end_ns) {
        gr_sleep_ns(POLL_NS);
        error = try_lock(file);
    }
    return error;
}

gr_status gr_run_lock_take(struct gr_run_lock **lock, const char *folder, bool takeover,
                           double patience_s)
{
    gr_status status = GR_OK;
    char *path = gr_format("%s/.lock", folder);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    int error = 0;

    *lock = NULL;
    if (file < 0)
        GR_TRY(gr_file_error(path, "opened", errno));
    error = wait_for_lock(file, folder, takeover ? 0 : patience_s);
    if (error == 0 || (takeover && is_held_by_another(error))) {
        *lock = GR_NEW(struct gr_run_lock);
        (*lock)->file = file;
        (*lock)->is_held = error == 0;
        file = -1;
        if (error == 0)
            write_holder((*lock)->file);
    } else if (!is_held_by_another(error)) {
        gr_warn("%s: the file system has no locks (%s): start this run only once at a time", path,
                strerror(error));
    } else {
        status = fail_in_use(folder, file);
    }
out:
    if (file >= 0)
        close(file);
    gr_free(path);
    return status;
}

void gr_run_lock_retry(struct gr_run_lock *lock)
{
    if (lock == NULL || lock->is_held || try_lock(lock->file) != 0)
        return;
    lock->is_held = true;
    write_holder(lock->file);
}

void gr_run_lock_release(struct gr_run_lock *lock)
{
    if (lock == NULL)
        return;
    close(lock->file);
    gr_free(lock);
}
