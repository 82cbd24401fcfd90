/* The little that everything which touches files shares: parts of paths, and calls of the system
 * that are to be made until they are done.  What an errno means is data/store/file_error.h. */
#ifndef GR_BASE_FILES_H
#define GR_BASE_FILES_H

#include <stdint.h>

/* What stands behind the last slash, in `path` itself. */
const char *gr_path_name(const char *path);
/* The folder that name is in: "a/b" of "a/b/c", "/" of "/c", "." of "c".  The caller frees it. */
char *gr_path_folder(const char *path);

/* All bytes, however often the system must be asked.  Returns an errno or 0. */
int gr_write_all(int fd, const void *bytes, int64_t count);
/* Makes the names in the folder durable; `path` begins at the open folder `at`, or is AT_FDCWD's.
 * Fine where the file system cannot sync folders.  Returns an errno or 0. */
int gr_sync_folder(int at, const char *path);

#endif
