/* See thread.h. */
#include "kernels/base/thread.h"

#include <signal.h>
#include <string.h>

gr_status gr_thread_start(pthread_t *thread, void *(*run)(void *context), void *context,
                          const char *what)
{
    sigset_t all, before;
    int code;

    sigfillset(&all); /* the thread inherits the mask */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code == 0)
        return GR_OK;
    return gr_fail(GR_ERR_DEVICE, what, "allow the job more threads (ulimit -u) or memory",
                   "a thread cannot be started (%s)", strerror(code));
}
