/* The saver: snapshots come back as they were, two buffers, skipped saves, failures on the thread.
 */
#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "kernels/base/log.h"
#include "tests/files.h"
#include "tests/test.h"
#include "trainer/run/saver.h"

static const struct gr_model_config model = {.model_type = "llama",
                                             .vocab_size = 32,
                                             .hidden_size = 12,
                                             .intermediate_size = 20,
                                             .layers = 2,
                                             .heads = 3,
                                             .kv_heads = 1,
                                             .head_dim = 4};

struct rig {
    struct gr_store *store;
    struct gr_state *state;
    struct gr_events *events;
    struct gr_adapter *adapter;
    struct gr_saver *saver;
    struct gr_checkpoint found;
};

static void open_rig(struct rig *r)
{
    struct gr_state_options options = {.run_hash = "0123456789abcdef0123456789abcdef"
                                                   "0123456789abcdef0123456789abcdef",
                                       .kind = "cpu",
                                       .host = "here",
                                       .pid = 1,
                                       .world_size = 1,
                                       .save_total_limit = 3,
                                       .patience_s = 0.2,
                                       .clock = gr_state_real_clock()};
    struct gr_lora_config lora = {.r = 2, .lora_alpha = 4, .target_regex = gr_strdup("all-linear")};

    memset(r, 0, sizeof *r);
    gr_log_speaks(false);
    ASSERT_OK(gr_store_open(&r->store, "run"));
    ASSERT_OK(gr_state_start(&r->state, &r->found, r->store, &options));
    ASSERT_OK(gr_events_create(&r->events));
    ASSERT_OK(gr_adapter_create(&r->adapter, &model, &lora));
    ASSERT_OK(gr_saver_create(&r->saver, r->state, r->events, r->adapter, "base"));
    gr_lora_config_release(&lora);
}

static void close_rig(struct rig *r)
{
    gr_saver_destroy(r->saver);
    gr_state_destroy(r->state);
    gr_events_destroy(r->events);
    gr_adapter_destroy(r->adapter);
    gr_checkpoint_release(&r->found);
    gr_store_close(r->store);
}

static void fill(struct gr_snapshot *s, int64_t step)
{
    s->step = step;
    s->epoch = 1;
    s->epoch_first_step = 1;
    for (int64_t i = 0; i < s->elements; i++) {
        s->param[i] = (float)(step * 1000 + i);
        s->moment1[i] = -(float)i;
        s->moment2[i] = (float)i * 1e-9f;
    }
}

static void save(struct rig *r, int64_t step)
{
    struct gr_snapshot *s = gr_saver_take(r->saver, true);

    ASSERT(s != NULL);
    fill(s, step);
    gr_saver_submit(r->saver, s);
}

TEST(saver_snapshot_comes_back_as_it_was)
{
    struct rig r;
    struct gr_snapshot expected, found;

    gr_test_enter_folder();
    open_rig(&r);
    for (int64_t step = 1; step <= 5; step++)
        save(&r, step);
    ASSERT_OK(gr_saver_drain(r.saver));
    close_rig(&r);
    open_rig(&r);
    ASSERT_INT(r.found.step, 5);
    gr_snapshot_init(&expected, r.adapter->elements);
    gr_snapshot_init(&found, r.adapter->elements);
    fill(&expected, 5);
    ASSERT_OK(gr_snapshot_unpack(&found, &r.found, r.adapter));
    ASSERT_INT(found.epoch, 1);
    ASSERT_INT(found.epoch_first_step, 1);
    ASSERT(memcmp(found.param, expected.param, (size_t)found.elements * 4) == 0);
    ASSERT(memcmp(found.moment1, expected.moment1, (size_t)found.elements * 4) == 0);
    ASSERT(memcmp(found.moment2, expected.moment2, (size_t)found.elements * 4) == 0);
    gr_snapshot_release(&expected);
    gr_snapshot_release(&found);
    close_rig(&r);
}

/* Both buffers, filled as after steps 1 and 2. */
static void take_both(struct rig *r, struct gr_snapshot **a, struct gr_snapshot **b)
{
    *a = gr_saver_take(r->saver, false);
    *b = gr_saver_take(r->saver, false);
    ASSERT(*a != NULL && *b != NULL && *a != *b);
    fill(*a, 1);
    fill(*b, 2);
}

TEST(saver_skips_when_both_buffers_are_in_use)
{
    struct rig r;
    struct gr_snapshot *a, *b;

    gr_test_enter_folder();
    open_rig(&r);
    take_both(&r, &a, &b);
    ASSERT(gr_saver_take(r.saver, false) == NULL);
    gr_saver_submit(r.saver, a);
    gr_saver_submit(r.saver, b);
    ASSERT_OK(gr_saver_drain(r.saver));
    ASSERT(gr_saver_take(r.saver, false) != NULL);
    close_rig(&r);
}

TEST(saver_given_back_snapshot_is_not_saved)
{
    struct rig r;
    struct gr_snapshot *a, *b;

    gr_test_enter_folder();
    open_rig(&r);
    take_both(&r, &a, &b);
    gr_saver_submit(r.saver, a);
    gr_saver_give_back(r.saver, b);
    ASSERT_OK(gr_saver_drain(r.saver));
    ASSERT(gr_saver_take(r.saver, false) != NULL && gr_saver_take(r.saver, false) != NULL);
    close_rig(&r);
    open_rig(&r);
    ASSERT_INT(r.found.step, 1);
    close_rig(&r);
}

TEST(saver_failure_reaches_the_loop_with_its_message)
{
    struct rig r;

    gr_test_enter_folder();
    open_rig(&r);
    ASSERT_OK(gr_failpoints_init("manifest.before@*:0:fail", 0));
    save(&r, 1);
    ASSERT_INT(gr_saver_drain(r.saver), GR_ERR_RETRY);
    ASSERT(strstr(gr_error_message(), "manifest.before") != NULL);
    gr_error_clear();
    ASSERT_INT(gr_saver_status(r.saver), GR_ERR_RETRY);
    save(&r, 2); /* nothing more is written, and nothing hangs */
    ASSERT_INT(gr_saver_drain(r.saver), GR_ERR_RETRY);
    close_rig(&r);
    ASSERT_OK(gr_failpoints_init(NULL, 0));
    gr_error_clear();
    open_rig(&r);
    ASSERT_INT(r.found.step, 0);
    close_rig(&r);
}
