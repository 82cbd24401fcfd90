/* Garbage collection, pins and what the commands ask, on a real disk. */
#include "trainer/state/state.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/state_case.h"
#include "tests/test.h"
#include "tests/watched_store.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CK10 "000000000010-00000001"
#define CK20 "000000000020-00000001"
#define CK30 "000000000030-00000001"
#define CK40 "000000000040-00000001"
#define CK50 "000000000050-00000001"
#define CK60 "000000000060-00000001"

/* Objects belong to exactly these checkpoints, two each, and these alone have manifests. */
static void assert_kept(struct gr_state_case *sc, const char *const *names, int64_t count)
{
    ASSERT_INT(gr_state_case_count(sc, "ckpt/"), count);
    ASSERT_INT(gr_state_case_count(sc, "objects/"), 2 * count);
    for (int64_t i = 0; i < count; i++) {
        char *manifest = gr_format("ckpt/%s.json", names[i]);
        char *objects = gr_format("objects/%s-", names[i]);

        ASSERT_MSG(gr_state_case_has(sc, manifest), "%s is gone", manifest);
        ASSERT_INT(gr_state_case_count(sc, objects), 2);
        gr_free(manifest);
        gr_free(objects);
    }
}
#define ASSERT_KEPT(sc, ...)                                                                       \
    do {                                                                                           \
        const char *const names_[] = {__VA_ARGS__};                                                \
        assert_kept(sc, names_, GR_COUNT(names_));                                                 \
    } while (0)

static struct gr_state *start_and_save(struct gr_state_case *sc, int64_t last, int64_t best_step)
{
    struct gr_state *state = gr_state_case_start(sc, 0);

    for (int64_t step = 10; step <= last; step += 10)
        ASSERT_OK(gr_state_case_save(state, step, step < best_step ? 0 : best_step));
    return state;
}

/* ---- what stays ----------------------------------------------------------------------------- */

TEST(collect_keeps_the_newest_three)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_and_save(&sc, 30, 0);
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK10, CK20, CK30);
    ASSERT_OK(gr_state_case_save(state, 40, 0));
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK20, CK30, CK40);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(collect_keeps_as_many_as_the_limit_says)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    sc.options.save_total_limit = 5;
    state = start_and_save(&sc, 60, 0);
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK20, CK30, CK40, CK50, CK60);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(collect_keeps_best_and_pinned)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_and_save(&sc, 60, 20);
    ASSERT_OK(gr_state_pin(sc.store, CK10));
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK10, CK20, CK40, CK50, CK60);
    ASSERT_OK(gr_state_unpin(sc.store, CK10));
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK20, CK40, CK50, CK60);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* A resume that must fall back still finds the best it then knows. */
TEST(collect_keeps_the_best_of_all_it_keeps)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = gr_state_case_start(&sc, 0);
    for (int64_t step = 10; step <= 60; step += 10)
        ASSERT_OK(gr_state_case_save(state, step, step < 50 ? 10 : 50));
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK10, CK40, CK50, CK60);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(collect_after_a_resume_keeps_base_and_best)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    gr_state_destroy(start_and_save(&sc, 20, 10));
    state = gr_state_case_start(&sc, 20);
    ASSERT_OK(gr_state_collect(state)); /* before the first save: it knows the best from the base */
    ASSERT_KEPT(&sc, CK10, CK20);
    for (int64_t step = 30; step <= 60; step += 10)
        ASSERT_OK(gr_state_case_save(state, step, 10));
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK10, CK20, "000000000040-00000003", "000000000050-00000003",
                "000000000060-00000003");
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(collect_does_not_count_bad_ones)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_and_save(&sc, 50, 0);
    ASSERT(mkdir("run/bad", 0777) == 0);
    gr_test_write_text("run/bad/" CK30 ".json", "this is a verdict too");
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK20, CK40, CK50);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* As large as a sparse file can be: what is no manifest is not read whole. */
TEST(collect_takes_a_manifest_of_a_terabyte)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_and_save(&sc, 50, 0);
    ASSERT(truncate("run/ckpt/" CK10 ".json", INT64_C(1) << 40) == 0);
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK30, CK40, CK50);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(collect_takes_what_is_dead)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;
    char *path = NULL;

    gr_state_case_init(&sc);
    gr_state_destroy(start_and_save(&sc, 50, 0));
    path = gr_state_case_object_path(&sc, CK50, "optimizer");
    gr_state_case_flip(path, 0);
    state = gr_state_case_start(&sc, 40);
    ASSERT(gr_state_case_has(&sc, "bad/" CK50 ".json"));
    ASSERT_OK(gr_state_collect(state)); /* 50 is beyond the base of term 2 */
    ASSERT_KEPT(&sc, CK20, CK30, CK40);
    ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    gr_free(path);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* ---- orphans -------------------------------------------------------------------------------- */

TEST(collect_takes_orphans_of_its_own_term_at_once)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_and_save(&sc, 30, 0);
    ASSERT(unlink("run/ckpt/" CK20 ".json") == 0); /* as a collector that died leaves it */
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK10, CK30);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(collect_takes_orphans_of_earlier_terms_after_a_day)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    gr_state_destroy(start_and_save(&sc, 30, 0));
    ASSERT(unlink("run/ckpt/" CK20 ".json") == 0);
    sc.unix_s += 30 * 3600;
    state = gr_state_case_start(&sc, 30); /* term 1 ended now, however long ago it wrote that */
    ASSERT_OK(gr_state_collect(state));
    ASSERT_INT(gr_state_case_count(&sc, "objects/" CK20), 2);
    sc.unix_s += 24 * 3600 - 1;
    ASSERT_OK(gr_state_collect(state));
    ASSERT_INT(gr_state_case_count(&sc, "objects/" CK20), 2);
    sc.unix_s += 2;
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK10, CK30);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* Steps 10 to 40 are saved through the watched store, in which something happens before the first
 * request of this kind for 10's manifest. */
static struct gr_state *start_watched(struct gr_watched_store *w, struct gr_state_case *sc,
                                      const char *kind, void (*before)(struct gr_watched_store *w))
{
    struct gr_state *state = NULL;
    struct gr_checkpoint found = {0};

    gr_watched_store_init(w, sc->store);
    ASSERT_OK(gr_state_start(&state, &found, &w->base, &sc->options));
    for (int64_t step = 10; step <= 40; step += 10)
        ASSERT_OK(gr_state_case_save(state, step, 0));
    w->kind = kind;
    w->prefix = "ckpt/" CK10 ".json";
    w->before = before;
    w->context = sc;
    w->times = 1;
    return state;
}

/* ---- pins ----------------------------------------------------------------------------------- */

static void pin_the_first(struct gr_watched_store *w)
{
    ASSERT_OK(gr_state_pin(w->real, CK10));
}

TEST(collect_never_touches_a_pinned_one)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_watched(&watched, &sc, "remove", NULL);
    ASSERT_OK(gr_state_pin(sc.store, CK10));
    ASSERT_OK(gr_state_collect(state));
    ASSERT_INT(watched.seen, 0);
    ASSERT_KEPT(&sc, CK10, CK20, CK30, CK40);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* The pin sees its manifest, then the collector deletes that: it must come back. */
TEST(collect_pin_that_comes_while_it_deletes_wins)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_watched(&watched, &sc, "remove", pin_the_first);
    ASSERT_OK(gr_state_collect(state));
    ASSERT_INT(watched.seen, 1);
    ASSERT_KEPT(&sc, CK10, CK20, CK30, CK40);
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK10, CK20, CK30, CK40);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(collect_pinned_without_manifest_gets_it_back)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_and_save(&sc, 40, 0);
    ASSERT_OK(gr_state_pin(sc.store, CK10));
    ASSERT(unlink("run/ckpt/" CK10 ".json") == 0); /* the collector died right then */
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK10, CK20, CK30, CK40);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(pin_of_a_missing_checkpoint_fails_and_leaves_none)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 10);
    ASSERT_INT(gr_state_pin(sc.store, CK20), GR_ERR_NOT_FOUND);
    ASSERT(strstr(gr_error_message(), CK20) != NULL);
    gr_error_clear();
    ASSERT_INT(gr_state_case_count(&sc, "pin/"), 0);
    gr_state_case_release(&sc);
}

static void remove_manifest(struct gr_watched_store *w)
{
    ASSERT_OK(w->real->ops->remove(w->real, "ckpt/" CK10 ".json"));
}

/* The manifest goes between the pin's look and its second look. */
TEST(pin_of_a_checkpoint_that_goes_meanwhile_is_taken_back)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 10);
    gr_watched_store_init(&watched, sc.store);
    watched.kind = "put";
    watched.before = remove_manifest;
    watched.times = 1;
    ASSERT_INT(gr_state_pin(&watched.base, CK10), GR_ERR_NOT_FOUND);
    gr_error_clear();
    ASSERT_INT(watched.seen, 1);
    ASSERT_INT(gr_state_case_count(&sc, "pin/"), 0);
    gr_state_case_release(&sc);
}

/* As a late put leaves it that brings a collected manifest back. */
TEST(pin_of_a_checkpoint_without_data_is_taken_back)
{
    struct gr_state_case sc;
    char *path = NULL;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 10);
    path = gr_state_case_object_path(&sc, CK10, "adapter_model");
    ASSERT(unlink(path) == 0);
    ASSERT_INT(gr_state_pin(sc.store, CK10), GR_ERR_NOT_FOUND);
    ASSERT(strstr(gr_error_message(), "adapter_model") != NULL);
    gr_error_clear();
    ASSERT_INT(gr_state_case_count(&sc, "pin/"), 0);
    gr_free(path);
    gr_state_case_release(&sc);
}

TEST(collect_pinned_without_data_stays_without_manifest)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_and_save(&sc, 40, 0);
    ASSERT_OK(gr_state_pin(sc.store, CK10));
    ASSERT(unlink("run/ckpt/" CK10 ".json") == 0);
    ASSERT(system("rm -r run/objects/" CK10 "*") == 0);
    ASSERT_OK(gr_state_collect(state));
    ASSERT_KEPT(&sc, CK20, CK30, CK40);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* ---- a collector that is fenced while it works ------------------------------------------------
 */

static void take_over(struct gr_watched_store *w)
{
    gr_state_destroy(gr_state_case_start(w->context, 40));
}

TEST(collect_fenced_before_the_data_deletes_none)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_watched(&watched, &sc, "remove", take_over);
    ASSERT_INT(gr_state_collect(state), GR_ERR_FENCED);
    gr_error_clear();
    ASSERT_INT(gr_state_case_count(&sc, "objects/"), 8);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(collect_fenced_before_the_manifest_deletes_nothing)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    state = start_watched(&watched, &sc, "get", take_over);
    ASSERT_INT(gr_state_collect(state), GR_ERR_FENCED);
    gr_error_clear();
    ASSERT_INT(watched.seen, 1);
    ASSERT_KEPT(&sc, CK10, CK20, CK30, CK40);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* ---- commands ------------------------------------------------------------------------------- */

TEST(list_tells_what_each_checkpoint_is)
{
    struct gr_state_case sc;
    struct gr_checkpoint_rows rows;
    char *path = NULL;

    gr_state_case_init(&sc);
    gr_state_destroy(start_and_save(&sc, 30, 20));
    path = gr_state_case_object_path(&sc, CK30, "optimizer");
    gr_state_case_flip(path, 0);
    gr_state_destroy(gr_state_case_start(&sc, 20));
    ASSERT_OK(gr_state_pin(sc.store, CK10));
    ASSERT_OK(gr_state_list(&rows, sc.store));
    ASSERT_INT(rows.count, 3);
    ASSERT_TEXT(rows.row[0].name, CK30);
    ASSERT(!rows.row[0].is_live && !rows.row[0].is_best && !rows.row[0].is_pinned);
    ASSERT(rows.row[0].bad != NULL && strstr(rows.row[0].bad, "SHA-256") != NULL);
    ASSERT(rows.row[1].is_live && rows.row[1].is_best && rows.row[1].bad == NULL);
    ASSERT(rows.row[2].is_live && !rows.row[2].is_best && rows.row[2].is_pinned);
    ASSERT_INT(rows.row[2].bytes, 600);
    ASSERT_INT(rows.row[2].term, 1);
    ASSERT_NEAR(rows.row[2].unix_s, sc.unix_s, 0.5);
    gr_checkpoint_rows_release(&rows);
    gr_free(path);
    gr_state_case_release(&sc);
}

TEST(verify_finds_damage_and_writes_nothing)
{
    struct gr_state_case sc;
    struct gr_checkpoint_rows rows;
    char *path = NULL;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 30);
    path = gr_state_case_object_path(&sc, CK20, "optimizer");
    gr_state_case_flip(path, 0);
    gr_state_case_flip("run/ckpt/" CK10 ".json", 50);
    ASSERT_OK(gr_state_verify(&rows, sc.store));
    ASSERT_INT(rows.count, 3);
    ASSERT(rows.row[0].bad == NULL);
    ASSERT(rows.row[1].bad != NULL && strstr(rows.row[1].bad, "optimizer") != NULL);
    ASSERT(rows.row[2].bad != NULL && strstr(rows.row[2].bad, "ckpt/" CK10) != NULL);
    ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    gr_checkpoint_rows_release(&rows);
    gr_free(path);
    gr_state_case_release(&sc);
}

TEST(find_takes_steps_and_names)
{
    struct gr_state_case sc;
    char name[GR_CHECKPOINT_NAME_BYTES];

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    ASSERT_OK(gr_state_find(name, sc.store, "20"));
    ASSERT_TEXT(name, CK20);
    sc.options.fresh = true;
    gr_state_destroy(gr_state_case_start(&sc, 0));
    ASSERT_INT(gr_state_find(name, sc.store, "20"), GR_ERR_NOT_FOUND); /* superseded */
    gr_error_clear();
    ASSERT_OK(gr_state_find(name, sc.store, CK10));
    ASSERT_TEXT(name, CK10);
    ASSERT_INT(gr_state_find(name, sc.store, "15"), GR_ERR_NOT_FOUND);
    gr_error_clear();
    ASSERT_INT(gr_state_find(name, sc.store, CK30), GR_ERR_NOT_FOUND);
    gr_error_clear();
    ASSERT_INT(gr_state_find(name, sc.store, "newest"), GR_ERR_USAGE);
    gr_error_clear();
    gr_state_case_release(&sc);
}

TEST(load_gives_one_checkpoint_or_the_reason)
{
    struct gr_state_case sc;
    struct gr_checkpoint c;
    char *path = NULL;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    ASSERT_OK(gr_state_load(&c, sc.store, CK10));
    ASSERT_INT(c.step, 10);
    ASSERT_INT(gr_checkpoint_object(&c, "optimizer.safetensors")->length, 300);
    ASSERT(gr_checkpoint_object(&c, "optimizer") == NULL);
    gr_checkpoint_release(&c);
    path = gr_state_case_object_path(&sc, CK10, "optimizer");
    ASSERT(unlink(path) == 0);
    ASSERT_INT(gr_state_load(&c, sc.store, CK10), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "missing") != NULL);
    gr_error_clear();
    ASSERT_INT(gr_state_load(&c, sc.store, CK30), GR_ERR_NOT_FOUND);
    gr_error_clear();
    gr_free(path);
    gr_state_case_release(&sc);
}

static void assert_stays(struct gr_state_case *sc, const char *name, const char *words)
{
    ASSERT_INT(gr_state_remove(sc->store, name), GR_ERR_USAGE);
    ASSERT_MSG(strstr(gr_error_message(), words) != NULL, "message \"%s\"", gr_error_message());
    gr_error_clear();
}

TEST(remove_refuses_the_newest_three_best_and_pinned)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    sc.options.save_total_limit = 10;
    gr_state_destroy(start_and_save(&sc, 60, 20));
    ASSERT_OK(gr_state_pin(sc.store, CK10));
    assert_stays(&sc, CK60, "newest");
    assert_stays(&sc, CK40, "newest");
    assert_stays(&sc, CK20, "the best");
    assert_stays(&sc, CK10, "pinned");
    ASSERT_KEPT(&sc, CK10, CK20, CK30, CK40, CK50, CK60);
    ASSERT_OK(gr_state_remove(sc.store, CK30));
    ASSERT_KEPT(&sc, CK10, CK20, CK40, CK50, CK60);
    ASSERT_INT(gr_state_remove(sc.store, CK30), GR_ERR_NOT_FOUND);
    gr_error_clear();
    gr_state_case_release(&sc);
}

TEST(remove_takes_a_bad_one)
{
    struct gr_state_case sc;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 40);
    gr_state_case_flip("run/ckpt/" CK40 ".json", 60);
    gr_state_destroy(gr_state_case_start(&sc, 30));
    ASSERT_OK(gr_state_remove(sc.store, CK40));
    ASSERT_KEPT(&sc, CK10, CK20, CK30);
    ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    gr_state_case_release(&sc);
}
