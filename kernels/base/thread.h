/* A thread beside the main one.  Signals stay the main thread's: no handler, and no wait for one,
 * runs elsewhere. */
#ifndef GR_KERNELS_BASE_THREAD_H
#define GR_KERNELS_BASE_THREAD_H

#include "kernels/base/status.h"

#include <pthread.h>

/* what: named in the message.  The caller joins *thread, if there is one.  Errors: ERR_DEVICE, the
 * system gives no thread. */
gr_status gr_thread_start(pthread_t *thread, void *(*run)(void *context), void *context,
                          const char *what);

#endif
