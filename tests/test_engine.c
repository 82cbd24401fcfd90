/* Promise 3, right loss: the loss of a step is the sum over its supervised tokens divided by their
 * number; packed equals unpacked, accumulated equals one big batch, a trial stacked with others
 * equals the trial alone.  On the golden Llama model, with random documents and dropout off. */
#include "kernels/base/alloc.h"
#include "kernels/base/widen.h"
#include "tests/engine_rig.h"
#include "tests/test.h"

#include <stdio.h>

/* Two updates with all documents in each; the adapter of a trial after them. */
struct outcome {
    struct gr_update update;
    float *adapter;
    int64_t elements;
};

static struct outcome train(struct engine_rig *r, int trials, int of)
{
    struct gr_update updates[3];
    struct outcome o = {0};

    engine_rig_prepare(r, trials);
    engine_rig_step(r, updates, 1);
    engine_rig_step(r, updates, 2);
    o.update = updates[of];
    o.elements = r->trial[of].adapter->elements;
    o.adapter = GR_NEW_ARRAY(float, o.elements);
    ASSERT_OK(gr_engine_get_adapter(&r->engine, o.adapter, of));
    return o;
}

static struct outcome train_with(const char *const *assignments, int trials, int of)
{
    struct engine_rig r;
    struct outcome o;

    engine_rig_open(&r, "cpu", assignments);
    o = train(&r, trials, of);
    engine_rig_close(&r);
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
    struct engine_rig r;
    struct gr_update update;

    engine_rig_open(&r, "cpu", packed);
    ASSERT_INT(o.update.supervised, r.documents.supervised_count);
    ASSERT_INT(o.update.tokens, r.documents.token_count);
    engine_rig_prepare(&r, 1);
    engine_rig_step(&r, &update, 1);
    /* B is 0 at first: the loss is the base model's, near log(96) for random documents */
    ASSERT(update.loss > 3 && update.loss < 12);
    ASSERT(o.update.loss < update.loss);
    gr_free(o.adapter);
    engine_rig_close(&r);
}

/* The second step computes with what the first one changed, in bf16 nearly as in f32; the masters,
 * which the run keeps, have more digits than bf16. */
TEST(engine_bf16_computes_with_what_it_updated)
{
    const char *const narrow[] = {"device.dtype=bf16", "train.micro_batches=12",
                                  "train.max_steps=2", NULL};
    struct outcome f32 = train_with(packed, 1, 0), bf16 = train_with(narrow, 1, 0);
    int64_t finer = 0;
    struct engine_rig r;
    struct gr_update first;

    engine_rig_open(&r, "cpu", narrow);
    engine_rig_prepare(&r, 1);
    engine_rig_step(&r, &first, 1);
    engine_rig_close(&r);
    ASSERT_NEAR(bf16.update.loss, f32.update.loss, 0.1 * (first.loss - f32.update.loss));
    ASSERT(bf16.update.loss != f32.update.loss);
    for (int64_t i = 0; i < bf16.elements; i++)
        finer += gr_float_from_bf16(gr_float_to_bf16(bf16.adapter[i])) != bf16.adapter[i];
    ASSERT_MSG(finer > bf16.elements * 9 / 10, "%" PRId64 " of %" PRId64, finer, bf16.elements);
    gr_free(f32.adapter);
    gr_free(bf16.adapter);
}

/* What the first update moves each element of an adapter by. */
static float *first_move(const char *const *assignments, struct engine_rig *r)
{
    struct gr_update update;
    float *before, *after;

    engine_rig_open(r, "cpu", assignments);
    engine_rig_prepare(r, 1);
    before = GR_NEW_ARRAY(float, r->trial[0].adapter->elements);
    after = GR_NEW_ARRAY(float, r->trial[0].adapter->elements);
    ASSERT_OK(gr_engine_get_adapter(&r->engine, before, 0));
    engine_rig_step(r, &update, 1);
    ASSERT_OK(gr_engine_get_adapter(&r->engine, after, 0));
    for (int64_t i = 0; i < r->trial[0].adapter->elements; i++)
        after[i] -= before[i];
    gr_free(before);
    return after;
}

/* LoRA+: with AdamW's first step, whose size is the rate's, every element of B moves 8 times as
 * far, every element of A as far as ever. */
TEST(engine_loraplus_moves_b_by_its_ratio_and_a_as_before)
{
    static const char *const one[] = {"lora.init_lora_weights=false", "train.weight_decay=0",
                                      "train.micro_batches=12", "train.max_steps=2", NULL};
    static const char *const eight[] = {"lora.init_lora_weights=false", "train.weight_decay=0",
                                        "train.micro_batches=12",       "train.max_steps=2",
                                        "lora.loraplus_lr_ratio=8",     NULL};
    struct engine_rig r;
    float *as_ever = first_move(one, &r), *plus;
    int64_t moved = 0;

    engine_rig_close(&r);
    plus = first_move(eight, &r);
    for (int64_t m = 0; m < r.trial[0].adapter->count; m++) {
        const struct gr_lora_matrix *matrix = &r.trial[0].adapter->matrix[m];

        for (int64_t i = matrix->a_begin; i < matrix->end; i++) {
            ASSERT_NEAR(plus[i], (i < matrix->b_begin ? 1 : 8) * (double)as_ever[i], 1e-6);
            moved += fabsf(as_ever[i]) > 0.9e-2f;
        }
    }
    ASSERT_MSG(moved > r.trial[0].adapter->elements / 2, "hardly anything moved");
    engine_rig_close(&r);
    gr_free(as_ever);
    gr_free(plus);
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

/* All elements of the adapter are 1e30. */
TEST(engine_loss_that_is_not_finite_names_step_and_micro_batch)
{
    struct engine_rig r;
    struct gr_update update;
    float *values;

    engine_rig_open(&r, "cpu", packed);
    engine_rig_prepare(&r, 1);
    values = GR_NEW_ARRAY(float, r.trial[0].adapter->elements);
    for (int64_t i = 0; i < r.trial[0].adapter->elements; i++)
        values[i] = 1e30f;
    ASSERT_OK(gr_engine_set_adapter(&r.engine, values, 0));
    engine_rig_compute(&r, 1);
    ASSERT_INT(gr_engine_update(&r.engine, &update, 1), GR_ERR_DIVERGED);
    ASSERT_TEXT(gr_error_message(), "train: not finite in step 1, micro-batch 0: loss");
    gr_free(values);
    engine_rig_close(&r);
}

/* With that B: of how many micro-batches is the gradient not finite; *which is the last. */
static int count_bad(struct engine_rig *r, float size, int64_t *which)
{
    int64_t elements = r->trial[0].adapter->elements;
    float *gradient = GR_NEW_ARRAY(float, elements);
    struct gr_update update;
    int bad = 0;

    engine_rig_set_b_of_v(r, size, 0);
    for (int64_t m = 0; m < r->config.train.micro_batches; m++) {
        int64_t finite = 0;

        ASSERT_OK(gr_engine_micro_batch(&r->engine, 1, m));
        gr_device_download(r->dev, gradient, r->engine.gradient[0]);
        ASSERT_OK(gr_device_sync(r->dev));
        for (int64_t i = 0; i < elements; i++)
            finite += isfinite(gradient[i]);
        if (finite < elements) {
            bad++;
            *which = m;
        }
    }
    gr_engine_update(&r->engine, &update, 1);
    gr_error_clear();
    gr_free(gradient);
    return bad;
}

/* The largest B, to a thousandth, with at most `most` of them. */
static float largest_with(struct engine_rig *r, int most, int64_t *which)
{
    float fits = 0x1p80f, does_not = 0x1p127f;

    ASSERT_INT(count_bad(r, fits, which), 0);
    ASSERT(count_bad(r, does_not, which) > most);
    while (does_not / fits > 1.001f) {
        float middle = sqrtf(fits) * sqrtf(does_not);

        *(count_bad(r, middle, which) > most ? &does_not : &fits) = middle;
    }
    ASSERT_INT(count_bad(r, fits, which), most);
    return fits;
}

/* The update by what has that B fails, and changes nothing. */
static void expect_refusal(struct engine_rig *r, float size, const char *message)
{
    int64_t bytes = 3 * r->trial[0].adapter->elements * (int64_t)sizeof(float);
    struct gr_update update;
    float *before, *after;

    engine_rig_set_b_of_v(r, size, 0);
    before = engine_rig_state(r, 0);
    engine_rig_compute(r, 1);
    ASSERT_INT(gr_engine_update(&r->engine, &update, 1), GR_ERR_DIVERGED);
    ASSERT_TEXT(gr_error_message(), message);
    gr_error_clear();
    after = engine_rig_state(r, 0);
    ASSERT(memcmp(before, after, (size_t)bytes) == 0);
    gr_free(before);
    gr_free(after);
}

TEST(engine_gradient_that_is_not_finite_is_named_and_changes_nothing)
{
    static const char *const each[] = {"data.packing=false", "train.micro_batches=12",
                                       "train.max_steps=2", NULL};
    struct engine_rig r;
    int64_t which = 0;
    char expected[128];
    float size;

    engine_rig_open(&r, "cpu", each);
    engine_rig_prepare(&r, 1);
    size = largest_with(&r, 1, &which);
    ASSERT_MSG(which > 0, "the first one is no proof");
    snprintf(expected, sizeof expected,
             "train: not finite in step 1, micro-batch %lld: gradient of "
             "model.layers.0.self_attn.v_proj",
             (long long)which);
    expect_refusal(&r, size, expected);
    engine_rig_close(&r);
}

/* Two micro-batches that are alike: each gradient is finite, not their sum. */
TEST(engine_sum_that_is_not_finite_is_told_and_changes_nothing)
{
    static const char *const two[] = {"data.packing=false", "train.micro_batches=2",
                                      "train.max_steps=1", NULL};
    static const uint32_t tokens[] = {3, 1, 4, 1, 5, 9, 2, 6};
    static const uint8_t labels[] = {0, 0, 0, 0, 1, 1, 1, 1};
    struct engine_rig r;
    int64_t which;

    engine_rig_open(&r, "cpu", two);
    gr_documents_release(&r.documents);
    for (int i = 0; i < 2; i++)
        gr_documents_add(&r.documents, tokens, labels, GR_COUNT(tokens), 0);
    engine_rig_prepare(&r, 1);
    expect_refusal(&r, largest_with(&r, 0, &which),
                   "train: not finite in step 1: the sum of the gradients (found inf, expected a "
                   "finite norm)");
    engine_rig_close(&r);
}
