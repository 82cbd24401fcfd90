/* Objects as the files of a folder.  A key is the path below it.
 *
 * New bytes are written under a name that starts with ".tmp-" in the object's own folder and get
 * their key in one step: rename for put, link for put_if_absent.  Every folder on the way is synced
 * before a call returns OK, so an object that was promised survives a power cut.  Folders are made
 * when needed and removed with their last object.  See store.h for the contract. */
#include "data/store/store_file.h"

#include "data/store/file_error.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/failpoint.h"
#include "kernels/base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMP_PREFIX ".tmp-"

enum {
    TEMP_ATTEMPTS = 16, /* a folder may vanish, with its last object, before a file is in */
    TEMP_LIFETIME_S = 24 * 3600, /* older ones belong to nobody any more */
};

struct file_store {
    struct gr_store base; /* first: a gr_store is one */
    char *url;
    int root;                   /* the folder, open */
    atomic_bool is_root_synced; /* its name in the folder above is durable */
};

static struct file_store *as_file_store(struct gr_store *store)
{
    return (struct file_store *)store;
}

static gr_status fail_errno(const struct file_store *s, const char *key, const char *verb,
                            int error)
{
    char *path = gr_format("%s/%s", s->url, key);

    gr_status status = gr_file_error(path, verb, error);
    gr_free(path);
    return status;
}

/* Stands before every call that asks something of the disk, so that a test can have it refused. */
static bool refused(enum gr_failpoint point)
{
    if (!gr_failpoint_fails(point))
        return false;
    errno = EIO;
    return true;
}

static bool op_refused(void)
{
    return refused(GR_FAILPOINT_STORE_OP);
}

/* ---- keys ------------------------------------------------------------------------------- */

static bool is_temp(const char *name)
{
    return strncmp(name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0;
}

/* Parts between slashes: none empty, ".", ".." or like a temporary name. */
static gr_status check_key(const struct file_store *s, const char *key)
{
    const char *part = key;

    for (;;) {
        size_t length = strcspn(part, "/");

        if (length == 0 || (length == 1 && part[0] == '.') ||
            (length == 2 && part[0] == '.' && part[1] == '.') || is_temp(part))
            return gr_fail(GR_ERR_USAGE, s->url,
                           "keys are relative paths without empty parts, '.', '..' and '.tmp-'",
                           "bad key (found \"%s\")", key);
        if (part[length] == '\0')
            return GR_OK;
        part += length + 1;
    }
}

/* Cuts the last part of a path off; what is left of a single name is ".". */
static void cut_last_part(char *path)
{
    char *slash = strrchr(path, '/');

    if (slash == NULL)
        memcpy(path, ".", sizeof "."); /* no part is empty: there is room */
    else
        slash[slash == path ? 1 : 0] = '\0';
}

static bool is_root(const char *folder)
{
    return strcmp(folder, ".") == 0;
}

/* ---- folders ---------------------------------------------------------------------------- */

/* Returns an errno or 0. */
static int sync_folder(int at, const char *folder)
{
    return op_refused() ? errno : gr_sync_folder(at, folder);
}

/* A folder above the store may be one that can be entered but not opened. */
static int sync_folder_above(int at, const char *folder)
{
    int error = sync_folder(at, folder);

    return error == EACCES || error == EROFS ? 0 : error;
}

/* Makes the folders that `path` goes through, below the open folder `at`.  Returns an errno or 0.
 */
static int make_folders(int at, const char *path)
{
    char *made = gr_strdup(path);
    char *above = NULL;
    int error = 0;

    for (char *slash = strchr(made + 1, '/'); slash != NULL && error == 0;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (!op_refused() && mkdirat(at, made, 0777) == 0) {
            above = gr_path_folder(made);
            error = at == AT_FDCWD ? sync_folder_above(at, above) : sync_folder(at, above);
            gr_free(above);
        } else if (errno != EEXIST) {
            error = errno;
        }
        *slash = '/';
    }
    gr_free(made);
    return error;
}

/* Syncs the folder of `key` and those above it, the root's own name once: another process may have
 * made them just now, and died. */
static gr_status sync_folders(struct file_store *s, const char *key)
{
    char *folder = gr_path_folder(key);
    int error = sync_folder(s->root, folder);

    while (error == 0 && !is_root(folder)) {
        cut_last_part(folder);
        error = sync_folder(s->root, folder);
    }
    gr_free(folder);
    if (error == 0 && !atomic_load(&s->is_root_synced)) {
        error = sync_folder_above(s->root, "..");
        atomic_store(&s->is_root_synced, error == 0);
    }
    if (error == 0 && refused(GR_FAILPOINT_STORE_DURABLE))
        error = errno;
    return error == 0 ? GR_OK : fail_errno(s, key, "made durable", error);
}

/* ---- temporary files -------------------------------------------------------------------- */

static char *temp_name(const char *key)
{
    uint64_t random[2] = {0};
    ssize_t count = getrandom(random, sizeof random, 0);

    GR_CHECK(count == (ssize_t)sizeof random, "%zd", count);
    return gr_format("%.*s" TEMP_PREFIX "%016" PRIx64 "%016" PRIx64, (int)(gr_path_name(key) - key),
                     key, random[0], random[1]);
}

/* Opens a new file, making its folders.  Returns an errno or 0. */
static int open_temp(const struct file_store *s, const char *temp, int *fd)
{
    for (int attempt = 0; attempt < TEMP_ATTEMPTS; attempt++) {
        int error;

        *fd = op_refused() ? -1
                           : openat(s->root, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (*fd >= 0)
            return 0;
        if (errno != ENOENT)
            return errno;
        error = make_folders(s->root, temp);
        if (error != 0 && error != ENOENT)
            return error;
    }
    return ENOENT;
}

/* Returns an errno or 0. */
static int write_synced(int fd, const void *bytes, int64_t count)
{
    int error = op_refused() ? errno : gr_write_all(fd, bytes, count);

    if (error != 0)
        return error;
    if (refused(GR_FAILPOINT_STORE_WRITTEN) || op_refused() || fsync(fd) != 0)
        return errno;
    return refused(GR_FAILPOINT_STORE_SYNCED) ? errno : 0;
}

/* What cannot be removed now is removed when it is stale. */
static void remove_temp(const struct file_store *s, const char *temp)
{
    if (!op_refused())
        unlinkat(s->root, temp, 0);
}

/* The bytes, durable, under a temporary name beside `key`; the caller frees the name. */
static gr_status write_temp(const struct file_store *s, char **temp, const char *key,
                            const void *bytes, int64_t count)
{
    int fd = -1;
    int error = 0;

    *temp = temp_name(key);
    error = open_temp(s, *temp, &fd);
    if (error == 0)
        error = write_synced(fd, bytes, count);
    if (fd >= 0 && close(fd) != 0 && error == 0 && errno != EINTR)
        error = errno; /* network file systems may tell only now */
    if (error == 0)
        return GR_OK;
    if (fd >= 0)
        remove_temp(s, *temp);
    gr_free(*temp);
    *temp = NULL;
    return fail_errno(s, key, "written", error);
}

/* A temporary file that its writer, killed, left behind long ago; with it the folder, if nothing
 * else is there. */
static void remove_if_stale(int folder, const char *path, const char *temp, const struct stat *info)
{
    const char *slash = strrchr(path, '/');
    const char *name = path;

    if (!S_ISREG(info->st_mode) || gr_clock_unix_s() - (double)info->st_mtime <= TEMP_LIFETIME_S)
        return;
    unlinkat(folder, temp, 0);
    if (slash == NULL)
        return; /* the root stays */
    while (memchr(name, '/', (size_t)(slash - name)) != NULL)
        name = strchr(name, '/') + 1;
    char *self = gr_format("../%.*s", (int)(slash - name), name);

    unlinkat(folder, self, AT_REMOVEDIR);
    gr_free(self);
}

/* ---- operations ------------------------------------------------------------------------- */

/* Returns an errno or 0; what is no file is not there (ENOENT). */
static int read_object(const struct file_store *s, struct gr_buffer *bytes, const char *key,
                       int64_t offset, int64_t count)
{
    struct stat info = {0};
    int fd = op_refused() ? -1 : openat(s->root, key, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 || op_refused() || fstat(fd, &info) != 0 ? errno : 0;

    gr_buffer_clear(bytes);
    if (error == ENOTDIR || (error == 0 && !S_ISREG(info.st_mode)))
        error = ENOENT;
    if (count < 0 || count > info.st_size - offset)
        count = info.st_size > offset ? info.st_size - offset : 0;
    gr_buffer_reserve(bytes, (size_t)count);
    while (error == 0 && (int64_t)bytes->length < count) {
        ssize_t got = op_refused()
                          ? -1
                          : pread(fd, bytes->data + bytes->length, (size_t)count - bytes->length,
                                  offset + (int64_t)bytes->length);

        if (got == 0) /* cut short meanwhile */
            break;
        if (got > 0)
            bytes->length += (size_t)got;
        else if (errno != EINTR)
            error = errno;
    }
    bytes->data[bytes->length] = '\0';
    if (fd >= 0)
        close(fd);
    return error;
}

static gr_status file_get(struct gr_store *store, struct gr_buffer *bytes, const char *key,
                          int64_t offset, int64_t count)
{
    struct file_store *s = as_file_store(store);
    gr_status status = GR_OK;
    int error = 0;

    GR_CHECK(offset >= 0, "%" PRId64, offset);
    GR_TRY(check_key(s, key));
    error = read_object(s, bytes, key, offset, count);
    if (error == ENOENT)
        status = gr_fail(GR_ERR_NOT_FOUND, s->url, NULL, "there is no %s here", key);
    else if (error != 0)
        status = fail_errno(s, key, "read", error);
out:
    return status;
}

static gr_status file_put(struct gr_store *store, const char *key, const void *bytes, int64_t count)
{
    struct file_store *s = as_file_store(store);
    gr_status status = GR_OK;
    char *temp = NULL;

    GR_TRY(check_key(s, key));
    GR_TRY(write_temp(s, &temp, key, bytes, count));
    if (op_refused() || renameat(s->root, temp, s->root, key) != 0) {
        status = fail_errno(s, key, "written", errno);
        remove_temp(s, temp);
        goto out;
    }
    if (refused(GR_FAILPOINT_STORE_NAMED))
        GR_TRY(fail_errno(s, key, "made durable", errno));
    GR_TRY(sync_folders(s, key));
out:
    gr_free(temp);
    return status;
}

/* Gives the temporary file its key unless that is taken, and removes the temporary name.  Returns
 * an errno or 0; EOPNOTSUPP when the file system can do it in no way. */
static int place_new(const struct file_store *s, const char *temp, const char *key)
{
    int error = op_refused() || linkat(s->root, temp, s->root, key, 0) != 0 ? errno : 0;

    if (error == EPERM || error == EOPNOTSUPP || error == ENOSYS || error == EMLINK) {
        error = renameat2(s->root, temp, s->root, key, RENAME_NOREPLACE) == 0 ? 0 : errno;
        if (error == 0)
            return 0;
        if (error == EINVAL || error == ENOSYS)
            error = EOPNOTSUPP;
    }
    remove_temp(s, temp);
    return error;
}

/* Whether `key` holds exactly these bytes. */
static bool holds(const struct file_store *s, const char *key, const void *bytes, int64_t count)
{
    struct gr_buffer there = {0};
    bool same = read_object(s, &there, key, 0, -1) == 0 && (int64_t)there.length == count &&
                (count == 0 || memcmp(there.data, bytes, (size_t)count) == 0);

    gr_buffer_release(&there);
    return same;
}

static gr_status file_put_if_absent(struct gr_store *store, const char *key, const void *bytes,
                                    int64_t count)
{
    struct file_store *s = as_file_store(store);
    gr_status status = GR_OK;
    char *temp = NULL;
    char *path = gr_format("%s/%s", s->url, key);
    char system[64];
    int error = 0;

    GR_TRY(check_key(s, key));
    GR_TRY(write_temp(s, &temp, key, bytes, count));
    error = place_new(s, temp, key);
    if (error == 0 && refused(GR_FAILPOINT_STORE_NAMED))
        error = errno;
    /* A network file system may lose the answer and refuse the second try: look whose it is. */
    if (error == 0 || holds(s, key, bytes, count)) {
        status = sync_folders(s, key);
    } else if (error == EEXIST) {
        status = gr_fail(GR_ERR_EXISTS, path, NULL, "there is an object of this name already");
    } else if (error == EOPNOTSUPP) {
        gr_file_system_name(system, sizeof system, s->root);
        status = gr_fail(GR_ERR_USAGE, path, "choose a place on another file system",
                         "the file system can neither link nor rename without replacing (found "
                         "%s, expected one like ext4, xfs, nfs)",
                         system);
    } else {
        status = fail_errno(s, key, "written", error);
    }
out:
    gr_free(temp);
    gr_free(path);
    return status;
}

static gr_status file_remove(struct gr_store *store, const char *key)
{
    struct file_store *s = as_file_store(store);
    gr_status status = GR_OK;
    char *folder = NULL;
    int error = 0;

    GR_TRY(check_key(s, key));
    if (op_refused() || unlinkat(s->root, key, 0) != 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            status = fail_errno(s, key, "removed", errno);
        goto out;
    }
    /* Folders left empty go too; the first that stays is synced. */
    folder = gr_path_folder(key);
    while (!is_root(folder) && !op_refused() && unlinkat(s->root, folder, AT_REMOVEDIR) == 0)
        cut_last_part(folder);
    error = sync_folder(s->root, folder);
    if (error != 0 && error != ENOENT)
        status = fail_errno(s, key, "removed for good", error);
out:
    gr_free(folder);
    return status;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int list_folder(struct gr_store_list *list, int at, const char *name, const char *path,
                       const char *prefix);

static void add_entry(struct gr_store_list *list, const char *key, int64_t bytes)
{
    list->entry = gr_realloc(list->entry, list->count + 1, sizeof *list->entry);
    list->entry[list->count++] = (struct gr_store_entry){.key = gr_strdup(key), .bytes = bytes};
}

/* *info <- what the link leads to; it stays the link's own if that is nothing of ours.  Returns an
 * errno or 0. */
static int follow_link(int folder, const char *name, struct stat *info)
{
    struct stat target;
    int error = op_refused() || fstatat(folder, name, &target, 0) != 0 ? errno : 0;

    if (error == 0)
        *info = target;
    return error == ENOENT || error == ENOTDIR || error == ELOOP || error == EACCES ? 0 : error;
}

/* One name of the open folder `folder`, whose keys start with `path`: an object, a folder to walk,
 * or nothing of ours.  Links to files are followed, links to folders are not. */
static int list_name(struct gr_store_list *list, int folder, const char *name, const char *path,
                     const char *prefix)
{
    struct stat info;
    char *key = gr_format("%s%s", path, name);
    char *below = gr_format("%s/", key);
    int error = 0;

    if (op_refused() || fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        error = errno == ENOENT ? 0 : errno; /* gone meanwhile */
    } else if (is_temp(name)) {
        remove_if_stale(folder, path, name, &info);
    } else if (S_ISDIR(info.st_mode)) {
        if (starts_with(below, prefix) || starts_with(prefix, below))
            error = list_folder(list, folder, name, below, prefix);
    } else if (starts_with(key, prefix)) {
        if (S_ISLNK(info.st_mode))
            error = follow_link(folder, name, &info);
        if (error == 0 && S_ISREG(info.st_mode))
            add_entry(list, key, info.st_size);
    }
    gr_free(below);
    gr_free(key);
    return error;
}

/* Adds the objects of folder `name` in the open folder `at`.  Returns an errno or 0. */
static int list_folder(struct gr_store_list *list, int at, const char *name, const char *path,
                       const char *prefix)
{
    int fd = op_refused() ? -1 : openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry = NULL;
    int error = 0;

    if (folder == NULL) {
        error = errno == ENOENT ? 0 : errno; /* gone meanwhile */
        if (fd >= 0)
            close(fd);
        return error;
    }
    while (error == 0) {
        errno = 0;
        entry = op_refused() ? NULL : readdir(folder);
        if (entry == NULL) {
            error = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            error = list_name(list, fd, entry->d_name, path, prefix);
    }
    closedir(folder);
    return error;
}

static int by_key(const void *a, const void *b)
{
    const struct gr_store_entry *x = a, *y = b;

    return strcmp(x->key, y->key);
}

static gr_status file_list(struct gr_store *store, struct gr_store_list *list, const char *prefix)
{
    struct file_store *s = as_file_store(store);
    int error = 0;

    memset(list, 0, sizeof *list);
    error = list_folder(list, s->root, ".", "", prefix);
    if (error != 0) {
        gr_store_list_release(list);
        return fail_errno(s, prefix, "listed", error);
    }
    if (list->count > 0)
        qsort(list->entry, (size_t)list->count, sizeof *list->entry, by_key);
    return GR_OK;
}

static void file_destroy(struct gr_store *store)
{
    struct file_store *s = as_file_store(store);

    close(s->root);
    gr_free(s->url);
    gr_free(s);
}

static const struct gr_store_ops file_ops = {
    .list = file_list,
    .get = file_get,
    .put = file_put,
    .put_if_absent = file_put_if_absent,
    .remove = file_remove,
    .destroy = file_destroy,
};

gr_status gr_store_file_open(struct gr_store **store, const char *url, const char *path)
{
    struct file_store *s = NULL;
    char *folder = gr_format("%s/", path);
    int root = op_refused() ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = root < 0 ? errno : 0;

    if (error == ENOENT) {
        error = make_folders(AT_FDCWD, folder);
        if (error == 0)
            root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (error == 0 && root < 0)
            error = errno;
    }
    gr_free(folder);
    if (error != 0)
        return gr_file_error(url, "opened", error);
    s = GR_NEW(struct file_store);
    s->url = gr_strdup(url);
    s->base = (struct gr_store){.ops = &file_ops, .url = s->url};
    s->root = root;
    *store = &s->base;
    return GR_OK;
}
