/* What an errno of the file store means: one table of status, words and hint. */
#ifndef GR_DATA_STORE_FILE_ERROR_H
#define GR_DATA_STORE_FILE_ERROR_H

#include "kernels/base/status.h"

/* Refuses with what went wrong when `path` was to be `verb` ("written", "read", ...).  Faults that
 * pass or that an administrator mends are ERR_RETRY; those of the chosen place are ERR_USAGE. */
gr_status gr_file_error(const char *path, const char *verb, int error);

/* The name of the file system behind an open file, as mount shows it ("nfs4", "fuse.s3fs");
 * "unknown" where the system does not tell.  `name` has `size` bytes. */
void gr_file_system_name(char *name, size_t size, int fd);

#endif
