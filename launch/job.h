/* Joining and leaving the job that mpirun started, for commands that run on several ranks: who
 * speaks in between, and how the job ends when a rank was lost. */
#ifndef GR_LAUNCH_JOB_H
#define GR_LAUNCH_JOB_H

#include "trainer/run/comm.h"

/* gr_comm_create, with its errors; from here on the I/O rank is the one that prints. */
gr_status gr_job_join(struct gr_comm **comm, double timeout_seconds);
/* gr_comm_destroy, with the status the command is going to return.  Does not return when a rank was
 * lost: prints the message, if there is one left, and ends the whole job.  NULL is fine. */
void gr_job_leave(struct gr_comm *comm, gr_status status);

#endif
