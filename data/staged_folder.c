/* Folders that appear whole.  See staged_folder.h. */
#include "data/staged_folder.h"

#include "data/staging.h"
#include "data/store/file_error.h"
#include "kernels/base/alloc.h"
#include "kernels/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct gr_staged_folder {
    struct gr_staging *staging; /* of a folder with the files */
    char *file;                 /* the file begun last */
    int fd;                     /* of it; -1: none */
};

gr_status gr_staged_folder_create(struct gr_staged_folder **folder, const char *path)
{
    gr_status status = GR_OK;
    struct gr_staged_folder *f = GR_NEW(struct gr_staged_folder);

    *folder = NULL;
    f->fd = -1;
    GR_TRY(gr_staging_create(&f->staging, path, true));
    if (mkdir(gr_staging_path(f->staging), 0777) != 0)
        GR_TRY(gr_file_error(gr_staging_path(f->staging), "made", errno));
    *folder = f;
    f = NULL;
out:
    gr_staged_folder_destroy(f);
    return status;
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
    f->file = gr_format("%s/%s", gr_staging_path(f->staging), name);
    f->fd = open(f->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return f->fd >= 0 ? GR_OK : gr_file_error(f->file, "made", errno);
}

gr_status gr_staged_folder_write(struct gr_staged_folder *f, const void *bytes, int64_t count)
{
    int error;

    GR_CHECK(f->fd >= 0, "no file was begun in %s", gr_staging_path(f->staging));
    error = gr_write_all(f->fd, bytes, count);
    return error == 0 ? GR_OK : gr_file_error(f->file, "written", error);
}

gr_status gr_staged_folder_commit(struct gr_staged_folder *f)
{
    gr_status status = GR_OK;
    const char *path = gr_staging_path(f->staging);
    int error;

    GR_TRY(end_file(f));
    error = gr_sync_folder(AT_FDCWD, path);
    if (error != 0)
        GR_TRY(gr_file_error(path, "synced", error));
    GR_TRY(gr_staging_commit(f->staging));
out:
    return status;
}

void gr_staged_folder_destroy(struct gr_staged_folder *f)
{
    if (f == NULL)
        return;
    if (f->fd >= 0)
        close(f->fd);
    gr_staging_destroy(f->staging);
    gr_free(f->file);
    gr_free(f);
}
