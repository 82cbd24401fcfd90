/* Hands an open file from one process of a host to others of the same user, over a Unix socket with
 * a name in the abstract space (nothing lies on a disk, nothing is left behind).  Knows neither MPI
 * nor what the file holds.  Deadlines are values of gr_clock_ns. */
#ifndef GR_DATA_FD_SHARE_H
#define GR_DATA_FD_SHARE_H

#include "kernels/base/status.h"

#include <stdint.h>

/* Takes the name, so that `peers` processes can queue up before the file is ready.  The caller
 * closes *listener; whoever still waits in the queue then fails at once. Errors: ERR_RETRY when the
 * name stays taken until the deadline. */
gr_status gr_fd_offer_open(int *listener, const char *name, int peers, int64_t deadline_ns);
/* Gives `fd` to that many peers.  Errors: ERR_RETRY when they do not come in time. */
gr_status gr_fd_offer(int listener, const char *name, int fd, int peers, int64_t deadline_ns);
/* Waits for the offer of that name and takes the file; the caller closes it.  Errors: ERR_RETRY
 * when none comes in time or the other side gave up; ERR_USAGE when another user holds the name. */
gr_status gr_fd_take(int *fd, const char *name, int64_t deadline_ns);

#endif
