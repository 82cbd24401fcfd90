/* The protocol over a store that loses answers, is down, or must not be read. */
#include "trainer/state/state.h"

#include "kernels/base/alloc.h"
#include "tests/state_case.h"
#include "tests/test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CK10 "000000000010-00000001"

/* The file store behind a table that answers the first `failures` requests of a kind, for keys with
 * `prefix`, with ERR_RETRY; `lost`: after having done what was asked. */
struct flaky {
    struct gr_store base;
    struct gr_store *real;
    const char *prefix;
    int failures, failed;
    bool lost;
};

static gr_status answer(struct flaky *f, const char *key, gr_status status)
{
    if (strncmp(key, f->prefix, strlen(f->prefix)) != 0 || f->failed >= f->failures)
        return status;
    f->failed++;
    gr_error_clear();
    return gr_fail(GR_ERR_RETRY, key, NULL, "no answer");
}

static bool drops(const struct flaky *f, const char *key)
{
    return !f->lost && f->failed < f->failures && strncmp(key, f->prefix, strlen(f->prefix)) == 0;
}

static gr_status flaky_list(struct gr_store *s, struct gr_store_list *list, const char *prefix)
{
    struct gr_store *real = ((struct flaky *)s)->real;

    return real->ops->list(real, list, prefix);
}

static gr_status flaky_get(struct gr_store *s, struct gr_buffer *bytes, const char *key,
                           int64_t offset, int64_t count)
{
    struct flaky *f = (struct flaky *)s;

    return answer(f, key, f->real->ops->get(f->real, bytes, key, offset, count));
}

static gr_status flaky_put(struct gr_store *s, const char *key, const void *bytes, int64_t count)
{
    struct flaky *f = (struct flaky *)s;

    return answer(f, key, drops(f, key) ? GR_OK : f->real->ops->put(f->real, key, bytes, count));
}

/* As S3 does it: a name that is taken is taken, whoever took it. */
static gr_status flaky_put_if_absent(struct gr_store *s, const char *key, const void *bytes,
                                     int64_t count)
{
    struct flaky *f = (struct flaky *)s;
    struct gr_buffer there = {0};
    gr_status status = GR_OK;

    if (!drops(f, key)) {
        status = f->real->ops->get(f->real, &there, key, 0, 1);
        gr_error_clear();
        status = status == GR_OK ? gr_fail(GR_ERR_EXISTS, key, NULL, "taken")
                                 : f->real->ops->put_if_absent(f->real, key, bytes, count);
    }
    gr_buffer_release(&there);
    return answer(f, key, status);
}

static gr_status flaky_remove(struct gr_store *s, const char *key)
{
    struct flaky *f = (struct flaky *)s;

    return f->real->ops->remove(f->real, key);
}

static const struct gr_store_ops flaky_ops = {
    .list = flaky_list,
    .get = flaky_get,
    .put = flaky_put,
    .put_if_absent = flaky_put_if_absent,
    .remove = flaky_remove,
};

static void make_flaky(struct flaky *f, struct gr_state_case *sc)
{
    *f = (struct flaky){.base = {&flaky_ops, "flaky"}, .real = sc->store, .prefix = ""};
}

TEST(faults_lost_answers_are_settled_by_sending_again)
{
    static const char *const prefixes[] = {"objects/", "ckpt/", "term/"};
    struct gr_state_case sc;
    struct flaky flaky;

    gr_state_case_init(&sc);
    make_flaky(&flaky, &sc);
    for (int64_t i = 0; i < 2 * GR_COUNT(prefixes); i++) {
        struct gr_state *state = NULL;
        struct gr_checkpoint found = {0};

        ASSERT(system("rm -rf run/ckpt run/term run/objects") == 0);
        flaky.prefix = prefixes[i / 2];
        flaky.lost = i % 2 == 1;
        flaky.failed = 0;
        flaky.failures = 3;
        ASSERT_OK(gr_state_start(&state, &found, &flaky.base, &sc.options));
        ASSERT_INT(gr_state_term(state), 1);
        ASSERT_OK(gr_state_case_save(state, 10, 0));
        ASSERT_INT(flaky.failed, 3);
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
    struct flaky flaky;

    gr_state_case_init(&sc);
    gr_state_case_run_to(&sc, 20);
    make_flaky(&flaky, &sc);
    flaky.failures = 1000000;
    for (int64_t i = 0; i < GR_COUNT(prefixes); i++) {
        struct gr_state *state = NULL;
        struct gr_checkpoint found = {0};
        double before_s = sc.monotonic_s;

        flaky.prefix = prefixes[i];
        ASSERT_INT(gr_state_start(&state, &found, &flaky.base, &sc.options), GR_ERR_RETRY);
        gr_error_clear();
        ASSERT_NEAR(sc.monotonic_s - before_s, 5.0, 1e-6);
        ASSERT_INT(gr_state_case_count(&sc, "bad/"), 0);
    }
    gr_state_destroy(gr_state_case_start(&sc, 20));
    gr_state_case_release(&sc);
}

TEST(faults_save_with_the_store_down_is_retry_and_leaves_the_last_one)
{
    struct gr_state_case sc;
    struct flaky flaky;
    struct gr_state *state = NULL;
    struct gr_checkpoint found = {0};

    gr_state_case_init(&sc);
    make_flaky(&flaky, &sc);
    ASSERT_OK(gr_state_start(&state, &found, &flaky.base, &sc.options));
    ASSERT_OK(gr_state_case_save(state, 10, 0));
    flaky.failures = 1000000;
    ASSERT_INT(gr_state_case_save(state, 20, 0), GR_ERR_RETRY);
    gr_error_clear();
    flaky.failures = 0;
    ASSERT_OK(gr_state_case_save(state, 30, 0)); /* the store is back */
    gr_state_destroy(state);
    gr_state_destroy(gr_state_case_start(&sc, 30));
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
