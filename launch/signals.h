/* Signals of the program.  What a stop request leads to is the loop's business, not ours. */
#ifndef GR_LAUNCH_SIGNALS_H
#define GR_LAUNCH_SIGNALS_H

#include <stdbool.h>

/* First thing in main: a file that grows beyond the limit (ulimit -f) is a failing write with a
 * message, not a death. */
void gr_signals_init(void);

/* SIGUSR1 and SIGTERM wait until gr_stop_requested asks for them, at any number of them; a peer
 * that closes its socket is a failing write.  Before MPI_Init and before any thread, which inherit
 * the mask.
 *
 * They are blocked instead of caught: no code of ours runs in the middle of a library's. */
void gr_signals_hold_stop(void);
/* One of them came since gr_signals_hold_stop.  Called by one thread. */
bool gr_stop_requested(void);
/* From now on SIGTERM ends the process, also one that came before. */
void gr_signals_release_stop(void);

#endif
