/* The ranks that mpirun started, or this process alone.  For the tests under mpirun. */
#ifndef GR_TESTS_RANKS_H
#define GR_TESTS_RANKS_H

#include "trainer/run/comm.h"

/* The communicator that all cases of a process share, since MPI can be joined once.  It is
 * destroyed when the process exits, after what callers register with atexit later. */
struct gr_comm *ranks_join(void);

#endif
