/* Promise 3, right loss: the loss of a step is the sum over its supervised tokens divided by their
 * number; packed equals unpacked, accumulated equals one big batch, a trial stacked with others
 * equals the trial alone.  On the golden Llama model, with random documents and dropout off. */
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/base/widen.h"
#include "tests/test.h"
#include "trainer/run/engine.h"

#include <stdlib.h>

enum { DOCUMENTS = 12, LENGTH = 96 };

struct rig {
    struct gr_config config;
    struct gr_comm *comm;
    struct gr_device *dev;
    struct gr_documents documents;
    struct gr_trial trial[3];
    struct gr_engine engine;
};

/* Lengths 5..90; about half of the tokens supervised, in runs. */
static void make_documents(struct gr_documents *documents)
{
    for (uint32_t d = 0; d < DOCUMENTS; d++) {
        uint32_t tokens[LENGTH];
        uint8_t labels[LENGTH];
        int32_t length = 5 + (int32_t)(gr_philox(7, d, 0, 0, 0).word[0] % 86);

        for (uint32_t i = 0; i < (uint32_t)length; i++) {
            tokens[i] = gr_philox(7, d, i, 1, 0).word[0] % 96;
            labels[i] = i / 4 % 2 == 1;
        }
        gr_documents_add(documents, tokens, labels, length, 0);
    }
}

static void set(struct rig *r, const char *assignment)
{
    ASSERT_OK(gr_config_set(&r->config, assignment));
}

static void open_rig(struct rig *r, const char *const *assignments)
{
    memset(r, 0, sizeof *r);
    gr_log_speaks(false);
    gr_config_init(&r->config);
    gr_free(r->config.model);
    r->config.model = gr_format("%s/tests/golden/llama", getenv("GRAFT_SOURCE_DIR"));
    set(r, "data.max_length=96");
    set(r, "lora.r=4");
    set(r, "train.learning_rate=1.0e-2");
    set(r, "train.warmup_ratio=0");
    set(r, "train.max_grad_norm=0");
    for (; *assignments != NULL; assignments++)
        set(r, *assignments);
    ASSERT_OK(gr_comm_create(&r->comm, 10));
    ASSERT_OK(gr_device_create(&r->dev, "cpu", 2, NULL));
    make_documents(&r->documents);
    ASSERT_OK(gr_engine_load_model(&r->engine, &r->config, r->dev, r->comm));
}

/* Trials differ in their seed, 42 and up: other packs, other initial adapters. */
static void prepare(struct rig *r, int trials)
{
    int64_t begin = 0;

    for (int i = 0; i < trials; i++) {
        r->config.train.seed = 42 + i;
        ASSERT_OK(gr_trial_init(&r->trial[i], &r->config, &r->engine.model.config, &r->documents, i,
                                begin));
        begin = r->trial[i].end;
    }
    ASSERT_OK(gr_engine_prepare(&r->engine, r->trial, trials, 0));
    ASSERT_OK(gr_engine_init_adapters(&r->engine));
}

static void step(struct rig *r, struct gr_update *update, int64_t number)
{
    for (int64_t m = 0; m < r->config.train.micro_batches; m++)
        ASSERT_OK(gr_engine_micro_batch(&r->engine, number, m));
    ASSERT_OK(gr_engine_update(&r->engine, update, number));
}

static void close_rig(struct rig *r)
{
    gr_engine_release(&r->engine);
    for (int i = 0; i < 3; i++)
        gr_trial_release(&r->trial[i]);
    gr_documents_release(&r->documents);
    gr_device_destroy(r->dev);
    gr_comm_destroy(r->comm);
    gr_config_release(&r->config);
}

/* Two updates with all documents in each; the adapter of a trial after them. */
struct outcome {
    struct gr_update update;
    float *adapter;
    int64_t elements;
};

static struct outcome train(struct rig *r, int trials, int of)
{
    struct gr_update updates[3];
    struct outcome o = {0};

    prepare(r, trials);
    step(r, updates, 1);
    step(r, updates, 2);
    o.update = updates[of];
    o.elements = r->trial[of].adapter->elements;
    o.adapter = GR_NEW_ARRAY(float, o.elements);
    ASSERT_OK(gr_engine_get_adapter(&r->engine, o.adapter, of));
    return o;
}

static struct outcome train_with(const char *const *assignments, int trials, int of)
{
    struct rig r;
    struct outcome o;

    open_rig(&r, assignments);
    o = train(&r, trials, of);
    close_rig(&r);
    return o;
}

/* AdamW divides by the gradient's own size, so its outcome is compared loosely, the loss closely.
 */
static void expect_equal(const struct outcome *a, const struct outcome *b)
{
    double largest = 0, difference = 0;

    ASSERT_INT(a->elements, b->elements);
    ASSERT_NEAR(a->update.loss, b->update.loss, 1e-5 * a->update.loss);
    ASSERT_NEAR(a->update.grad_norm, b->update.grad_norm, 1e-4 * a->update.grad_norm);
    ASSERT_INT(a->update.supervised, b->update.supervised);
    ASSERT_INT(a->update.tokens, b->update.tokens);
    for (int64_t i = 0; i < a->elements; i++) {
        largest = fmax(largest, fabs((double)a->adapter[i]));
        difference = fmax(difference, fabs((double)a->adapter[i] - (double)b->adapter[i]));
    }
    ASSERT_MSG(difference <= 1e-3 * largest, "adapters differ by %g of %g", difference, largest);
}

/* 12 documents: one pack each, or several in a pack, all in one step. */
static const char *const unpacked[] = {"data.packing=false", "train.micro_batches=12",
                                       "train.max_steps=2", NULL};
static const char *const packed[] = {"train.micro_batches=12", "train.max_steps=2", NULL};
static const char *const one_big[] = {"train.micro_batches=1", "train.micro_batch_size=12",
                                      "train.max_steps=2", NULL};

TEST(engine_packed_equals_unpacked)
{
    struct outcome a = train_with(unpacked, 1, 0), b = train_with(packed, 1, 0);

    expect_equal(&a, &b);
    gr_free(a.adapter);
    gr_free(b.adapter);
}

TEST(engine_accumulated_equals_one_big_batch)
{
    struct outcome a = train_with(packed, 1, 0), b = train_with(one_big, 1, 0);

    expect_equal(&a, &b);
    gr_free(a.adapter);
    gr_free(b.adapter);
}

TEST(engine_stacked_trial_equals_the_trial_alone)
{
    struct outcome alone = train_with(packed, 1, 0), stacked = train_with(packed, 3, 0);
    struct outcome second = train_with(packed, 3, 1), third = train_with(packed, 3, 2);

    expect_equal(&alone, &stacked);
    ASSERT(memcmp(second.adapter, third.adapter, (size_t)second.elements * sizeof(float)) != 0);
    gr_free(alone.adapter);
    gr_free(stacked.adapter);
    gr_free(second.adapter);
    gr_free(third.adapter);
}

/* Not over rows, padded labels, packs or micro-batches: over what is supervised. */
TEST(engine_loss_is_divided_by_the_supervised_tokens)
{
    struct outcome o = train_with(packed, 1, 0);
    struct rig r;
    struct gr_update update;

    open_rig(&r, packed);
    ASSERT_INT(o.update.supervised, r.documents.supervised_count);
    ASSERT_INT(o.update.tokens, r.documents.token_count);
    prepare(&r, 1);
    for (int64_t m = 0; m < 12; m++)
        ASSERT_OK(gr_engine_micro_batch(&r.engine, 1, m));
    ASSERT_OK(gr_engine_update(&r.engine, &update, 1));
    /* B is 0 at first: the loss is the base model's, near log(96) for random documents */
    ASSERT(update.loss > 3 && update.loss < 12);
    ASSERT(o.update.loss < update.loss);
    gr_free(o.adapter);
    close_rig(&r);
}

/* The second step computes with what the first one changed, in bf16 nearly as in f32; the masters,
 * which the run keeps, have more digits than bf16. */
TEST(engine_bf16_computes_with_what_it_updated)
{
    const char *const narrow[] = {"device.dtype=bf16", "train.micro_batches=12",
                                  "train.max_steps=2", NULL};
    struct outcome f32 = train_with(packed, 1, 0), bf16 = train_with(narrow, 1, 0);
    int64_t finer = 0;
    struct rig r;
    struct gr_update first;

    open_rig(&r, narrow);
    prepare(&r, 1);
    step(&r, &first, 1);
    close_rig(&r);
    ASSERT_NEAR(bf16.update.loss, f32.update.loss, 0.1 * (first.loss - f32.update.loss));
    ASSERT(bf16.update.loss != f32.update.loss);
    for (int64_t i = 0; i < bf16.elements; i++)
        finer += gr_float_from_bf16(gr_float_to_bf16(bf16.adapter[i])) != bf16.adapter[i];
    ASSERT_MSG(finer > bf16.elements * 9 / 10, "%" PRId64 " of %" PRId64, finer, bf16.elements);
    gr_free(f32.adapter);
    gr_free(bf16.adapter);
}

TEST(engine_dropout_changes_the_result_and_repeats)
{
    const char *const with[] = {"lora.lora_dropout=0.3", "train.micro_batches=12",
                                "train.max_steps=2", NULL};
    struct outcome without = train_with(packed, 1, 0), a = train_with(with, 1, 0);
    struct outcome b = train_with(with, 1, 0);

    ASSERT(memcmp(a.adapter, b.adapter, (size_t)a.elements * sizeof(float)) == 0);
    ASSERT(memcmp(a.adapter, without.adapter, (size_t)a.elements * sizeof(float)) != 0);
    gr_free(a.adapter);
    gr_free(b.adapter);
    gr_free(without.adapter);
}

TEST(engine_loss_that_is_not_finite_names_step_and_micro_batch)
{
    struct rig r;
    float *values;

    open_rig(&r, packed);
    prepare(&r, 1);
    values = GR_NEW_ARRAY(float, r.trial[0].adapter->elements);
    for (int64_t i = 0; i < r.trial[0].adapter->elements; i++)
        values[i] = 1e30f;
    ASSERT_OK(gr_engine_set_adapter(&r.engine, values, 0));
    ASSERT_INT(gr_engine_micro_batch(&r.engine, 1, 0), GR_ERR_DIVERGED);
    ASSERT_TEXT(gr_error_message(), "train: not finite in step 1, micro-batch 0: loss");
    gr_free(values);
    close_rig(&r);
}
