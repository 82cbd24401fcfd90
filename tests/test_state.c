/* Start and save on a real disk: what is resumed, what is refused, who is fenced. */
#include "trainer/state/state.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/state_case.h"
#include "tests/test.h"
#include "trainer/state/record.h"
#include "trainer/state/term.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CK10 "000000000010-00000001"
#define CK20 "000000000020-00000001"
#define CK30 "000000000030-00000001"

/* ---- save and resume ------------------------------------------------------------------------ */

static struct gr_term term_of(const struct gr_state_case *sc, int64_t number)
{
    struct gr_access access = {.store = sc->store};
    struct gr_term term;

    ASSERT_OK(gr_term_get(&term, &access, number));
    return term;
}

TEST(state_empty_run_starts_at_the_beginning)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = gr_state_case_start(&sc, 0);
    ASSERT_INT(gr_state_term(state), 1);
    ASSERT_TEXT(term_of(&sc, 1).base, "");
    ASSERT_TEXT(gr_state_kind_before(state), "");
    gr_state_case_keys(&sc, "term/", "00000001.json ");
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(state_saved_is_found_with_all_it_had)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;
    struct gr_checkpoint found = {0};

    gr_state_case_init(&sc);
    sc.options.world_size = 3;
    state = gr_state_case_start(&sc, 0);
    ASSERT_OK(gr_state_case_save(state, 10, 0));
    ASSERT_OK(gr_state_case_save(state, 20, 20));
    gr_state_destroy(state);
    sc.options.world_size = 5;
    ASSERT_OK(gr_state_start(&state, &found, sc.store, &sc.options));
    ASSERT_INT(found.step, 20);
    ASSERT_INT(found.epoch, 1);
    ASSERT_INT(found.epoch_first_step, 5);
    ASSERT_INT(found.best_step, 20);
    ASSERT(found.best_loss == 0.1);
    ASSERT_INT(found.evals_since_best, 2);
    ASSERT_INT(found.world_size, 3);
    ASSERT_INT(gr_state_term(state), 3); /* 2 is its fence */
    ASSERT_TEXT(term_of(&sc, 3).base, CK20);
    ASSERT_INT(strlen(term_of(&sc, 3).base_hash), 64);
    ASSERT_TEXT(gr_state_kind_before(state), "test device");
    gr_checkpoint_release(&found);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(state_step_saved_twice_is_one_checkpoint)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = gr_state_case_start(&sc, 0);
    ASSERT_OK(gr_state_case_save(state, 10, 0));
    ASSERT_OK(gr_state_case_save(state, 10, 0));
    gr_state_case_keys(&sc, "ckpt/", CK10 ".json ");
    ASSERT_INT(gr_state_case_count(&sc, "objects/"), 2);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(state_data_without_manifest_is_not_resumed)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    ASSERT(unlink("run/ckpt/" CK20 ".json") == 0);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    gr_state_case_release(&sc);
}

TEST(state_fresh_start_leaves_what_is_there_behind)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    sc.options.fresh = true;
    gr_state_destroy(gr_state_case_start(&sc, 0));
    sc.options.fresh = false;
    state = gr_state_case_start(&sc, 0); /* not back to what was given up */
    ASSERT_OK(gr_state_case_save(state, 10, 0));
    gr_state_destroy(state);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    gr_state_case_release(&sc);
}

/* A start that died between its two terms left a fence: it bounds nothing, and serves the next. */
TEST(state_fence_left_behind_bounds_nothing_and_serves)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    gr_state_destroy(gr_state_case_start(&sc, 20));
    ASSERT(unlink("run/term/00000003.json") == 0);
    state = gr_state_case_start(&sc, 20);
    ASSERT_INT(gr_state_term(state), 3);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* ---- damage --------------------------------------------------------------------------------- */

static void cut(const char *path)
{
    ASSERT(truncate(path, 299) == 0);
}

static void empty(const char *path)
{
    ASSERT(truncate(path, 0) == 0);
}

static void grow(const char *path)
{
    ASSERT(truncate(path, 301) == 0);
}

static void take_away(const char *path)
{
    ASSERT(unlink(path) == 0);
}

static void flip_first(const char *path)
{
    gr_state_case_flip(path, 0);
}

static void flip_last(const char *path)
{
    gr_state_case_flip(path, -1);
}

static void flip_middle(const char *path)
{
    gr_state_case_flip(path, 150);
}

/* NULL: of the manifest. */
static const struct {
    const char *object;
    void (*damage)(const char *path);
    const char *reason;
} damages[] = {
    {"adapter_model", flip_first, "SHA-256"},
    {"adapter_model", flip_middle, "SHA-256"},
    {"optimizer", flip_last, "SHA-256"},
    {"optimizer", cut, "found 299 bytes, expected 300"},
    {"optimizer", empty, "found 0 bytes"},
    {"adapter_model", grow, "found 301 bytes or more"},
    {"adapter_model", take_away, "missing"},
    {"optimizer", take_away, "missing"},
    {NULL, flip_first, "SHA-256"},
    {NULL, flip_middle, "SHA-256"},
    {NULL, flip_last, "SHA-256"},
    {NULL, empty, "found 0 bytes"},
};

static void damage(struct gr_state_case *sc, const char *name, int64_t i)
{
    char *path = damages[i].object == NULL ? gr_format("run/ckpt/%s.json", name)
                                           : gr_state_case_object_path(sc, name, damages[i].object);

    damages[i].damage(path);
    gr_free(path);
}

static void assert_verdict(struct gr_state_case *sc, const char *name, const char *reason)
{
    struct gr_buffer bytes = {0};
    char *key = gr_format("bad/%s.json", name);

    ASSERT_OK(sc->store->ops->get(sc->store, &bytes, key, 0, -1));
    ASSERT_MSG(strstr(bytes.data, reason) != NULL, "the verdict lacks \"%s\":\n%s", reason,
               bytes.data);
    gr_buffer_release(&bytes);
    gr_free(key);
}

TEST(state_damaged_checkpoint_falls_back_to_the_one_before)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    for (int64_t i = 0; i < GR_COUNT(damages); i++) {
        ASSERT(system("rm -rf run/ckpt run/term run/objects run/bad") == 0);
        gr_state_case_run_to(&sc, 30);
        damage(&sc, CK30, i);
        gr_state_destroy(gr_state_case_start(&sc, 20));
        assert_verdict(&sc, CK30, damages[i].reason);
        gr_state_case_keys(&sc, "bad/", CK30 ".json ");
        gr_state_destroy(gr_state_case_start(&sc, 20)); /* and again, from the verdict */
    }
    gr_state_case_release(&sc);
}

TEST(state_several_damaged_fall_back_further)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 30);
    damage(&sc, CK30, 1);
    damage(&sc, CK20, 6);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    gr_state_case_keys(&sc, "bad/", CK20 ".json " CK30 ".json ");
    gr_state_case_release(&sc);
}

TEST(state_none_good_is_corrupt_and_never_a_start_from_zero)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    for (int64_t i = 0; i < GR_COUNT(damages); i++) {
        ASSERT(system("rm -rf run/ckpt run/term run/objects run/bad") == 0);
        gr_state_case_run_to(&sc, 20);
        damage(&sc, CK20, i);
        damage(&sc, CK10, i);
        gr_state_case_start_fails(&sc, GR_ERR_CORRUPT, "none of the checkpoints is good");
        gr_state_case_start_fails(&sc, GR_ERR_CORRUPT, "found 2, the newest at step 20");
    }
    sc.options.fresh = true;
    gr_state_destroy(gr_state_case_start(&sc, 0));
    gr_state_case_release(&sc);
}

/* A disk that was not mounted, and is now.  What is newer was given up by the start that tried the
 * older one. */
TEST(state_condemned_that_is_whole_again_is_taken_when_nothing_else_is_left)
{
    struct gr_state_case sc;
    char *path;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    path = gr_state_case_object_path(&sc, CK10, "optimizer");
    damage(&sc, CK20, 1);
    gr_state_case_flip(path, 0);
    gr_state_case_start_fails(&sc, GR_ERR_CORRUPT, "none of the checkpoints is good");
    gr_state_case_keys(&sc, "bad/", CK10 ".json " CK20 ".json ");
    gr_state_case_flip(path, 0);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    gr_state_case_keys(&sc, "bad/", CK20 ".json ");
    gr_free(path);
    gr_state_case_release(&sc);
}

TEST(state_checkpoints_that_are_gone_are_missed)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    gr_state_destroy(gr_state_case_start(&sc, 20));
    ASSERT(system("rm -r run/ckpt") == 0);
    gr_state_case_start_fails(&sc, GR_ERR_CORRUPT, "the checkpoints are gone");
    gr_state_case_start_fails(&sc, GR_ERR_CORRUPT, "expected at least that of step 20");
    sc.options.fresh = true;
    gr_state_destroy(gr_state_case_start(&sc, 0));
    sc.options.fresh = false;
    gr_state_destroy(gr_state_case_start(&sc, 0));
    gr_state_case_release(&sc);
}

/* Lost term objects leave gaps: the fence is any later term, not the next. */
TEST(state_writer_behind_a_gap_is_fenced)
{
    struct gr_state_case sc;
    struct gr_state *first, *second;

    gr_state_case_init(&sc);
    first = gr_state_case_start(&sc, 0);
    ASSERT_OK(gr_state_case_save(first, 10, 0));
    gr_test_write_text("run/term/00000005.json", "stray");
    second = gr_state_case_start(&sc, 10);
    ASSERT(system("rm run/term/00000005.json") == 0);
    ASSERT_INT(gr_state_case_save(first, 20, 0), GR_ERR_FENCED);
    gr_error_clear();
    ASSERT_OK(gr_state_case_save(second, 20, 0));
    gr_state_destroy(first);
    gr_state_destroy(second);
    gr_state_case_release(&sc);
}

TEST(state_files_with_other_names_are_no_checkpoints)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    ASSERT(mkdir("run/ckpt", 0777) == 0 && mkdir("run/term", 0777) == 0);
    gr_test_write_text("run/ckpt/notes.txt", "hello");
    gr_test_write_text("run/ckpt/00000000010-00000001.json", "hello");
    gr_test_write_text("run/ckpt/000000000000-00000001.json", "hello");
    gr_test_write_text("run/term/1.json", "hello");
    gr_state_destroy(gr_state_case_start(&sc, 0));
    gr_state_case_release(&sc);
}

TEST(state_damaged_term_is_refused_whatever_byte_it_is)
{
    struct gr_state_case sc;
    struct gr_access access;
    struct gr_term term;
    struct stat info;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 10);
    access = (struct gr_access){.store = sc.store};
    ASSERT_OK(gr_term_get(&term, &access, 1));
    ASSERT_TEXT(term.host, "test.host");
    ASSERT(stat("run/term/00000001.json", &info) == 0);
    for (long i = 0; i < info.st_size; i++) {
        gr_state_case_flip("run/term/00000001.json", i);
        ASSERT_MSG(gr_term_get(&term, &access, 1) == GR_ERR_DATA, "byte %ld", i);
        gr_error_clear();
        gr_state_case_flip("run/term/00000001.json", i);
    }
    ASSERT(rename("run/term/00000001.json", "run/term/00000002.json") == 0);
    ASSERT_INT(gr_term_get(&term, &access, 2), GR_ERR_DATA);
    gr_error_clear();
    gr_state_case_release(&sc);
}

TEST(state_damaged_term_does_not_stop_a_start)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    gr_state_destroy(gr_state_case_start(&sc, 20));
    gr_state_case_flip("run/term/00000002.json", 30);
    gr_state_case_flip("run/term/00000003.json", 30);
    gr_state_destroy(gr_state_case_start(&sc, 20));
    gr_state_case_release(&sc);
}

/* What term 1 commits after term 3 began stays dead, as the manifests of term 3 tell its base. */
TEST(state_damaged_term_is_known_by_its_manifests)
{
    struct gr_state_case sc;
    struct gr_state *old = NULL, *new = NULL;

    gr_state_case_init(&sc);
    old = gr_state_case_start(&sc, 0);
    ASSERT_OK(gr_state_case_save(old, 10, 0));
    new = gr_state_case_start(&sc, 10);
    ASSERT_OK(gr_state_case_save(new, 20, 0));
    ASSERT(rename("run/term", "run/hidden") == 0);
    ASSERT_OK(gr_state_case_save(old, 30, 0));
    ASSERT(rename("run/hidden", "run/term") == 0);
    gr_state_case_flip("run/term/00000003.json", 30);
    gr_state_destroy(gr_state_case_start(&sc, 20));
    gr_state_destroy(old);
    gr_state_destroy(new);
    gr_state_case_release(&sc);
}

/* ---- whose manifest ------------------------------------------------------------------------- */

TEST(state_manifest_of_another_run_is_refused)
{
    struct gr_state_case sc;
    char other[GR_SHA256_HEX_BYTES];

    gr_state_case_init(&sc);
    gr_sha256_hex(other, "other", 5);
    sc.options.run_hash = other;
    gr_state_case_run_to(&sc, 20);
    ASSERT(rename("run/ckpt/" CK20 ".json", "run/" CK20) == 0);
    ASSERT(rename("run/objects", "run/kept") == 0);
    ASSERT(system("rm -r run/ckpt run/term") == 0);
    sc.options.run_hash = sc.run_hash;
    gr_state_case_run_to(&sc, 10);
    ASSERT(system("mv run/kept/* run/objects") == 0);
    ASSERT(rename("run/" CK20, "run/ckpt/" CK20 ".json") == 0);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    assert_verdict(&sc, CK20, "another run");
    gr_state_case_release(&sc);
}

TEST(state_swapped_manifests_are_refused)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 30);
    ASSERT(system("cd run/ckpt && mv " CK30 ".json x && mv " CK20 ".json " CK30
                  ".json && mv x " CK20 ".json") == 0);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    assert_verdict(&sc, CK30, "not those of its name");
    assert_verdict(&sc, CK20, "not those of its name");
    gr_state_case_release(&sc);
}

TEST(state_swapped_objects_are_refused)
{
    struct gr_state_case sc;
    char *a = NULL, *b = NULL;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    a = gr_state_case_object_path(&sc, CK20, "adapter_model");
    b = gr_state_case_object_path(&sc, CK20, "optimizer");
    ASSERT(rename(a, "run/x") == 0 && rename(b, a) == 0 && rename("run/x", b) == 0);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    gr_free(a);
    gr_free(b);
    gr_state_case_release(&sc);
}

/* Rewrites a manifest with another member and the right hash. */
static void forge(struct gr_state_case *sc, const char *key, const char *member, json_t *value)
{
    struct gr_buffer bytes = {0};
    char hash[GR_SHA256_HEX_BYTES];
    json_t *object = NULL;

    ASSERT_OK(sc->store->ops->get(sc->store, &bytes, key, 0, -1));
    ASSERT_OK(gr_record_open(&object, hash, key, &bytes));
    json_object_set_new(object, member, value);
    gr_record_seal(&bytes, hash, object);
    ASSERT_OK(sc->store->ops->put(sc->store, key, bytes.data, (int64_t)bytes.length));
    json_decref(object);
    gr_buffer_release(&bytes);
}

TEST(state_broken_chain_is_refused)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 30);
    forge(&sc, "ckpt/" CK20 ".json", "epoch", json_integer(7));
    gr_state_destroy(gr_state_case_start(&sc, 20)); /* the forged one is consistent in itself */
    assert_verdict(&sc, CK30, "chain");
    gr_state_case_release(&sc);
}

TEST(state_previous_that_is_damaged_or_gone_breaks_no_chain)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 30);
    gr_state_case_flip("run/ckpt/" CK20 ".json", 40);
    gr_state_destroy(gr_state_case_start(&sc, 30));
    ASSERT(unlink("run/ckpt/" CK20 ".json") == 0);
    gr_state_destroy(gr_state_case_start(&sc, 30));
    ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    gr_state_case_release(&sc);
}

/* ---- two writers ---------------------------------------------------------------------------- */

TEST(state_fenced_writer_saves_nothing)
{
    struct gr_state_case sc;
    struct gr_state *old = NULL, *new = NULL;

    gr_state_case_init(&sc);
    old = gr_state_case_start(&sc, 0);
    ASSERT_OK(gr_state_case_save(old, 10, 0));
    ASSERT_OK(gr_state_check_fence(old));
    new = gr_state_case_start(&sc, 10);
    ASSERT_INT(gr_state_case_save(old, 20, 0), GR_ERR_FENCED);
    gr_error_clear();
    ASSERT_INT(gr_state_case_save(old, 10, 0), GR_ERR_FENCED); /* not even "durable already" */
    gr_error_clear();
    ASSERT_INT(gr_state_check_fence(old), GR_ERR_FENCED);
    gr_error_clear();
    ASSERT_INT(gr_state_collect(old), GR_ERR_FENCED);
    gr_error_clear();
    gr_state_case_keys(&sc, "ckpt/", CK10 ".json ");
    ASSERT_OK(gr_state_case_save(new, 20, 0));
    gr_state_destroy(old);
    gr_state_destroy(new);
    gr_state_case_release(&sc);
}

/* A writer that was asleep between its fence check and its commit: here it never sees the fence. */
TEST(state_late_manifest_of_a_fenced_writer_is_not_live)
{
    struct gr_state_case sc;
    struct gr_state *old = NULL, *new = NULL;

    gr_state_case_init(&sc);
    old = gr_state_case_start(&sc, 0);
    ASSERT_OK(gr_state_case_save(old, 10, 0));
    new = gr_state_case_start(&sc, 10);
    ASSERT(rename("run/term", "run/hidden") == 0);
    ASSERT_OK(gr_state_case_save(old, 20, 0));
    ASSERT_OK(gr_state_case_save(old, 30, 0));
    ASSERT(rename("run/hidden", "run/term") == 0);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    gr_state_destroy(old);
    gr_state_destroy(new);
    gr_state_case_release(&sc);
}

/* The takeover came before the first checkpoint: what the old writer commits then is no reason to
 * refuse a start from the beginning. */
TEST(state_late_manifest_before_any_base_does_not_stop_a_start)
{
    struct gr_state_case sc;
    struct gr_state *old = NULL;

    gr_state_case_init(&sc);
    old = gr_state_case_start(&sc, 0);
    gr_state_destroy(gr_state_case_start(&sc, 0));
    ASSERT(rename("run/term", "run/hidden") == 0);
    ASSERT_OK(gr_state_case_save(old, 10, 0));
    ASSERT(rename("run/hidden", "run/term") == 0);
    gr_state_destroy(gr_state_case_start(&sc, 0));
    gr_state_destroy(old);
    gr_state_case_release(&sc);
}
