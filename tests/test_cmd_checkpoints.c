/* graft checkpoints as a user meets it: what it prints and how it ends. */
#include "launch/cmd.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/state_case.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

#define CK10 "000000000010-00000001"
#define CK20 "000000000020-00000001"
#define CK30 "000000000030-00000001"
#define CK40 "000000000040-00000001"

/* Runs the command with up to four words, stdout into the file "out"; the message stays set. */
static gr_status checkpoints(const char *a, const char *b, const char *c, const char *d)
{
    const char *words[] = {a, b, c, d};
    char *argv[4];
    int argc = 0, screen = dup(STDOUT_FILENO);
    struct gr_args *args = NULL;
    gr_status status = GR_OK;

    gr_error_clear();
    for (; argc < 4 && words[argc] != NULL; argc++)
        argv[argc] = gr_strdup(words[argc]);
    fflush(stdout);
    ASSERT(freopen("out", "w", stdout) != NULL);
    status = gr_args_create(&args, &gr_cmd_checkpoints, argc, argv);
    if (status == GR_OK)
        status = gr_cmd_checkpoints.run(args);
    fflush(stdout);
    ASSERT(dup2(screen, STDOUT_FILENO) >= 0);
    close(screen);
    gr_args_destroy(args);
    for (int i = 0; i < argc; i++)
        gr_free(argv[i]);
    return status;
}

static void assert_out(const char *expected)
{
    char found[4096] = "";
    FILE *file = fopen("out", "r");

    ASSERT(file != NULL);
    found[fread(found, 1, sizeof found - 1, file)] = '\0';
    fclose(file);
    ASSERT_TEXT(found, expected);
}

static void assert_fails(gr_status found, gr_status expected, const char *words)
{
    ASSERT_TEXT(gr_status_name(found), gr_status_name(expected));
    ASSERT_MSG(strstr(gr_error_message(), words) != NULL, "message \"%s\" lacks \"%s\"",
               gr_error_message(), words);
}

#define HEAD                                                                                       \
    "NAME                          STEP   TERM          BYTES  SAVED (UTC)          STATE\n"
#define ROW(name, step, state)                                                                     \
    name "           " step "      1            600  2023-11-14 22:13:20  " state "\n"

TEST(checkpoints_ls_prints_a_table)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    ASSERT_OK(checkpoints("ls", "run", NULL, NULL));
    assert_out("");
    gr_state_case_run_to(&sc, 20);
    ASSERT_OK(checkpoints("pin", "run", "10", NULL));
    assert_out("pinned " CK10 "\n");
    ASSERT_OK(checkpoints("ls", "file://run", NULL, NULL));
    assert_out(HEAD ROW(CK20, "20", "") ROW(CK10, "10", "pinned"));
    ASSERT_OK(checkpoints("unpin", "run", CK10, NULL));
    assert_out("unpinned " CK10 "\n");
    ASSERT_OK(checkpoints("ls", "run", "--json", NULL));
    assert_out("{\"checkpoints\":["
               "{\"name\":\"" CK20 "\",\"step\":20,\"term\":1,\"bytes\":600,\"unix_s\":1700000000,"
               "\"live\":true,\"best\":false,\"pinned\":false,\"bad\":null},"
               "{\"name\":\"" CK10 "\",\"step\":10,\"term\":1,\"bytes\":600,\"unix_s\":1700000000,"
               "\"live\":true,\"best\":false,\"pinned\":false,\"bad\":null}]}\n");
    gr_state_case_release(&sc);
}

TEST(checkpoints_verify_ends_with_what_it_found)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    ASSERT_OK(checkpoints("verify", "run", NULL, NULL));
    assert_out(HEAD ROW(CK20, "20", "good") ROW(CK10, "10", "good"));
    gr_state_case_flip("run/ckpt/" CK20 ".json", 60);
    assert_fails(checkpoints("verify", "run", NULL, NULL), GR_ERR_DATA, "found 1 of 2");
    gr_state_case_flip("run/ckpt/" CK10 ".json", 60);
    assert_fails(checkpoints("verify", "run", "--json", NULL), GR_ERR_CORRUPT, "found 2 of 2");
    gr_state_case_release(&sc);
}

TEST(checkpoints_rm_deletes_an_old_one_and_refuses_a_new_one)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 40);
    assert_fails(checkpoints("rm", "run", "20", NULL), GR_ERR_USAGE, "newest");
    ASSERT_OK(checkpoints("rm", "run", "10", NULL));
    assert_out("removed " CK10 "\n");
    gr_state_case_keys(&sc, "ckpt/", CK20 ".json " CK30 ".json " CK40 ".json ");
    assert_fails(checkpoints("rm", "run", "10", NULL), GR_ERR_NOT_FOUND, "no checkpoint 10");
    gr_state_case_release(&sc);
}

TEST(checkpoints_wrong_arguments_are_refused)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    assert_fails(checkpoints("list", "run", NULL, NULL), GR_ERR_USAGE, "found list");
    assert_fails(checkpoints("pin", "run", NULL, NULL), GR_ERR_USAGE, "found no checkpoint");
    assert_fails(checkpoints("ls", "run", "10", NULL), GR_ERR_USAGE, "found 10");
    assert_fails(checkpoints("pin", "run", "newest", NULL), GR_ERR_USAGE, "found newest");
    assert_fails(checkpoints("ls", "nowhere", NULL, NULL), GR_ERR_NOT_FOUND, "no such directory");
    ASSERT(access("nowhere", F_OK) != 0);
    assert_fails(checkpoints("ls", ".", NULL, NULL), GR_ERR_NOT_FOUND, "run.json");
    gr_state_case_release(&sc);
}
