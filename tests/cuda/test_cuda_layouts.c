/* Weights and adapter joined or composed, on the emulated CUDA backend: what is launched, where the
 * updated adapter goes, what memory it takes, what is generated.  Logits and gradients of both
 * layouts: test_model_golden, test_recompute; training: test_cuda_steps. */
#include "kernels/base/alloc.h"
#include "kernels/base/widen.h"
#include "tests/cuda/counter.h"
#include "tests/cuda/layout.h"
#include "tests/golden_case.h"
#include "tests/test.h"
#include "trainer/run/generate.h"

/* ---- what is launched ---- */

/* Of the plug-in, which a device has opened. */
static struct counter start_counting(void)
{
    struct counter c = counter_of_plugin();

    c.count(1);
    return c;
}

/* Operations whose name contains the word. */
static int64_t count_of(const struct counter *c, const char *word)
{
    int64_t count = 0;

    for (int64_t i = 0; i < c->counted(); i++)
        count += strstr(c->operation(i).name, word) != NULL;
    return count;
}

/* Matrix products of a forward and a backward of the golden Llama, whose linears are all adapted.
 */
static int64_t products(int64_t *layers, bool joined)
{
    struct gr_golden g;
    struct counter c;
    int64_t count;

    gr_golden_open(&g, "llama",
                   (struct gr_golden_how){.threads = 1, .dtype = GR_BF16, .joined = joined});
    c = start_counting();
    gr_pass_begin(g.pass);
    gr_pass_add(g.pass, &g.batch, 0, (struct gr_rng){0});
    gr_pass_upload(g.pass);
    ASSERT_OK(gr_pass_forward(g.pass, true));
    ASSERT_OK(gr_pass_loss(g.pass));
    ASSERT_OK(gr_pass_backward(g.pass));
    ASSERT_OK(gr_device_sync(g.dev));
    count = count_of(&c, "cublasLtMatmul");
    *layers = g.model.config.layers;
    gr_golden_close(&g);
    return count;
}

/* Joined, a group is two products forward, S and y, and three backward, dS, dA and dx; dB is one
 * for each linear.  Composed, each linear's adapter adds one to y and one to dx. */
TEST(layouts_joined_adapter_is_no_product_of_its_own)
{
    enum { HEAD = 2 /* logits and dh */ };
    int64_t linears = GR_MODULE_COUNT, groups = GR_GROUP_COUNT, layers;
    int64_t joined = products(&layers, true), composed = products(&layers, false);

    ASSERT_INT(joined, HEAD + layers * (5 * groups + linears) - 1); /* no dx below the lowest */
    ASSERT_MSG(composed >= joined + layers * 2 * linears - GR_LINEARS_MOST,
               "%" PRId64 " products composed, %" PRId64 " joined", composed, joined);
}

/* ---- where the updated adapter goes ---- */

static void assert_rounded(struct gr_device *dev, const char *what, gr_tensor found,
                           const float *param)
{
    int64_t count = gr_tensor_count(found);
    uint16_t *values = GR_NEW_ARRAY(uint16_t, count);

    gr_device_download(dev, values, found);
    ASSERT_OK(gr_device_sync(dev));
    for (int64_t i = 0; i < count; i++)
        ASSERT_MSG(values[i] == gr_float_to_bf16(param[i]), "%s, element %" PRId64, what, i);
    gr_free(values);
}

/* A and B are in the matrices what the masters are, rounded. */
static void assert_refreshed(struct engine_rig *e)
{
    const struct gr_adapter *adapter = e->trial[0].adapter;
    float *param = GR_NEW_ARRAY(float, adapter->elements);

    ASSERT_OK(gr_engine_get_adapter(&e->engine, param, 0));
    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *m = &adapter->matrix[i];
        struct gr_joined_parts parts =
            gr_joined_weights_parts(&e->engine.model.joined, m->layer, m->module);
        char name[64];

        gr_lora_matrix_name(name, m);
        assert_rounded(e->dev, name, parts.a, param + m->a_begin);
        assert_rounded(e->dev, name, parts.b, param + m->b_begin);
    }
    gr_free(param);
}

TEST(layouts_joined_adapter_is_written_in_one_launch)
{
    static const char *const keys[OPEN_KEYS] = {"train.max_steps=2",
                                                "lora.rank_pattern={k_proj: 3}"};
    struct engine_rig e;
    struct gr_update update;
    struct counter c;

    choose_layout(true);
    open_model(&e, "cuda", "qwen2", keys);
    engine_rig_prepare(&e, 1);
    ASSERT(e.engine.is_joined && gr_tensor_is_none(e.engine.copy));
    assert_refreshed(&e);
    ASSERT_OK(gr_engine_micro_batch(&e.engine, 1, 0));
    ASSERT_OK(gr_device_sync(e.dev)); /* a backward copies, too */
    c = start_counting();
    ASSERT_OK(gr_engine_update(&e.engine, &update, 1));
    ASSERT_INT(count_of(&c, "copy_all"), 1);
    assert_refreshed(&e);
    engine_rig_close(&e);
}

/* Several trials, dropout, and who wants it so: weights and adapters stay apart. */
static void assert_apart(const char *key, int trials)
{
    const char *const keys[OPEN_KEYS] = {key};
    struct engine_rig e;
    struct gr_update update[ENGINE_RIG_TRIALS];

    open_model(&e, "cuda", "llama", keys);
    engine_rig_prepare(&e, trials);
    ASSERT(!e.engine.is_joined && !gr_tensor_is_none(e.engine.copy));
    engine_rig_step(&e, update, 1);
    ASSERT(update[0].grad_norm > 0);
    engine_rig_close(&e);
}

TEST(layouts_what_is_not_joined)
{
    choose_layout(true);
    assert_apart("train.max_steps=2", 2);
    assert_apart("lora.lora_dropout=0.1", 1);
    choose_layout(false);
    assert_apart("train.max_steps=2", 1);
}

TEST(layouts_unknown_layout_is_refused)
{
    struct engine_rig e;

    setenv("GRAFT_LORA_LAYOUT", "both", 1);
    open_model(&e, "cuda", "llama", (const char *const[OPEN_KEYS]){0});
    ASSERT_INT(gr_engine_prepare_eval(&e.engine, NULL, 64), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(),
                "GRAFT_LORA_LAYOUT: unknown layout (found both, expected composed)");
    engine_rig_close(&e);
}

/* ---- memory ---- */

/* What graft estimate says is what train takes, but for the gaps between tensors. */
static void check_plan(bool joined)
{
    static const char *const keys[OPEN_KEYS];
    enum { TENSORS = 64 /* of the weights, at most */ };
    struct engine_rig e;
    struct gr_engine planned;
    struct gr_memory_plan plan = {0};
    struct gr_trial trial;
    int64_t gaps;

    choose_layout(joined);
    open_model(&e, "cuda", "llama", keys);
    engine_rig_prepare(&e, 1);
    ASSERT_OK(gr_engine_examine_model(&planned, &plan, &e.config, e.dev, e.comm, false));
    ASSERT_OK(gr_trial_init(&trial, &e.config, &planned.model.config, &e.documents, 0, 0));
    ASSERT_OK(gr_engine_plan(&planned, &plan, &trial, 1, 0, 1));
    ASSERT_INT(plan.state_bytes, e.engine.state.used);
    ASSERT(plan.step_bytes >= e.engine.step.used); /* with the tables of RoPE */
    gaps = e.engine.fixed.used - plan.weight_bytes - (plan.step_bytes - e.engine.step.used);
    ASSERT_MSG(gaps >= 0 && gaps < TENSORS * GR_ARENA_ALIGN, "%" PRId64 " bytes of gaps", gaps);
    gr_engine_release(&planned);
    gr_trial_release(&trial);
    engine_rig_close(&e);
}

TEST(layouts_plan_is_what_is_taken)
{
    check_plan(true);
    check_plan(false);
}

/* ---- generation ---- */

/* The logits behind a prompt and behind one token more, for the caller to free. */
static float *extend(struct gr_engine *e, struct gr_adapter *adapter, const float *values,
                     bool base_only, int64_t *count)
{
    static const int32_t ids[] = {5, 17, 3, 90, 41, 8, 66};
    int64_t prompt = GR_COUNT(ids) - 1, vocab = e->model.config.vocab_size;
    float *logits = GR_NEW_ARRAY(float, 2 * vocab);

    ASSERT_OK(gr_engine_prepare_generate(e, adapter, prompt, prompt + 1));
    ASSERT_OK(gr_engine_set_adapter(e, values, 0));
    ASSERT_OK(gr_generate_extend(e, logits, ids, prompt, base_only));
    ASSERT_OK(gr_generate_extend(e, logits + vocab, &ids[prompt], 1, base_only));
    *count = 2 * vocab;
    return logits;
}

static const char *const with_b[OPEN_KEYS] = {"lora.init_lora_weights=false", "train.max_steps=1"};

/* Of an engine that has only generated; values: NULL for those before step 1. */
static float *generate(const float *values, bool joined, bool base_only, int64_t *count)
{
    struct engine_rig e;
    struct gr_lora_config lora = {0};
    struct gr_adapter *adapter = NULL;
    float *initial, *logits;

    choose_layout(joined);
    open_model(&e, "cuda", "qwen3", with_b);
    gr_lora_config_from(&lora, &e.config);
    ASSERT_OK(gr_adapter_create(&adapter, &e.engine.model.config, &lora));
    initial = GR_NEW_ARRAY(float, adapter->elements);
    gr_adapter_init_values(initial, adapter, 1);
    logits = extend(&e.engine, adapter, values == NULL ? initial : values, base_only, count);
    ASSERT_INT(e.engine.is_joined, joined);
    engine_rig_close(&e);
    gr_adapter_destroy(adapter);
    gr_lora_config_release(&lora);
    gr_free(initial);
    return logits;
}

/* max |a - b| / max |a| */
static double distance(const float *a, const float *b, int64_t count)
{
    double apart = 0, largest = 0;

    for (int64_t i = 0; i < count; i++) {
        apart = fmax(apart, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)a[i]));
    }
    return apart / largest;
}

TEST(layouts_generate_the_same_logits)
{
    int64_t count;
    float *joined = generate(NULL, true, false, &count);
    float *composed = generate(NULL, false, false, &count);
    float *base = generate(NULL, true, true, &count), *alone = generate(NULL, false, true, &count);
    double same = distance(joined, composed, count), same_base = distance(base, alone, count);
    double apart = distance(joined, base, count);

    printf("logits apart: %.1e, of the base %.1e; adapter and base %.1e\n", same, same_base, apart);
    ASSERT_MSG(same < 2e-2 && same_base < 2e-2 && apart > 0.2, "%g, %g, %g", same, same_base,
               apart);
    gr_free(joined);
    gr_free(composed);
    gr_free(base);
    gr_free(alone);
}

/* For the samples of the report: the weights stay where they are, with the place for the adapter.
 */
TEST(layouts_generate_after_training)
{
    struct engine_rig e;
    struct gr_update update;
    float *values, *after, *alone;
    int64_t count;

    choose_layout(true);
    open_model(&e, "cuda", "qwen3", with_b);
    engine_rig_prepare(&e, 1);
    engine_rig_step(&e, &update, 1);
    values = GR_NEW_ARRAY(float, e.trial[0].adapter->elements);
    ASSERT_OK(gr_engine_get_adapter(&e.engine, values, 0));
    gr_engine_retire(&e.engine);
    after = extend(&e.engine, e.trial[0].adapter, values, false, &count);
    ASSERT(e.engine.is_joined);
    alone = generate(values, true, false, &count);
    ASSERT_MSG(distance(after, alone, count) == 0, "%g", distance(after, alone, count));
    gr_free(values);
    gr_free(after);
    gr_free(alone);
    engine_rig_close(&e);
}
