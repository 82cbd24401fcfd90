/* The file store and a power cut: which of its work the disk may forget.  The link wraps the system
 * calls that matter, a model notes what was written, named and synced, and says after each
 * operation what a power cut now would undo.  Nothing that said OK may be among it, and no name may
 * appear before its bytes are safe. */
#include "data/store/store.h"

#include "tests/files.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the model --------------------------------------------------------------------------- */

enum { MOST = 256, NO_ERROR = 0 };

/* A folder or a file with something in it that no sync has reached yet. */
struct unsafe {
    ino_t inode;
    char what[128];
};
static struct unsafe unsafe[MOST];
static int unsafe_count;
static char early[128]; /* a name given to bytes that were not safe */
static int syncs;
static int link_error; /* what linkat shall say */

static void note(ino_t inode, const char *verb, const char *name)
{
    ASSERT(unsafe_count < MOST);
    unsafe[unsafe_count].inode = inode;
    snprintf(unsafe[unsafe_count].what, sizeof unsafe->what, "%s %s", verb, name);
    unsafe_count++;
}

static bool is_unsafe(ino_t inode)
{
    for (int i = 0; i < unsafe_count; i++) {
        if (unsafe[i].inode == inode)
            return true;
    }
    return false;
}

static void forget(ino_t inode)
{
    int kept = 0;

    for (int i = 0; i < unsafe_count; i++) {
        if (unsafe[i].inode != inode)
            unsafe[kept++] = unsafe[i];
    }
    unsafe_count = kept;
}

static ino_t inode_at(int at, const char *path)
{
    struct stat info = {0};

    return fstatat(at, path, &info, AT_SYMLINK_NOFOLLOW) == 0 ? info.st_ino : 0;
}

/* The folder that holds the name. */
static ino_t folder_inode(int at, const char *path)
{
    char folder[256];
    char *slash = NULL;

    snprintf(folder, sizeof folder, "%s", path);
    slash = strrchr(folder, '/');
    if (slash == NULL)
        return inode_at(at, ".");
    *slash = '\0';
    return inode_at(at, folder);
}

static void name_appears(int at, const char *path, ino_t file)
{
    if (is_unsafe(file) && early[0] == '\0')
        snprintf(early, sizeof early, "%s", path);
    note(folder_inode(at, path), "named", path);
}

/* A folder that goes takes its unsynced changes with it. */
static void name_goes(int at, const char *path, ino_t file, bool is_folder)
{
    if (strstr(path, ".tmp-") != NULL)
        return; /* who comes back finds it and removes it */
    if (is_folder)
        forget(file);
    note(folder_inode(at, path), "removed", path);
}

/* ---- the wrapped calls ------------------------------------------------------------------- */

/* The linker gives the store ours for NAME, and us the real one as __real_NAME. */
#define WRAP(type, name, ...)                                                                      \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

WRAP(ssize_t, write, int fd, const void *bytes, size_t count)
{
    struct stat info = {0};

    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
        note(info.st_ino, "wrote", "bytes");
    return __real_write(fd, bytes, count);
}

WRAP(int, fsync, int fd)
{
    struct stat info = {0};
    int result = __real_fsync(fd);

    ASSERT(fstat(fd, &info) == 0);
    syncs++;
    if (result == 0)
        forget(info.st_ino);
    return result;
}

WRAP(int, linkat, int from, const char *old, int to, const char *new, int flags)
{
    int result = -1;

    errno = link_error;
    if (link_error == NO_ERROR)
        result = __real_linkat(from, old, to, new, flags);
    if (result == 0)
        name_appears(to, new, inode_at(to, new));
    return result;
}

WRAP(int, renameat, int from, const char *old, int to, const char *new)
{
    int result = __real_renameat(from, old, to, new);

    if (result == 0)
        name_appears(to, new, inode_at(to, new));
    return result;
}

WRAP(int, renameat2, int from, const char *old, int to, const char *new, unsigned int flags)
{
    int result = __real_renameat2(from, old, to, new, flags);

    if (result == 0)
        name_appears(to, new, inode_at(to, new));
    return result;
}

WRAP(int, mkdirat, int at, const char *path, mode_t mode)
{
    int result = __real_mkdirat(at, path, mode);

    if (result == 0)
        name_appears(at, path, inode_at(at, path));
    return result;
}

WRAP(int, unlinkat, int at, const char *path, int flags)
{
    ino_t inode = inode_at(at, path);
    int result = __real_unlinkat(at, path, flags);

    if (result == 0)
        name_goes(at, path, inode, (flags & AT_REMOVEDIR) != 0);
    return result;
}

/* ---- cases ------------------------------------------------------------------------------- */

static void assert_safe(void)
{
    ASSERT_MSG(early[0] == '\0', "%s was named before its bytes were safe", early);
    ASSERT_MSG(unsafe_count == 0, "a power cut now may undo: %s (and %d more)", unsafe[0].what,
               unsafe_count - 1);
}

static struct gr_store *open_here(void)
{
    struct gr_store *store = NULL;

    gr_test_enter_folder();
    ASSERT_OK(gr_store_open(&store, "."));
    return store;
}

TEST(store_put_survives_a_power_cut)
{
    struct gr_store *store = open_here();

    ASSERT_OK(store->ops->put(store, "name", "one", 3));
    assert_safe();
    ASSERT_OK(store->ops->put(store, "name", "two", 3));
    assert_safe();
    ASSERT_OK(store->ops->put(store, "a/b/name", "one", 3));
    assert_safe();
    ASSERT(syncs > 0);
    gr_store_close(store);
}

TEST(store_put_if_absent_survives_a_power_cut)
{
    struct gr_store *store = open_here();

    ASSERT_OK(store->ops->put_if_absent(store, "a/b/name", "one", 3));
    assert_safe();
    /* The answer to the first may have been lost before its folder was synced. */
    note(inode_at(AT_FDCWD, "."), "named", "a");
    ASSERT_OK(store->ops->put_if_absent(store, "a/b/name", "one", 3));
    assert_safe();
    gr_store_close(store);
}

TEST(store_put_if_absent_without_links_survives_a_power_cut)
{
    struct gr_store *store = open_here();

    link_error = EPERM;
    ASSERT_OK(store->ops->put_if_absent(store, "a/name", "one", 3));
    assert_safe();
    ASSERT_INT(store->ops->put_if_absent(store, "a/name", "two", 3), GR_ERR_EXISTS);
    gr_store_close(store);
}

TEST(store_put_into_folders_of_others_syncs_them)
{
    struct gr_store *store = open_here();

    ASSERT(mkdirat(AT_FDCWD, "a", 0777) == 0 && mkdirat(AT_FDCWD, "a/b", 0777) == 0);
    ASSERT_INT(unsafe_count, 2);
    ASSERT_OK(store->ops->put_if_absent(store, "a/b/name", "one", 3));
    assert_safe();
    gr_store_close(store);
}

TEST(store_remove_survives_a_power_cut)
{
    struct gr_store *store = open_here();

    ASSERT_OK(store->ops->put(store, "a/b/one", "1", 1));
    ASSERT_OK(store->ops->put(store, "a/b/two", "2", 1));
    ASSERT_OK(store->ops->remove(store, "a/b/one"));
    assert_safe();
    ASSERT_OK(store->ops->remove(store, "a/b/two"));
    assert_safe();
    gr_store_close(store);
}
