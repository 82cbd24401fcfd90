/* A training step on the emulated GPU: the host waits once, takes no memory and reads once,
 * whatever the micro-batches, also where products are chosen by time, which the rehearsal does for
 * all of them; and what is not finite changes nothing.  Alone, and with the doubles of NCCL and of
 * cuDNN, whose plans are made before the first step. */
#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"
#include "kernels/peers.h"
#include "tests/cuda/counter.h"
#include "tests/engine_rig.h"
#include "tests/files.h"
#include "tests/ranks.h"
#include "tests/test.h"

#include <stdlib.h>

/* What the emulated plug-in exports. */
static struct counter emu;
static bool has_folder;

static void open_rig(struct engine_rig *r, int trials, const char *const *assignments)
{
    engine_rig_open(r, "cuda", assignments);
    emu = counter_of_plugin();
    if (!has_folder) /* without forks, cases have one folder */
        gr_test_enter_folder();
    has_folder = true;
    gr_device_set_cache(r->dev, "cache");
    engine_rig_prepare(r, trials);
    ASSERT_OK(gr_engine_rehearse(&r->engine));
    gr_device_settle_choices(r->dev);
}

/* For the caller to release. */
static struct gr_buffer choices_of(const struct engine_rig *r)
{
    struct gr_buffer text = {0};

    gr_device_get_choices(r->dev, &text);
    return text;
}

/* Named are forward and backward of what this rank computes, exchange and update. */
static int64_t named_ranges(const struct engine_rig *r, int64_t missing)
{
    int64_t micro_batches = r->config.train.micro_batches;
    int size = gr_comm_size(r->comm), rank = gr_comm_rank(r->comm);
    int64_t begin = gr_tree_block_begin(micro_batches, size, rank);
    int64_t end = gr_tree_block_begin(micro_batches, size, rank + 1),
            last = micro_batches - missing;

    end = end < last ? end : last;
    return 2 * (end > begin ? end - begin : 0) + 2;
}

static void assert_step(int64_t waits, int64_t step)
{
    struct emu_host host = emu.host();
    const char *wanted = getenv("GRAFT_ATTENTION");
    int64_t reads = 0, by_cudnn = 0;

    for (int64_t i = 0; i < emu.counted(); i++) {
        reads += strcmp(emu.operation(i).name, "copy to the host") == 0;
        by_cudnn += strcmp(emu.operation(i).name, "cudnnBackendExecute") == 0;
    }
    ASSERT_MSG((by_cudnn > 0) == (wanted != NULL && strcmp(wanted, "cudnn") == 0),
               "step %d: attention by cuDNN %d times", (int)step, (int)by_cudnn);
    ASSERT_MSG(host.waits == waits && host.allocations == 0 && reads == 1,
               "step %d: %d waits, %d reads, %d allocations, expected %d, 1 and 0", (int)step,
               (int)host.waits, (int)reads, (int)host.allocations, (int)waits);
}

/* Of the third step so many micro-batches are missing.  Returns how many sizes the micro-batches'
 * lists of labelled rows had. */
static int check_steps(int trials, int64_t missing, const char *const *assignments)
{
    struct engine_rig r;
    struct gr_update update[ENGINE_RIG_TRIALS];
    struct gr_buffer before, after;
    uint64_t sizes = 0;

    open_rig(&r, trials, assignments);
    before = choices_of(&r);
    for (int64_t step = 1; step <= 3; step++) {
        emu.count(1);
        engine_rig_step(&r, update, step);
        assert_step(1, step);
        ASSERT_INT(emu.host().ranges, named_ranges(&r, step == 3 ? missing : 0));
        ASSERT_INT(emu.host().open, 0);
        sizes |= UINT64_C(1) << r.engine.pass->label_count / 64;
    }
    after = choices_of(&r);
    ASSERT_TEXT(after.data, before.data);
    gr_buffer_release(&before);
    gr_buffer_release(&after);
    engine_rig_close(&r);
    return __builtin_popcountll(sizes);
}

/* One document each. */
static const char *const usual[] = {"device.dtype=bf16",     "train.micro_batches=4",
                                    "data.packing=false",    "train.max_steps=3",
                                    "train.max_grad_norm=1", NULL};

TEST(cuda_step_waits_once)
{
    check_steps(1, 0, usual);
}

TEST(cuda_step_of_several_trials_waits_once)
{
    check_steps(3, 0, usual);
}

/* Several documents each: how many labels a micro-batch has is known when it comes, and its last
 * size is seen of each step. */
TEST(cuda_step_with_other_rows_of_labels_waits_once)
{
    static const char *const several[] = {"device.dtype=bf16",        "train.micro_batches=3",
                                          "data.packing=false",       "train.max_steps=3",
                                          "train.micro_batch_size=4", NULL};

    /* a rank that computes a few of them may see but one */
    ASSERT(check_steps(1, 0, several) > 1 || gr_comm_size(ranks_join()) > 1);
}

/* The third step of the epoch has only two of its five. */
TEST(cuda_step_with_missing_micro_batches_waits_once)
{
    static const char *const few[] = {"device.dtype=bf16",  "train.micro_batches=5",
                                      "data.packing=false", "lora.lora_dropout=0.1",
                                      "train.max_steps=3",  NULL};

    check_steps(1, 3, few);
}

TEST(cuda_step_with_another_wait_is_noticed)
{
    struct engine_rig r;
    struct gr_update update;

    open_rig(&r, 1, usual);
    emu.count(1);
    engine_rig_compute(&r, 1);
    ASSERT_OK(gr_device_sync(r.dev));
    ASSERT_OK(gr_engine_update(&r.engine, &update, 1));
    assert_step(2, 1);
    engine_rig_close(&r);
}

/* Of two trials one: the other goes on. */
TEST(cuda_step_that_is_not_finite_changes_nothing)
{
    static const char *const large[] = {"device.dtype=bf16", "train.micro_batches=5",
                                        "train.max_steps=3", "lora.lora_alpha=1000000", NULL};
    struct engine_rig r;
    struct gr_update update[2];
    float *state[2][2];

    open_rig(&r, 2, large);
    engine_rig_set_b_of_v(&r, 1e-3f, 0);
    engine_rig_set_b_of_v(&r, 1e36f, 1);
    for (int after = 0; after < 2; after++) {
        for (int i = 0; i < 2; i++)
            state[after][i] = engine_rig_state(&r, i);
        if (after == 1)
            break;
        engine_rig_compute(&r, 1);
        ASSERT_INT(gr_engine_update(&r.engine, update, 1), GR_ERR_DIVERGED);
        ASSERT_TEXT(gr_error_message(), "train: not finite in step 1, micro-batch 0: gradient of "
                                        "model.layers.0.self_attn.v_proj");
        gr_error_clear();
    }
    for (int i = 0; i < 2; i++) {
        int64_t bytes = 3 * r.trial[i].adapter->elements * (int64_t)sizeof(float);

        ASSERT_INT(memcmp(state[0][i], state[1][i], (size_t)bytes) == 0, i == 1);
        gr_free(state[0][i]);
        gr_free(state[1][i]);
    }
    engine_rig_close(&r);
}
