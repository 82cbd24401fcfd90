/* Folders that appear whole.  See staged_folder.h. */
#include "data/staged_folder.h"

#include "data/store/file_error.h"
#include "kernels/base/alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct gr_staged_folder {
    char *path;    /* where it goes, without slashes at the end */
    char *partial; /* where it is written */
    char *file;    /* of the file begun last */
    int fd;        /* -1: none */
};

/* A folder of files, as gr_staged_folder_create makes them. */
static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;

    if (folder == NULL)
        return;
    while ((entry = readdir(folder)) != NULL)
        unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    rmdir(path);
}

static gr_status sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;

    if (fd >= 0)
        close(fd);
    return error == 0 || error == EINVAL ? GR_OK : gr_file_error(path, "synced", error);
}

static gr_status refuse_existing(const char *path)
{
    return gr_fail(GR_ERR_USAGE, path, "name another place, or remove what is there",
                   "exists already (found something, expected nothing)");
}

gr_status gr_staged_folder_create(struct gr_staged_folder **folder, const char *path)
{
    struct gr_staged_folder *f = GR_NEW(struct gr_staged_folder);
    size_t length = strlen(path);
    struct stat status;

    while (length > 1 && path[length - 1] == '/')
        length--;
    f->path = gr_strndup(path, length);
    f->partial = gr_format("%s.partial", f->path);
    f->fd = -1;
    *folder = f;
    if (lstat(f->path, &status) == 0)
        return refuse_existing(f->path);
    remove_folder(f->partial);
    if (mkdir(f->partial, 0777) != 0)
        return gr_file_error(f->partial, "made", errno);
    return GR_OK;
}

static gr_status end_file(struct gr_staged_folder *f)
{
    int error = 0;

    if (f->fd < 0)
        return GR_OK;
    if (fsync(f->fd) != 0)
        error = errno;
    if (close(f->fd) != 0 && error == 0)
        error = errno;
    f->fd = -1;
    return error == 0 ? GR_OK : gr_file_error(f->file, "written", error);
}

gr_status gr_staged_folder_begin(struct gr_staged_folder *f, const char *name)
{
    gr_status status = end_file(f);

    if (status != GR_OK)
        return status;
    gr_free(f->file);
    f->file = gr_format("%s/%s", f->partial, name);
    f->fd = open(f->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return f->fd >= 0 ? GR_OK : gr_file_error(f->file, "made", errno);
}

gr_status gr_staged_folder_write(struct gr_staged_folder *f, const void *bytes, int64_t count)
{
    const char *at = bytes;

    GR_CHECK(f->fd >= 0, "no file was begun in %s", f->partial);
    while (count > 0) {
        ssize_t written = write(f->fd, at, (size_t)count);

        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return gr_file_error(f->file, "written", errno);
        at += written;
        count -= written;
    }
    return GR_OK;
}

gr_status gr_staged_folder_commit(struct gr_staged_folder *f)
{
    gr_status status = GR_OK;
    char *above = gr_strdup(f->path);
    char *slash = strrchr(above, '/');

    if (slash != NULL)
        slash[slash == above ? 1 : 0] = '\0';
    GR_TRY(end_file(f));
    GR_TRY(sync_folder(f->partial));
    if (rename(f->partial, f->path) != 0) /* over an empty folder at most */
        GR_TRY(errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR
                   ? refuse_existing(f->path)
                   : gr_file_error(f->path, "made", errno));
    GR_TRY(sync_folder(slash == NULL ? "." : above));
out:
    gr_free(above);
    return status;
}

void gr_staged_folder_destroy(struct gr_staged_folder *f)
{
    if (f == NULL)
        return;
    if (f->fd >= 0)
        close(f->fd);
    remove_folder(f->partial); /* gone already when it was committed */
    gr_free(f->path);
    gr_free(f->partial);
    gr_free(f->file);
    gr_free(f);
}
