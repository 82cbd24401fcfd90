/* Folders that appear whole or not at all: several at once, after a death, and beside what is not
 * ours. */
#include "data/staged_folder.h"
#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct gr_staged_folder *begin(const char *path, const char *text)
{
    struct gr_staged_folder *folder = NULL;

    ASSERT_OK(gr_staged_folder_create(&folder, path));
    ASSERT_OK(gr_staged_folder_begin(folder, "one"));
    ASSERT_OK(gr_staged_folder_write(folder, text, (int64_t)strlen(text)));
    ASSERT_OK(gr_staged_folder_begin(folder, "two"));
    return folder;
}

static void expect_text(const char *path, const char *text)
{
    char found[64] = "";
    FILE *file = fopen(path, "r");

    ASSERT_MSG(file != NULL && fgets(found, sizeof found, file) != NULL, "%s is not there", path);
    ASSERT_TEXT(found, text);
    fclose(file);
}

/* A process that dies in the middle. */
static void begin_and_die(const char *path)
{
    pid_t child = fork();
    int how = 0;

    if (child == 0) {
        begin(path, "half");
        _exit(0);
    }
    ASSERT(waitpid(child, &how, 0) == child && WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

TEST(staged_folder_two_at_once_the_first_to_end_wins_whole)
{
    struct gr_staged_folder *a, *b;

    gr_test_enter_folder();
    a = begin("out", "a");
    b = begin("out", "b");
    ASSERT_OK(gr_staged_folder_commit(b));
    ASSERT_INT(gr_staged_folder_commit(a), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(), "out: was made by somebody else meanwhile (found something, "
                                    "expected nothing)");
    gr_error_clear();
    gr_staged_folder_destroy(a);
    gr_staged_folder_destroy(b);
    expect_text("out/one", "b");
    ASSERT(access("out/two", F_OK) == 0 && access("out/.graft-partial", F_OK) != 0);
    ASSERT_INT(gr_test_count_names("."), 1);
}

TEST(staged_folder_of_the_dead_is_swept)
{
    struct gr_staged_folder *folder;

    gr_test_enter_folder();
    begin_and_die("out");
    ASSERT_INT(gr_test_count_names("."), 1);
    folder = begin("out/", "whole"); /* as a user may write it */
    ASSERT_INT(gr_test_count_names("."), 1);
    ASSERT_OK(gr_staged_folder_commit(folder));
    gr_staged_folder_destroy(folder);
    expect_text("out/one", "whole");
    ASSERT_INT(gr_test_count_names("."), 1);
}

TEST(staged_folder_commit_also_sweeps_nothing_of_the_living)
{
    struct gr_staged_folder *a, *b;

    gr_test_enter_folder();
    a = begin("out", "a");
    begin_and_die("out");
    b = begin("out", "b");
    ASSERT_INT(gr_test_count_names("."), 2);
    gr_staged_folder_destroy(b);
    ASSERT_OK(gr_staged_folder_commit(a));
    gr_staged_folder_destroy(a);
    expect_text("out/one", "a");
    ASSERT_INT(gr_test_count_names("."), 1);
}

/* What only looks like ours: a user's folders, a file, and links, one of them to a folder that is
 * marked as ours. */
TEST(staged_folder_what_others_keep_stays)
{
    static const char *const folders[] = {"out.partial", "out.partial.abcdef",
                                          "out.partial.1234567", "else"};
    struct gr_staged_folder *folder;

    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(folders); i++) {
        char *file = gr_format("%s/new", folders[i]);

        ASSERT(mkdir(folders[i], 0777) == 0);
        gr_test_write_text(file, "precious");
        gr_free(file);
    }
    gr_test_write_text("out.partial.1234567/.graft-partial", "");
    gr_test_write_text("else/.graft-partial", "");
    gr_test_write_text("out.partial.ABCDEF", "precious");
    ASSERT(symlink("else", "out.partial.GHIJKL") == 0);
    ASSERT(symlink("else", "out.partial.new") == 0);
    folder = begin("out", "text");
    ASSERT_OK(gr_staged_folder_commit(folder));
    gr_staged_folder_destroy(folder);
    expect_text("out/one", "text");
    for (int64_t i = 0; i < GR_COUNT(folders); i++) {
        char *file = gr_format("%s/new", folders[i]);

        expect_text(file, "precious");
        gr_free(file);
    }
    expect_text("out.partial.ABCDEF", "precious");
    ASSERT(access("else/.graft-partial", F_OK) == 0);
    ASSERT(access("out.partial.1234567/.graft-partial", F_OK) == 0);
}

TEST(staged_folder_link_of_the_dead_leads_nowhere)
{
    char command[] =
        "cd out.partial.*/new && ln -s ../../else/new link && mv one two ../../else && "
        "mkdir deep";
    struct gr_staged_folder *folder;

    gr_test_enter_folder();
    ASSERT(mkdir("else", 0777) == 0 && mkdir("else/new", 0777) == 0);
    gr_test_write_text("else/new/file", "precious");
    begin_and_die("out");
    ASSERT(system(command) == 0);
    folder = begin("out", "text"); /* somebody's folder in it: it stays, marked, for who looks */
    ASSERT_OK(gr_staged_folder_commit(folder));
    gr_staged_folder_destroy(folder);
    expect_text("else/new/file", "precious");
    expect_text("else/one", "half");
    ASSERT(system("test -d out.partial.*/new/deep && test -f out.partial.*/.graft-partial") == 0);
}

TEST(staged_folder_existing_path_is_refused)
{
    struct gr_staged_folder *folder = NULL;

    gr_test_enter_folder();
    ASSERT(symlink("nowhere", "out") == 0);
    ASSERT_INT(gr_staged_folder_create(&folder, "out"), GR_ERR_USAGE);
    ASSERT(strstr(gr_error_message(), "exists already") != NULL && folder == NULL);
    gr_error_clear();
}

TEST(staged_folder_missing_parents_are_made)
{
    struct gr_staged_folder *folder;

    gr_test_enter_folder();
    folder = begin("a/b/out", "text");
    ASSERT_OK(gr_staged_folder_commit(folder));
    gr_staged_folder_destroy(folder);
    expect_text("a/b/out/one", "text");
}

TEST(staged_folder_path_through_a_file_is_refused_for_good)
{
    struct gr_staged_folder *folder = NULL;

    gr_test_enter_folder();
    gr_test_write_text("file", "mine");
    ASSERT_INT(gr_staged_folder_create(&folder, "file/out"), GR_ERR_USAGE);
    ASSERT(strstr(gr_error_message(), "leads through a file") != NULL);
    gr_error_clear();
}

/* A file system that cannot rename without replacing (EINVAL, as the kernel says it). */
TEST(staged_folder_without_noreplace_still_replaces_nothing)
{
    struct gr_staged_folder *a, *b;

    gr_test_enter_folder();
    gr_test_forbid(SYS_renameat2, EINVAL);
    a = begin("out", "a");
    b = begin("out", "b");
    ASSERT_OK(gr_staged_folder_commit(a));
    ASSERT_INT(gr_staged_folder_commit(b), GR_ERR_USAGE);
    gr_error_clear();
    gr_staged_folder_destroy(a);
    gr_staged_folder_destroy(b);
    expect_text("out/one", "a");
    ASSERT_INT(gr_test_count_names("."), 1);
}

/* A user may have made it, for something of his own. */
TEST(staged_folder_empty_folder_that_appears_is_not_replaced)
{
    gr_test_enter_folder();
    for (int has_noreplace = 1; has_noreplace >= 0; has_noreplace--) {
        struct gr_staged_folder *folder = begin("out", "text");

        if (!has_noreplace)
            gr_test_forbid(SYS_renameat2, EINVAL);
        ASSERT(mkdir("out", 0777) == 0);
        ASSERT_INT(gr_staged_folder_commit(folder), GR_ERR_USAGE);
        gr_error_clear();
        gr_staged_folder_destroy(folder);
        ASSERT(rmdir("out") == 0);
    }
    ASSERT_INT(gr_test_count_names("."), 0);
}
