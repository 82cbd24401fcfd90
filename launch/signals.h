/* Signals of the program.  What a stop request leads to is the loop's business, not ours. */
#ifndef GR_LAUNCH_SIGNALS_H
#define GR_LAUNCH_SIGNALS_H

#include <stdbool.h>

/* First thing in main: a file that grows beyond the limit (ulimit -f) is a failing write with a
 * message, not a death. */
void gr_signals_init(void);

/* SIGUSR1 and SIGTERM become a request, at any number of them; a peer that closes its socket is a
 * failing write.  Before MPI_Init, which leaves both as they are, and before any thread. */
void gr_signals_catch_stop(void);
/* One of them came since gr_signals_catch_stop. */
bool gr_stop_requested(void);

#endif
