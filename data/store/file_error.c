/* The file store's errors, and the name of a file system.  See file_error.h. */
#include "data/store/file_error.h"

#include "kernels/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define THEN_AGAIN ", then start the same command again"

static const struct file_error {
    int error;
    gr_status status;
    const char *words;
    const char *hint;
} file_errors[] = {
    {ENOSPC, GR_ERR_RETRY, "no space left", "free some space there" THEN_AGAIN},
    {EDQUOT, GR_ERR_RETRY, "no space left in the quota", "free some space there" THEN_AGAIN},
    {EFBIG, GR_ERR_RETRY, "no space left below the limit on file sizes",
     "raise the limit (ulimit -f)" THEN_AGAIN},
    {EIO, GR_ERR_RETRY, "input/output error", "check the disk" THEN_AGAIN},
    {ESTALE, GR_ERR_RETRY, "the network file system lost the file", "check the mount" THEN_AGAIN},
    {ETIMEDOUT, GR_ERR_RETRY, "the network file system does not answer",
     "check the mount" THEN_AGAIN},
    {EMFILE, GR_ERR_RETRY, "too many open files in this process",
     "raise the limit (ulimit -n)" THEN_AGAIN},
    {ENFILE, GR_ERR_RETRY, "too many open files on this host",
     "raise the limit (fs.file-max)" THEN_AGAIN},
    {EROFS, GR_ERR_USAGE, "the file system is read-only", "choose a place that can be written to"},
    {EACCES, GR_ERR_USAGE, "permission denied", "choose another place or change its permissions"},
    {EPERM, GR_ERR_USAGE, "operation not permitted",
     "choose another place or change its attributes"},
    {ENOTDIR, GR_ERR_USAGE, "the path leads through a file (found a file, expected a folder)",
     "choose another place"},
    {EISDIR, GR_ERR_USAGE, "a folder has this name", "remove it or choose another place"},
    {ENOENT, GR_ERR_USAGE, "the folder is gone or takes no new files", "choose another place"},
    {EEXIST, GR_ERR_USAGE, "something else has this name (found something, expected nothing)",
     "remove it or choose another place"},
    {ENOTEMPTY, GR_ERR_USAGE, "a folder with files has this name (found a folder, expected none)",
     "remove it or choose another place"},
    {ENAMETOOLONG, GR_ERR_USAGE, "the name is too long", "choose a shorter path"},
    {ELOOP, GR_ERR_USAGE, "the symbolic links of the path form a loop", "choose another place"},
};

gr_status gr_file_error(const char *path, const char *verb, int error)
{
    const struct file_error unknown = {error, GR_ERR_RETRY, strerror(error),
                                       "choose another place, or start the same command again"};
    const struct file_error *e = &unknown;

    for (int64_t i = 0; i < GR_COUNT(file_errors); i++) {
        if (file_errors[i].error == error)
            e = &file_errors[i];
    }
    return gr_fail(e->status, path, e->hint, "cannot be %s: %s", verb, e->words);
}

void gr_file_system_name(char *name, size_t size, int fd)
{
    struct statx info;
    char line[4096];
    FILE *mounts = NULL;

    snprintf(name, size, "unknown");
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &info) != 0 ||
        (info.stx_mask & STATX_MNT_ID) == 0)
        return;
    mounts = fopen("/proc/self/mountinfo", "re");
    while (mounts != NULL && fgets(line, sizeof line, mounts) != NULL) {
        unsigned long long id = 0;
        const char *type = strstr(line, " - "); /* "id parent major:minor ... - type source ..." */

        if (type == NULL || sscanf(line, "%llu", &id) != 1 || id != info.stx_mnt_id)
            continue;
        type += strlen(" - ");
        snprintf(name, size, "%.*s", (int)strcspn(type, " \n"), type);
    }
    if (mounts != NULL)
        fclose(mounts);
}
