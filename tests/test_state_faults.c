/* The protocol when something comes in between: lost answers, torn reads, a store that is down or
 * must not be read, another start or a collector at the worst moment. */
#include "trainer/state/state.h"

#include "kernels/base/alloc.h"
#include "tests/state_case.h"
#include "tests/test.h"
#include "tests/watched_store.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CK10 "000000000010-00000001"
#define CK20 "000000000020-00000001"

/* A start over the watched store. */
static gr_status start(struct gr_state **state, int64_t *step, struct gr_watched_store *w,
                       struct gr_state_case *sc)
{
    struct gr_checkpoint found = {0};
    gr_status status = gr_state_start(state, &found, &w->base, &sc->options);

    *step = found.step;
    gr_checkpoint_release(&found);
    return status;
}

/* Whoever put that one in: what lies between is not asked for, one request after the other. */
TEST(faults_term_far_beyond_the_others_costs_no_requests)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_state_destroy(gr_state_case_start(&sc, 0));
    ASSERT_OK(sc.store->ops->put(sc.store, "term/00800000.json", "{}", 2));
    gr_watched_store_init(&watched, sc.store);
    watched.kind = "get";
    watched.prefix = "term/";
    watched.times = INT64_MAX;
    ASSERT_OK(start(&state, &step, &watched, &sc));
    ASSERT_INT(step, 0);
    ASSERT(watched.seen < 20);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* ---- a store that fails --------------------------------------------------------------------- */

TEST(faults_lost_answers_are_settled_by_sending_again)
{
    static const char *const requests[][2] = {
        {"put", "objects/"}, {"put_if_absent", "ckpt/"}, {"put_if_absent", "term/"},
        {"get", "term/"},    {"list", "ckpt/"},
    };
    struct gr_state_case sc;
    struct gr_watched_store watched;
    int64_t step = 0;

    gr_state_case_init(&sc);
    for (int64_t i = 0; i < 2 * GR_COUNT(requests); i++) {
        struct gr_state *state = NULL;

        ASSERT(system("rm -rf run/ckpt run/term run/objects") == 0);
        gr_watched_store_init(&watched, sc.store);
        watched.kind = requests[i / 2][0];
        watched.prefix = requests[i / 2][1];
        watched.loses = i % 2 == 1;
        watched.drops = i % 2 == 0;
        watched.times = 3;
        ASSERT_OK(start(&state, &step, &watched, &sc));
        ASSERT_INT(gr_state_term(state), 1);
        ASSERT_OK(gr_state_case_save(state, 10, 0));
        ASSERT_INT(watched.seen, 3);
        gr_state_case_keys(&sc, "ckpt/", CK10 ".json ");
        ASSERT_INT(gr_state_case_count(&sc, "term/"), 1);
        ASSERT_INT(gr_state_case_count(&sc, "objects/"), 2);
        gr_state_destroy(state);
        gr_state_destroy(gr_state_case_start(&sc, 10));
    }
    gr_state_case_release(&sc);
}

TEST(faults_store_down_past_the_deadline_is_no_verdict)
{
    static const char *const prefixes[] = {"objects/", "ckpt/", "term/"};
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    for (int64_t i = 0; i < GR_COUNT(prefixes); i++) {
        double before_s = sc.monotonic_s;

        gr_watched_store_init(&watched, sc.store);
        watched.prefix = prefixes[i];
        watched.drops = true;
        watched.times = 1000000;
        ASSERT_INT(start(&state, &step, &watched, &sc), GR_ERR_RETRY);
        gr_error_clear();
        ASSERT_NEAR(sc.monotonic_s - before_s, 5.0, 1e-6);
        ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    }
    gr_state_destroy(gr_state_case_start(&sc, 20));
    gr_state_case_release(&sc);
}

static void let_a_minute_pass(struct gr_watched_store *w)
{
    struct gr_state_case *sc = w->context;

    sc->monotonic_s += 60;
}

/* An upload takes as long as it takes: patience is counted from the first failure on. */
TEST(faults_behind_uploads_longer_than_the_patience_are_tried_again)
{
    struct gr_state_case sc;
    struct gr_watched_store slow, failing;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_watched_store_init(&slow, sc.store);
    slow.kind = "put";
    slow.prefix = "objects/";
    slow.times = 1000000;
    slow.before = let_a_minute_pass;
    slow.context = &sc;
    gr_watched_store_init(&failing, &slow.base);
    ASSERT_OK(start(&state, &step, &failing, &sc));
    failing.kind = "put_if_absent";
    failing.prefix = "ckpt/";
    failing.drops = true;
    failing.times = 3;
    ASSERT_OK(gr_state_case_save(state, 10, 0));
    ASSERT_INT(failing.seen, 3);
    ASSERT(slow.seen > 0);
    gr_state_destroy(state);
    gr_state_destroy(gr_state_case_start(&sc, 10));
    gr_state_case_release(&sc);
}

TEST(faults_save_with_the_store_down_is_retry_and_leaves_the_last_one)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_watched_store_init(&watched, sc.store);
    watched.drops = true;
    ASSERT_OK(start(&state, &step, &watched, &sc));
    ASSERT_OK(gr_state_case_save(state, 10, 0));
    watched.times = 1000000;
    ASSERT_INT(gr_state_case_save(state, 20, 0), GR_ERR_RETRY);
    gr_error_clear();
    watched.times = 0;
    ASSERT_OK(gr_state_case_save(state, 30, 0)); /* the store is back */
    gr_state_destroy(state);
    gr_state_destroy(gr_state_case_start(&sc, 30));
    gr_state_case_release(&sc);
}

TEST(faults_torn_reads_are_no_verdict)
{
    static const char *const prefixes[] = {"objects/", "ckpt/", "term/"};
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    for (int64_t i = 0; i < GR_COUNT(prefixes); i++) {
        gr_watched_store_init(&watched, sc.store);
        watched.kind = "get";
        watched.prefix = prefixes[i];
        watched.tears = true;
        watched.times = 2;
        ASSERT_OK(start(&state, &step, &watched, &sc));
        ASSERT_INT(step, 20);
        ASSERT_INT(watched.seen, 2);
        ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
        gr_state_destroy(state);
    }
    gr_state_case_release(&sc);
}

/* A store that says it has put what it has not. */
static void remove_objects(struct gr_watched_store *w)
{
    (void)w;
    ASSERT(system("rm -r run/objects") == 0);
}

TEST(faults_objects_that_are_not_kept_are_never_committed)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_watched_store_init(&watched, sc.store);
    ASSERT_OK(start(&state, &step, &watched, &sc));
    watched.kind = "list";
    watched.before = remove_objects;
    watched.times = 1;
    ASSERT_INT(gr_state_case_save(state, 10, 0), GR_ERR_RETRY);
    gr_error_clear();
    ASSERT_INT(gr_state_case_count(&sc, "ckpt/"), 0);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(faults_reader_without_permission_reports_it_and_judges_nothing)
{
    struct gr_state_case sc;
    char *path = NULL;
    uid_t user = geteuid();

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 10);
    path = gr_state_case_object_path(&sc, CK10, "optimizer");
    ASSERT(system("chmod -R a+rwX .") == 0 && chmod(path, 0) == 0);
    if (user == 0)
        ASSERT(seteuid(65534) == 0); /* root may read everything */
    gr_state_case_start_fails(&sc, GR_ERR_USAGE, "optimizer");
    ASSERT(seteuid(user) == 0);
    ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    gr_free(path);
    gr_state_case_release(&sc);
}

/* ---- somebody else, at the worst moment ----------------------------------------------------- */

/* Another start takes the place of the one under way, at the last of the watched requests. */
static void take_over(struct gr_watched_store *w)
{
    struct gr_state_case *sc = w->context;
    struct gr_state *other = NULL;
    struct gr_checkpoint found = {0};

    if (w->seen < w->times)
        return;
    ASSERT_OK(gr_state_start(&other, &found, sc->store, &sc->options));
    gr_checkpoint_release(&found);
    gr_state_destroy(other);
}

static void watch_for_takeover(struct gr_watched_store *w, struct gr_state_case *sc,
                               const char *kind, const char *prefix)
{
    w->kind = kind;
    w->prefix = prefix;
    w->before = take_over;
    w->context = sc;
    w->times = 1;
    w->seen = 0;
}

TEST(faults_start_that_loses_the_race_takes_the_next_term)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 10);
    gr_watched_store_init(&watched, sc.store);
    watch_for_takeover(&watched, &sc, "put_if_absent", "term/");
    ASSERT_OK(start(&state, &step, &watched, &sc));
    ASSERT_INT(gr_state_term(state), 5); /* the other took 2 and 3 */
    ASSERT_INT(step, 10);
    watch_for_takeover(&watched, &sc, "put_if_absent", "term/");
    watched.times = 2; /* its own fence stands already */
    gr_state_destroy(state);
    ASSERT_OK(start(&state, &step, &watched, &sc));
    ASSERT_INT(gr_state_term(state), 9); /* 6; the other 7; 8 and 9 */
    ASSERT_OK(gr_state_case_save(state, 20, 0));
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(faults_start_taken_over_while_it_loads_is_fenced)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 10);
    gr_watched_store_init(&watched, sc.store);
    watch_for_takeover(&watched, &sc, "get", "objects/");
    ASSERT_INT(start(&state, &step, &watched, &sc), GR_ERR_FENCED);
    gr_error_clear();
    gr_state_case_release(&sc);
}

/* The old writer saves right before the n-th term of a start over it; the last status is kept. */
struct late_saves {
    struct gr_state *writer;
    int64_t step;
    gr_status status;
};

static void save_late(struct gr_watched_store *w)
{
    struct late_saves *late = w->context;

    late->step += 10;
    late->status = gr_state_case_save(late->writer, late->step, 0);
    gr_error_clear();
}

/* Whatever was called durable is what the start begins from, or before. */
TEST(faults_save_during_a_start_is_resumed_or_not_durable)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    struct late_saves late = {0};
    int64_t step = 0;

    gr_state_case_init(&sc);
    late.writer = gr_state_case_start(&sc, 0);
    gr_watched_store_init(&watched, sc.store);
    watched.kind = "put_if_absent";
    watched.prefix = "term/";
    watched.before = save_late;
    watched.context = &late;
    watched.times = 1; /* before the fence */
    ASSERT_OK(start(&state, &step, &watched, &sc));
    ASSERT_OK(late.status);
    ASSERT_INT(step, 10);
    gr_state_destroy(late.writer);
    late.writer = state;
    watched.times = 3; /* then before the fence and before the term with the base */
    ASSERT_OK(start(&state, &step, &watched, &sc));
    ASSERT_INT(late.status, GR_ERR_FENCED);
    ASSERT_INT(late.step, 30);
    ASSERT_INT(step, 20);
    gr_state_destroy(late.writer);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* Asleep between the fence and the commit: the manifest lands, but nothing is durable. */
TEST(faults_save_taken_over_before_its_commit_is_fenced)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_watched_store_init(&watched, sc.store);
    ASSERT_OK(start(&state, &step, &watched, &sc));
    ASSERT_OK(gr_state_case_save(state, 10, 0));
    watch_for_takeover(&watched, &sc, "put_if_absent", "ckpt/");
    ASSERT_INT(gr_state_case_save(state, 20, 0), GR_ERR_FENCED);
    gr_error_clear();
    gr_state_case_keys(&sc, "ckpt/", CK10 ".json " CK20 ".json ");
    gr_state_destroy(gr_state_case_start(&sc, 10));
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

TEST(faults_save_taken_over_while_it_uploads_commits_nothing)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_watched_store_init(&watched, sc.store);
    ASSERT_OK(start(&state, &step, &watched, &sc));
    watch_for_takeover(&watched, &sc, "put", "objects/");
    ASSERT_INT(gr_state_case_save(state, 10, 0), GR_ERR_FENCED);
    gr_error_clear();
    ASSERT_INT(gr_state_case_count(&sc, "ckpt/"), 0);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* Two writers of one term, which only a store without a put-if-absent makes: the name is taken. */
TEST(faults_manifest_of_another_writer_in_the_place_of_ours_is_fenced)
{
    struct gr_state_case sc;
    struct gr_state *state = NULL;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 10);
    ASSERT(rename("run/ckpt", "run/hidden") == 0 && system("rm -r run/term") == 0);
    state = gr_state_case_start(&sc, 0);
    ASSERT(rename("run/hidden", "run/ckpt") == 0);
    ASSERT_INT(gr_state_case_save(state, 10, 0), GR_ERR_FENCED);
    gr_error_clear();
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}

/* As a collector does that a start overtakes: the manifest first, then the data. */
static void collect_newest(struct gr_watched_store *w)
{
    ASSERT_OK(w->real->ops->remove(w->real, "ckpt/" CK20 ".json"));
    ASSERT(system("rm -r run/objects/" CK20 "*") == 0);
}

TEST(faults_checkpoint_collected_while_it_loads_gets_no_verdict)
{
    struct gr_state_case sc;
    struct gr_watched_store watched;
    struct gr_state *state = NULL;
    int64_t step = 0;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    gr_watched_store_init(&watched, sc.store);
    watched.kind = "get";
    watched.prefix = "objects/";
    watched.before = collect_newest;
    watched.times = 1;
    ASSERT_OK(start(&state, &step, &watched, &sc));
    ASSERT_INT(step, 10);
    ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    gr_state_destroy(state);
    gr_state_case_release(&sc);
}
