/* Paths, whole writes, synced folders.  See files.h. */
#include "kernels/base/files.h"

#include "kernels/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

const char *gr_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

char *gr_path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return gr_strdup(".");
    return gr_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int gr_write_all(int fd, const void *bytes, int64_t count)
{
    const char *next = bytes;

    while (count > 0) {
        ssize_t written = write(fd, next, (size_t)count);

        if (written < 0 && errno != EINTR)
            return errno;
        if (written > 0) {
            next += written;
            count -= written;
        }
    }
    return 0;
}

int gr_sync_folder(int at, const char *path)
{
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;

    if (fd >= 0)
        close(fd);
    return error == EINVAL ? 0 : error;
}
