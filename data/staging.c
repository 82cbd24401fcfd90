/* Places for results in the making.  See staging.h.
 *
 * A folder is taken for one that graft made, and its maker for dead, when its name has our form,
 * LOCK_FILE is in it, and the lock of that file can be taken.  The file gets its name only once it
 * is locked, and loses it last.  Links are never followed. */
#include "data/staging.h"

#include "data/store/file_error.h"
#include "data/store/store.h"
#include "kernels/base/alloc.h"
#include "kernels/base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define INFIX     ".partial."
#define RANDOM    "XXXXXX" /* mkdtemp's */
#define LOCK_FILE ".graft-partial"
#define RESULT    "new"

struct gr_staging {
    char *path;   /* where the result goes */
    char *above;  /* the folder of that */
    char *folder; /* PATH.partial.XXXXXX */
    char *result; /* PATH.partial.XXXXXX/new */
    int lock;     /* LOCK_FILE, locked; -1: not made */
    bool is_new;
};

static int open_folder(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* ---- removing --------------------------------------------------------------------------- */

/* The files of a folder; folders in it stay. */
static void remove_files(int at, const char *name)
{
    int fd = open_folder(at, name);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (folder == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((entry = readdir(folder)) != NULL)
        unlinkat(fd, entry->d_name, 0);
    closedir(folder);
}

/* `place`: the staging folder `name` of the folder `at`, open. */
static void remove_place(int at, const char *name, int place)
{
    if (unlinkat(place, RESULT, 0) != 0 && errno == EISDIR) {
        remove_files(place, RESULT);
        unlinkat(place, RESULT, AT_REMOVEDIR);
    }
    if (faccessat(place, RESULT, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return; /* it keeps its mark, for the next sweep */
    unlinkat(place, LOCK_FILE, 0);
    unlinkat(at, name, AT_REMOVEDIR);
}

/* ---- sweeping --------------------------------------------------------------------------- */

/* BASE.partial.XXXXXX with any six letters or digits. */
static bool is_place_of(const char *name, const char *base)
{
    size_t length = strlen(base), infix = strlen(INFIX), random = strlen(RANDOM);
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

    return strlen(name) == length + infix + random && strncmp(name, base, length) == 0 &&
           strncmp(name + length, INFIX, infix) == 0 &&
           strspn(name + length + infix, letters) == random;
}

/* Removes the place unless somebody is at work in it, or it is none. */
static void sweep_place(int at, const char *name)
{
    int place = open_folder(at, name);
    int lock =
        place < 0 ? -1 : openat(place, LOCK_FILE, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0)
        remove_place(at, name, place);
    if (lock >= 0)
        close(lock);
    if (place >= 0)
        close(place);
}

static void sweep(const struct gr_staging *s)
{
    DIR *folder = opendir(s->above);
    struct dirent *entry;

    if (folder == NULL)
        return;
    while ((entry = readdir(folder)) != NULL) {
        if (is_place_of(entry->d_name, gr_path_name(s->path)))
            sweep_place(dirfd(folder), entry->d_name);
    }
    closedir(folder);
}

/* ---- making ----------------------------------------------------------------------------- */

static gr_status refuse_existing(const char *path, const char *words)
{
    return gr_fail(GR_ERR_USAGE, path, "name another place, or remove what is there",
                   "%s (found something, expected nothing)", words);
}

/* The folders that `path` goes through, as a store makes them. */
static gr_status make_above(const struct gr_staging *s)
{
    struct gr_store *store = NULL;
    gr_status status = gr_store_open(&store, s->above);

    gr_store_close(store);
    return status;
}

/* Without locks, on a file system that has none, nobody takes the place for a dead one's either. */
static gr_status make_lock(struct gr_staging *s)
{
    gr_status status = GR_OK;
    char *made = gr_format("%s/" LOCK_FILE ".new", s->folder);
    char *name = gr_format("%s/" LOCK_FILE, s->folder);

    s->lock = open(made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (s->lock >= 0)
        flock(s->lock, LOCK_EX | LOCK_NB);
    if (s->lock < 0 || rename(made, name) != 0) {
        status = gr_file_error(s->path, "made", errno);
        unlink(made);
        rmdir(s->folder);
    }
    gr_free(made);
    gr_free(name);
    return status;
}

static gr_status make_place(struct gr_staging *s)
{
    char *folder = gr_format("%s" INFIX RANDOM, s->path);
    gr_status status = GR_OK;

    if (mkdtemp(folder) == NULL)
        GR_TRY(gr_file_error(s->path, "made", errno));
    s->folder = folder;
    folder = NULL;
    s->result = gr_format("%s/" RESULT, s->folder);
    GR_TRY(make_lock(s));
out:
    gr_free(folder);
    return status;
}

gr_status gr_staging_create(struct gr_staging **staging, const char *path, bool is_new)
{
    gr_status status = GR_OK;
    struct gr_staging *s = GR_NEW(struct gr_staging);
    size_t length = strlen(path);
    struct stat info;

    *staging = NULL;
    while (length > 1 && path[length - 1] == '/')
        length--;
    s->path = gr_strndup(path, length);
    s->lock = -1;
    s->is_new = is_new;
    s->above = gr_path_folder(s->path);
    sweep(s);
    if (is_new && lstat(s->path, &info) == 0)
        GR_TRY(refuse_existing(s->path, "exists already"));
    GR_TRY(make_above(s));
    GR_TRY(make_place(s));
    *staging = s;
    s = NULL;
out:
    gr_staging_destroy(s);
    return status;
}

const char *gr_staging_path(const struct gr_staging *s)
{
    return s->result;
}

/* ---- the end ---------------------------------------------------------------------------- */

/* Returns an errno or 0.  Where the file system cannot rename without replacing, an empty folder
 * claims the name, which only one can make, and is then replaced. */
static int rename_new(const char *from, const char *to)
{
    int error = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0 ? 0 : errno;

    if (error != EINVAL && error != ENOSYS && error != EOPNOTSUPP)
        return error;
    if (mkdir(to, 0777) != 0)
        return errno;
    if (rename(from, to) == 0)
        return 0;
    error = errno;
    rmdir(to);
    return error;
}

gr_status gr_staging_commit(struct gr_staging *s)
{
    int error = 0;

    if (s->is_new)
        error = rename_new(s->result, s->path);
    else if (rename(s->result, s->path) != 0)
        error = errno;
    if (error == 0) {
        error = gr_sync_folder(AT_FDCWD, s->above);
        return error == 0 ? GR_OK : gr_file_error(s->above, "synced", error);
    }
    return s->is_new && (error == EEXIST || error == ENOTEMPTY)
               ? refuse_existing(s->path, "was made by somebody else meanwhile")
               : gr_file_error(s->path, "made", error);
}

void gr_staging_destroy(struct gr_staging *s)
{
    int place;

    if (s == NULL)
        return;
    place = s->folder == NULL ? -1 : open_folder(AT_FDCWD, s->folder);
    if (place >= 0) {
        remove_place(AT_FDCWD, s->folder, place);
        close(place);
    }
    if (s->lock >= 0)
        close(s->lock);
    gr_free(s->path);
    gr_free(s->above);
    gr_free(s->folder);
    gr_free(s->result);
    gr_free(s);
}
