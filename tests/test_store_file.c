/* The file store: its contract, two writers at once, death in the middle, and every way the disk
 * can refuse.  Faults are real ones: system calls the kernel refuses (seccomp), a full or read-only
 * tmpfs, a limit on file sizes, another user. */
#include "data/store/store.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- helpers ---------------------------------------------------------------------------- */

static gr_status put_text(struct gr_store *store, const char *key, const char *text)
{
    return store->ops->put(store, key, text, (int64_t)strlen(text));
}

static gr_status put_text_if_absent(struct gr_store *store, const char *key, const char *text)
{
    return store->ops->put_if_absent(store, key, text, (int64_t)strlen(text));
}

static void assert_object(struct gr_store *store, const char *key, const char *text)
{
    struct gr_buffer bytes = {0};

    ASSERT_OK(store->ops->get(store, &bytes, key, 0, -1));
    ASSERT_TEXT(bytes.data, text);
    gr_buffer_release(&bytes);
}

/* The keys under a prefix, each followed by a space. */
static void assert_keys(struct gr_store *store, const char *prefix, const char *expected)
{
    struct gr_store_list list;
    struct gr_buffer keys = {0};

    ASSERT_OK(store->ops->list(store, &list, prefix));
    gr_buffer_add_text(&keys, "");
    for (int64_t i = 0; i < list.count; i++)
        gr_buffer_add_format(&keys, "%s ", list.entry[i].key);
    ASSERT_TEXT(keys.data, expected);
    gr_store_list_release(&list);
    gr_buffer_release(&keys);
}

static int temp_files(const char *path)
{
    DIR *folder = opendir(path);
    int count = 0;

    ASSERT(folder != NULL);
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder))
        count += strncmp(e->d_name, ".tmp-", 5) == 0;
    closedir(folder);
    return count;
}

static void unmount_small(void)
{
    umount2("small", MNT_DETACH);
}

/* Whoever runs the test is root in a user namespace of its own. */
static bool become_root(void)
{
    char users[64], groups[64];

    snprintf(users, sizeof users, "0 %d 1", (int)geteuid());
    snprintf(groups, sizeof groups, "0 %d 1", (int)getegid());
    if (unshare(CLONE_NEWUSER) != 0)
        return false;
    gr_test_write_text("/proc/self/setgroups", "deny"); /* else groups may not be mapped */
    gr_test_write_text("/proc/self/uid_map", users);
    gr_test_write_text("/proc/self/gid_map", groups);
    return true;
}

/* A fresh tmpfs of 64 KiB at "small", seen by this process only. */
static void mount_small(void)
{
    ASSERT(mkdir("small", 0777) == 0);
    if ((geteuid() != 0 && !become_root()) || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "small", "tmpfs", 0, "size=64k,mode=777") != 0)
        SKIP("no file system can be mounted here (%s)", strerror(errno));
    atexit(unmount_small);
}

static struct gr_store *open_here(void)
{
    struct gr_store *store = NULL;

    ASSERT_OK(gr_store_open(&store, "."));
    return store;
}

static void assert_refused(gr_status status, gr_status expected, const char *message)
{
    ASSERT_MSG(status == expected, "%s (%s), expected %s", gr_status_name(status),
               gr_error_message(), gr_status_name(expected));
    ASSERT_TEXT(gr_error_message(), message);
    gr_error_clear();
}

/* ---- the contract ----------------------------------------------------------------------- */

TEST(store_open_takes_paths_and_file_urls)
{
    struct gr_store *store = NULL;
    struct stat info;

    gr_test_enter_folder();
    gr_test_write_text("taken", "");
    ASSERT_OK(gr_store_open(&store, "a/b/c"));
    ASSERT_TEXT(store->url, "a/b/c");
    gr_store_close(store);
    ASSERT_OK(gr_store_open(&store, "file://d/"));
    gr_store_close(store);
    ASSERT(stat("a/b/c", &info) == 0 && stat("d", &info) == 0);

    assert_refused(gr_store_open(&store, "s3://bucket/x"), GR_ERR_USAGE,
                   "s3://bucket/x: no store has this scheme (found s3, expected file)");
    assert_refused(gr_store_open(&store, "file://"), GR_ERR_USAGE,
                   "file://: the place of the store is empty");
    assert_refused(
        gr_store_open(&store, "taken"), GR_ERR_USAGE,
        "taken: cannot be opened: the path leads through a file (found a file, expected a folder)");
    assert_refused(gr_store_open(&store, "taken/x"), GR_ERR_USAGE,
                   "taken/x: cannot be opened: the path leads through a file (found a file, "
                   "expected a folder)");
    ASSERT(store == NULL);
    gr_store_close(NULL);
}

TEST(store_file_put_get_replace_remove)
{
    struct gr_store *store = NULL;
    struct gr_buffer bytes = {0};
    struct stat info;

    gr_test_enter_folder();
    store = open_here();
    ASSERT_OK(put_text(store, "x/y/object", "first"));
    ASSERT_OK(put_text(store, "x/y/object", "second one"));
    assert_object(store, "x/y/object", "second one");
    ASSERT_OK(store->ops->get(store, &bytes, "x/y/object", 7, 2));
    ASSERT_TEXT(bytes.data, "on");
    ASSERT_OK(store->ops->get(store, &bytes, "x/y/object", 7, 100));
    ASSERT_TEXT(bytes.data, "one");
    ASSERT_OK(store->ops->get(store, &bytes, "x/y/object", 100, 1));
    ASSERT_INT(bytes.length, 0);
    ASSERT_OK(store->ops->put(store, "x/empty", "", 0));
    assert_object(store, "x/empty", "");
    ASSERT_INT(temp_files("x/y"), 0);

    assert_refused(store->ops->get(store, &bytes, "x/z", 0, -1), GR_ERR_NOT_FOUND,
                   ".: there is no x/z here");
    assert_refused(store->ops->get(store, &bytes, "x/y", 0, -1), GR_ERR_NOT_FOUND,
                   ".: there is no x/y here");
    assert_refused(store->ops->get(store, &bytes, "x/empty/z", 0, -1), GR_ERR_NOT_FOUND,
                   ".: there is no x/empty/z here");
    assert_refused(put_text(store, "x/y", "text"), GR_ERR_USAGE,
                   "./x/y: cannot be written: a folder has this name");
    assert_refused(put_text(store, "x/empty/z", "text"), GR_ERR_USAGE,
                   "./x/empty/z: cannot be written: the path leads through a file (found a file, "
                   "expected a folder)");

    ASSERT_OK(store->ops->remove(store, "x/y/object"));
    ASSERT(stat("x/y", &info) != 0); /* its last object is gone */
    ASSERT_OK(store->ops->remove(store, "x/y/object"));
    ASSERT_OK(store->ops->remove(store, "x/empty"));
    assert_keys(store, "", "");
    ASSERT_INT(temp_files("."), 0);
    gr_buffer_release(&bytes);
    gr_store_close(store);
}

TEST(store_file_bad_keys_are_refused)
{
    static const char *const keys[] = {"",   "/etc/passwd", "a/../b", "..",     "a//b",
                                       "a/", "./a",         "a/.",    ".tmp-1", "a/.tmp-"};
    struct gr_store *store = NULL;
    struct gr_buffer bytes = {0};

    gr_test_enter_folder();
    store = open_here();
    for (int64_t i = 0; i < GR_COUNT(keys); i++) {
        char *message = gr_format(".: bad key (found \"%s\")", keys[i]);

        assert_refused(put_text(store, keys[i], "x"), GR_ERR_USAGE, message);
        assert_refused(put_text_if_absent(store, keys[i], "x"), GR_ERR_USAGE, message);
        assert_refused(store->ops->get(store, &bytes, keys[i], 0, -1), GR_ERR_USAGE, message);
        assert_refused(store->ops->remove(store, keys[i]), GR_ERR_USAGE, message);
        gr_free(message);
    }
    ASSERT_OK(put_text(store, "..a/b..", "dots inside a name are fine"));
    gr_buffer_release(&bytes);
    gr_store_close(store);
}

TEST(store_file_list_is_sorted_and_filtered)
{
    struct gr_store *store = NULL;
    struct gr_store_list list;

    gr_test_enter_folder();
    store = open_here();
    ASSERT_OK(put_text(store, "ckpt/2", "22"));
    ASSERT_OK(put_text(store, "ckpt/10", "x"));
    ASSERT_OK(put_text(store, "ckpt-b", "x"));
    ASSERT_OK(put_text(store, "ckpt/deep/a", "x"));
    ASSERT_OK(put_text(store, "a", "x"));
    ASSERT(symlink("a", "link") == 0);
    ASSERT(symlink("ckpt", "loop") == 0);
    ASSERT(symlink("nowhere", "broken") == 0);
    assert_keys(store, "", "a ckpt-b ckpt/10 ckpt/2 ckpt/deep/a link ");
    assert_keys(store, "ckpt", "ckpt-b ckpt/10 ckpt/2 ckpt/deep/a ");
    assert_keys(store, "ckpt/", "ckpt/10 ckpt/2 ckpt/deep/a ");
    assert_keys(store, "ckpt/de", "ckpt/deep/a ");
    assert_keys(store, "ckpt/2", "ckpt/2 ");
    assert_keys(store, "no", "");
    ASSERT_OK(store->ops->list(store, &list, "ckpt/2"));
    ASSERT_INT(list.entry[0].bytes, 2);
    gr_store_list_release(&list);
    gr_store_close(store);
}

TEST(store_file_put_if_absent_never_replaces)
{
    struct gr_store *store = NULL;

    gr_test_enter_folder();
    store = open_here();
    ASSERT_OK(put_text_if_absent(store, "term/1", "mine"));
    ASSERT_OK(put_text_if_absent(store, "term/1", "mine")); /* the first answer was lost */
    assert_refused(put_text_if_absent(store, "term/1", "yours"), GR_ERR_EXISTS,
                   "./term/1: there is an object of this name already");
    assert_refused(put_text_if_absent(store, "term", "x"), GR_ERR_EXISTS,
                   "./term: there is an object of this name already");
    assert_object(store, "term/1", "mine");
    ASSERT_INT(temp_files("term"), 0);
    gr_store_close(store);
}

/* ---- several processes ------------------------------------------------------------------ */

/* Both processes put different bytes under the same key at the same moment; exactly one wins, and
 * its bytes are there. */
TEST(store_file_put_if_absent_race_has_one_winner)
{
    enum { ROUNDS = 200 };
    struct gr_store *store = NULL;
    int to_child[2], to_parent[2];
    pid_t child;

    gr_test_enter_folder();
    store = open_here();
    ASSERT(pipe(to_child) == 0 && pipe(to_parent) == 0);
    child = fork();
    ASSERT(child >= 0);
    for (int round = 0; round < ROUNDS; round++) {
        char *key = gr_format("term/%d", round);
        const char *text = child == 0 ? "child" : "parent";
        char other = 0;
        gr_status status;

        ASSERT(write(child == 0 ? to_parent[1] : to_child[1], "x", 1) == 1);
        ASSERT(read(child == 0 ? to_child[0] : to_parent[0], &other, 1) == 1);
        status = put_text_if_absent(store, key, text);
        gr_error_clear();
        ASSERT(status == GR_OK || status == GR_ERR_EXISTS);
        if (child == 0) {
            ASSERT(write(to_parent[1], status == GR_OK ? "w" : "l", 1) == 1);
        } else {
            ASSERT(read(to_parent[0], &other, 1) == 1);
            ASSERT_MSG((status == GR_OK) != (other == 'w'), "round %d: %s won", round,
                       other == 'w' ? "both" : "nobody");
            assert_object(store, key, status == GR_OK ? "parent" : "child");
        }
        gr_free(key);
    }
    gr_store_close(store);
    if (child == 0)
        _exit(0);
    ASSERT(waitpid(child, NULL, 0) == child);
}

/* A reader sees the old object or the new one, never a part or a mixture. */
TEST(store_file_put_is_seen_whole)
{
    enum { BYTES = 1 << 20, ROUNDS = 40 };
    struct gr_store *store = NULL;
    struct gr_buffer bytes = {0};
    int seen[2] = {0};
    pid_t child;

    gr_test_enter_folder();
    store = open_here();
    ASSERT_OK(put_text(store, "x", "a"));
    child = fork();
    if (child == 0) {
        char *block = gr_alloc(BYTES, 1);

        for (int round = 0; round < ROUNDS; round++) {
            memset(block, 'a' + round % 2, BYTES);
            if (store->ops->put(store, "x", block, BYTES - round % 2) != GR_OK)
                _exit(1);
        }
        _exit(0);
    }
    for (int wait_status = -1; waitpid(child, &wait_status, WNOHANG) == 0;) {
        ASSERT_OK(store->ops->get(store, &bytes, "x", 0, -1));
        if (bytes.length == 1)
            continue;
        ASSERT_INT(bytes.length, BYTES - (bytes.data[0] == 'b'));
        ASSERT(memcmp(bytes.data, bytes.data + 1, bytes.length - 1) == 0);
        seen[bytes.data[0] == 'b']++;
    }
    ASSERT_MSG(seen[0] > 0 && seen[1] > 0, "saw %d and %d", seen[0], seen[1]);
    gr_buffer_release(&bytes);
    gr_store_close(store);
}

TEST(store_file_death_before_link_leaves_nothing_listed)
{
    struct gr_store *store = NULL;
    struct timespec long_ago[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
    int wait_status = 0;
    pid_t child;
    DIR *folder = NULL;

    gr_test_enter_folder();
    store = open_here();
    child = fork();
    if (child == 0) {
        gr_test_forbid(SYS_linkat, 0);
        put_text_if_absent(store, "term/1", "mine");
        _exit(0);
    }
    ASSERT(waitpid(child, &wait_status, 0) == child);
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 77)
        SKIP("seccomp filters are not allowed here");
    ASSERT(WIFSIGNALED(wait_status));
    ASSERT_INT(temp_files("term"), 1); /* it died with its file written */
    assert_keys(store, "", "");
    ASSERT_INT(temp_files("term"), 1); /* a young one may still be somebody's */
    ASSERT_OK(put_text_if_absent(store, "term/1", "yours"));
    assert_keys(store, "", "term/1 ");

    folder = opendir("term");
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        if (strncmp(e->d_name, ".tmp-", 5) == 0)
            ASSERT(utimensat(dirfd(folder), e->d_name, long_ago, 0) == 0);
    }
    closedir(folder);
    assert_keys(store, "", "term/1 ");
    ASSERT_INT(temp_files("term"), 0);
    gr_store_close(store);
}

/* ---- refusals of the disk --------------------------------------------------------------- */

TEST(store_file_without_links_renames_without_replacing)
{
    struct gr_store *store = NULL;

    gr_test_enter_folder();
    store = open_here();
    gr_test_forbid(SYS_linkat, EPERM);
    ASSERT_OK(put_text_if_absent(store, "a", "mine"));
    ASSERT_OK(put_text_if_absent(store, "a", "mine"));
    ASSERT_INT(put_text_if_absent(store, "a", "yours"), GR_ERR_EXISTS);
    assert_object(store, "a", "mine");
    ASSERT_INT(temp_files("."), 0);
    gr_store_close(store);
}

TEST(store_file_without_any_conditional_put_is_refused)
{
    struct gr_store *store = NULL;

    gr_test_enter_folder();
    mount_small();
    ASSERT_OK(gr_store_open(&store, "small"));
    gr_test_forbid(SYS_linkat, EPERM);
    gr_test_forbid(SYS_renameat2, EINVAL);
    assert_refused(put_text_if_absent(store, "a", "mine"), GR_ERR_USAGE,
                   "small/a: the file system can neither link nor rename without replacing (found "
                   "tmpfs, expected one like ext4, xfs, nfs)");
    assert_keys(store, "", "");
    ASSERT_INT(temp_files("small"), 0);
    gr_store_close(store);
}

/* A system call of a put fails: the message, and that nothing is left.  A key without a folder
 * keeps the making of folders out of it. */
static const struct refused_call {
    const char *key;
    long call;
    int error;
    gr_status status;
    const char *words;
} refused_calls[] = {
    {"b", SYS_write, ENOSPC, GR_ERR_RETRY, "no space left"},
    {"b", SYS_write, EDQUOT, GR_ERR_RETRY, "no space left in the quota"},
    {"b", SYS_write, EIO, GR_ERR_RETRY, "input/output error"},
    {"b", SYS_fsync, EIO, GR_ERR_RETRY, "input/output error"},
    {"a/b", SYS_fsync, ENOSPC, GR_ERR_RETRY, "no space left"},
    {"b", SYS_openat, EMFILE, GR_ERR_RETRY, "too many open files in this process"},
    {"b", SYS_openat, ENFILE, GR_ERR_RETRY, "too many open files on this host"},
    {"b", SYS_openat, ESTALE, GR_ERR_RETRY, "the network file system lost the file"},
    {"b", SYS_openat, ETIMEDOUT, GR_ERR_RETRY, "the network file system does not answer"},
    {"b", SYS_openat, EPERM, GR_ERR_USAGE, "operation not permitted"},
    {"b", SYS_openat, ELOOP, GR_ERR_USAGE, "the symbolic links of the path form a loop"},
    {"a/b", SYS_mkdirat, EROFS, GR_ERR_USAGE, "the file system is read-only"},
    {"b", SYS_renameat, EIO, GR_ERR_RETRY, "input/output error"},
    {"b", SYS_openat, ENOMEM, GR_ERR_RETRY, "Cannot allocate memory"},
};

TEST(store_file_refused_calls_have_one_message_and_leave_nothing)
{
    struct gr_store *store = NULL;

    gr_test_enter_folder();
    store = open_here();
    for (int64_t i = 0; i < GR_COUNT(refused_calls); i++) {
        const struct refused_call *refused = &refused_calls[i];
        int wait_status = 0;
        pid_t child = fork();

        if (child == 0) {
            char *message = gr_format("./%s: cannot be written: %s", refused->key, refused->words);
            gr_status status;
            bool same;

            gr_test_forbid(refused->call, refused->error);
            status = put_text(store, refused->key, "text");
            same = status == refused->status && strcmp(gr_error_message(), message) == 0 &&
                   gr_error_hint()[0] != '\0';
            _exit(same ? 0 : 1);
        }
        ASSERT(waitpid(child, &wait_status, 0) == child);
        if (WEXITSTATUS(wait_status) == 77)
            SKIP("seccomp filters are not allowed here");
        ASSERT_MSG(WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0,
                   "case %d (%s): another status or message", (int)i, refused->words);
        assert_keys(store, "", "");
        ASSERT_INT(temp_files("."), 0);
        ASSERT(rmdir("a") == 0 || errno == ENOENT); /* a temporary file would keep it */
    }
    gr_store_close(store);
}

TEST(store_file_full_disk_says_so_and_keeps_the_old_object)
{
    enum { BYTES = 100000 };
    struct gr_store *store = NULL;
    char *block = gr_alloc(BYTES, 1);

    gr_test_enter_folder();
    mount_small();
    ASSERT_OK(gr_store_open(&store, "small"));
    ASSERT_OK(put_text(store, "a", "old"));
    assert_refused(store->ops->put(store, "a", block, BYTES), GR_ERR_RETRY,
                   "small/a: cannot be written: no space left");
    assert_refused(store->ops->put_if_absent(store, "b", block, BYTES), GR_ERR_RETRY,
                   "small/b: cannot be written: no space left");
    assert_object(store, "a", "old");
    assert_keys(store, "", "a ");
    ASSERT_INT(temp_files("small"), 0);
    gr_store_close(store);
    gr_free(block);
}

TEST(store_file_read_only_file_system_is_refused)
{
    struct gr_store *store = NULL;

    gr_test_enter_folder();
    mount_small();
    ASSERT_OK(gr_store_open(&store, "small"));
    ASSERT_OK(put_text(store, "a", "old"));
    ASSERT(mount("none", "small", NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0);
    assert_refused(put_text(store, "b", "x"), GR_ERR_USAGE,
                   "small/b: cannot be written: the file system is read-only");
    assert_refused(put_text_if_absent(store, "b", "x"), GR_ERR_USAGE,
                   "small/b: cannot be written: the file system is read-only");
    assert_refused(store->ops->remove(store, "a"), GR_ERR_USAGE,
                   "small/a: cannot be removed: the file system is read-only");
    assert_object(store, "a", "old");
    gr_store_close(store);
    store = NULL;
    ASSERT_OK(gr_store_open(&store, "small")); /* it can still be read */
    gr_store_close(store);
    assert_refused(gr_store_open(&store, "small/new"), GR_ERR_USAGE,
                   "small/new: cannot be opened: the file system is read-only");
}

TEST(store_file_too_large_file_is_refused)
{
    enum { BYTES = 100000 };
    struct gr_store *store = NULL;
    struct rlimit limit = {.rlim_cur = 50000, .rlim_max = 50000};
    char *block = gr_alloc(BYTES, 1);

    gr_test_enter_folder();
    store = open_here();
    signal(SIGXFSZ, SIG_IGN);
    ASSERT(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    assert_refused(store->ops->put(store, "a", block, BYTES), GR_ERR_RETRY,
                   "./a: cannot be written: no space left below the limit on file sizes");
    ASSERT_INT(temp_files("."), 0);
    gr_store_close(store);
    gr_free(block);
}

TEST(store_file_without_permission_is_refused)
{
    struct gr_store *store = NULL;
    int wait_status = 0;
    pid_t child;

    gr_test_enter_folder();
    store = open_here();
    ASSERT_OK(put_text(store, "locked/a", "x"));
    ASSERT(chmod(".", 0755) == 0 && chmod("locked", 0555) == 0);
    child = fork(); /* root may do everything: become somebody else */
    if (child == 0) {
        if (geteuid() == 0 && seteuid(65534) != 0)
            SKIP("this process can become no other user");
        assert_refused(put_text(store, "locked/b", "x"), GR_ERR_USAGE,
                       "./locked/b: cannot be written: permission denied");
        assert_refused(put_text_if_absent(store, "locked/b", "x"), GR_ERR_USAGE,
                       "./locked/b: cannot be written: permission denied");
        assert_refused(store->ops->remove(store, "locked/a"), GR_ERR_USAGE,
                       "./locked/a: cannot be removed: permission denied");
        assert_refused(gr_store_open(&store, "locked/c"), GR_ERR_USAGE,
                       "locked/c: cannot be opened: permission denied");
        _exit(0);
    }
    ASSERT(waitpid(child, &wait_status, 0) == child);
    ASSERT(chmod("locked", 0755) == 0);
    if (WEXITSTATUS(wait_status) == 77)
        SKIP("this process can become no other user");
    ASSERT(WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0);
    gr_store_close(store);
}

TEST(store_file_overlong_name_is_refused)
{
    struct gr_store *store = NULL;
    char name[300], message[400];

    gr_test_enter_folder();
    store = open_here();
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(message, sizeof message, "./%s: cannot be written: the name is too long", name);
    assert_refused(put_text(store, name, "x"), GR_ERR_USAGE, message);
    assert_refused(put_text_if_absent(store, name, "x"), GR_ERR_USAGE, message);
    ASSERT_INT(temp_files("."), 0);
    gr_store_close(store);
}
