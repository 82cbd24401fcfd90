/* The run directory that a command was given.  Called by the commands that look into runs. */
#ifndef GR_LAUNCH_RUN_FOLDER_H
#define GR_LAUNCH_RUN_FOLDER_H

#include "data/store/store.h"

/* Opens the output directory of a run; makes nothing.  Errors: ERR_NOT_FOUND (no such directory, or
 * no run in it). */
gr_status gr_run_folder_open(struct gr_store **store, const char *url);

#endif
