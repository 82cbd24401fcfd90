/* Where people see what graft prints.  Called by cmd_train.c. */
#ifndef GR_LAUNCH_TERMINAL_H
#define GR_LAUNCH_TERMINAL_H

/* The terminal on which stderr is seen, to be asked for its size: stderr itself, or that of the
 * mpirun which started this process and passes its stderr on unchanged.  -1: there is none.  The
 * descriptor stays open until the process ends. */
int gr_terminal_of_stderr(void);

#endif
