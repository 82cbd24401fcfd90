/* The store that is a folder.  Called by store.c only. */
#ifndef GR_DATA_STORE_STORE_FILE_H
#define GR_DATA_STORE_STORE_FILE_H

#include "data/store/store.h"

/* Opens the folder `path`, made if it is missing; `url` is copied, for messages.  Errors: those of
 * gr_file_error. */
gr_status gr_store_file_open(struct gr_store **store, const char *url, const char *path);

#endif
