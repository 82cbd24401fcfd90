/* What the backward computes again, and where it ends: the gradients' bits depend on neither. */
#include "kernels/base/alloc.h"
#include "tests/golden_case.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

/* Gives the pass new memory, full of garbage, in which `amount` is computed again; its bytes. */
static int64_t lay_out(struct gr_golden *g, struct gr_arena *step, int64_t amount)
{
    struct gr_arena measured = {.name = "step"};
    unsigned char *garbage;

    gr_pass_set_recompute(g->pass, amount);
    gr_pass_layout(g->pass, &measured, NULL);
    ASSERT_OK(gr_device_arena_create(g->dev, step, "step", measured.used));
    garbage = gr_alloc(measured.used, 1);
    memset(garbage, 0xff, (size_t)measured.used);
    gr_device_upload(g->dev, gr_tensor_1d(step->base, GR_U8, measured.used), garbage);
    ASSERT_OK(gr_device_sync(g->dev));
    gr_free(garbage);
    gr_pass_layout(g->pass, step, NULL);
    gr_pass_bind(g->pass, &g->gradient);
    return measured.used;
}

static void assert_same(const char *what, int64_t number, const float *found, const float *expected,
                        int64_t count)
{
    double difference = 0;

    for (int64_t i = 0; i < count; i++)
        difference = fmax(difference, fabs((double)found[i] - (double)expected[i]));
    ASSERT_MSG(memcmp(found, expected, (size_t)count * sizeof *found) == 0,
               "%s %lld: the gradient's bits differ, off by %g", what, (long long)number,
               difference);
}

/* The gradient of a whole pass, for the caller to free. */
static float *gradient_of(struct gr_golden *g)
{
    float *gradient = GR_NEW_ARRAY(float, g->adapter->elements);

    gr_pass_begin(g->pass);
    gr_pass_add(g->pass, &g->batch, 0, (struct gr_rng){.seed = 7, .step = 3, .micro_batch = 2});
    gr_pass_upload(g->pass);
    ASSERT_OK(gr_pass_forward(g->pass, true));
    ASSERT_OK(gr_pass_loss(g->pass));
    ASSERT_OK(gr_pass_backward(g->pass));
    gr_device_download(g->dev, gradient, g->gradient);
    ASSERT_OK(gr_device_sync(g->dev));
    return gradient;
}

/* dtype: on the CPU. */
static void open_golden(struct gr_golden *g, const char *name, enum gr_dtype dtype, bool joined)
{
    struct gr_golden_how how = {.threads = 2, .dtype = dtype, .joined = joined};

    if (gr_golden_is_cuda())
        how.dtype = GR_BF16;
    gr_golden_open(g, name, how);
}

/* joined: with weights and adapter in one, without dropout. */
static void check_amounts(const char *name, enum gr_dtype dtype, bool joined)
{
    struct gr_golden g;
    float *kept;

    open_golden(&g, name, dtype, joined);
    g.adapter->config.lora_dropout = joined ? 0 : 0.3;
    gr_pass_bind(g.pass, &g.gradient);
    kept = gradient_of(&g);
    for (int64_t amount = 0; amount <= gr_pass_offload_most(g.pass); amount++) {
        struct gr_arena step = {0};
        float *again;

        lay_out(&g, &step, amount);
        again = gradient_of(&g);
        assert_same(name, amount, again, kept, g.adapter->elements);
        gr_free(again);
        gr_device_arena_release(g.dev, &step);
    }
    gr_free(kept);
    gr_golden_close(&g);
}

TEST(recompute_any_amount_same_bits)
{
    check_amounts("llama", GR_F32, false);
    check_amounts("mistral", GR_BF16, false);
    check_amounts("qwen2", GR_F32, false);
    check_amounts("qwen3", GR_F32, false);
}

TEST(recompute_any_amount_joined_same_bits)
{
    check_amounts("llama", GR_F32, true);
    check_amounts("mistral", GR_BF16, true);
    check_amounts("qwen2", GR_F32, true);
    check_amounts("qwen3", GR_F32, true);
}

/* The first amount of a level also takes the memory that layers share, so that small models gain
 * only where a second layer joins. */
TEST(recompute_any_amount_takes_less_memory)
{
    struct gr_golden g;
    int64_t layers, before = INT64_MAX;

    open_golden(&g, "qwen3", GR_F32, false);
    layers = g.model.config.layers;
    ASSERT(layers > 1);
    for (int64_t amount = 0; amount <= gr_pass_recompute_most(g.pass); amount += layers) {
        struct gr_arena step = {0};
        int64_t bytes = lay_out(&g, &step, amount), redone[GR_STAGE_COUNT], sum = 0;

        gr_pass_count_redone(redone, g.pass);
        for (int i = 0; i < GR_STAGE_COUNT; i++)
            sum += redone[i];
        ASSERT_INT(sum, amount);
        ASSERT_MSG(bytes < before, "%lld bytes with %lld computed again, %lld before",
                   (long long)bytes, (long long)amount, (long long)before);
        before = bytes;
        gr_device_arena_release(g.dev, &step);
    }
    gr_golden_close(&g);
}

static bool is_in_group(const struct gr_lora_matrix *m, int64_t layer, enum gr_group group)
{
    int place = (int)m->module - (int)gr_group_shapes[group].first;

    return m->layer == layer && place >= 0 && place < gr_group_shapes[group].count;
}

/* B <- 0 everywhere else: those adapters do nothing, but gradients pass them. */
static void silence_others(struct gr_golden *g, int64_t layer, enum gr_group group)
{
    float *values = GR_NEW_ARRAY(float, g->adapter->elements);

    gr_device_download(g->dev, values, g->adapter->param);
    ASSERT_OK(gr_device_sync(g->dev));
    for (int64_t i = 0; i < g->adapter->count; i++) {
        const struct gr_lora_matrix *m = &g->adapter->matrix[i];

        for (int64_t k = m->b_begin; k < m->end && !is_in_group(m, layer, group); k++)
            values[k] = 0;
    }
    gr_device_upload(g->dev, g->adapter->param, values);
    ASSERT_OK(gr_device_sync(g->dev));
    gr_free(values);
}

/* The part of the adapter that is on this group: another one over the same memory.  *begin: where
 * that is. */
static struct gr_adapter *adapter_of_group(int64_t *begin, const struct gr_golden *g, int64_t layer,
                                           enum gr_group group)
{
    const struct gr_group_shape *shape = &gr_group_shapes[group];
    int64_t first = layer * GR_MODULE_COUNT + (int64_t)shape->first;
    struct gr_lora_config config = g->adapter->config;
    struct gr_adapter *one;
    char *names = gr_format("%s", gr_module_name(shape->first));

    for (int i = 1; i < shape->count; i++) {
        char *before = names;

        names = gr_format("%s|%s", before, gr_module_name((enum gr_module)((int)shape->first + i)));
        gr_free(before);
    }
    config.target_modules = NULL;
    config.target_count = 0;
    config.target_regex = gr_format("model\\.layers\\.%lld\\.(%s)", (long long)layer, names);
    ASSERT_OK(gr_adapter_create(&one, &g->model.config, &config));
    ASSERT_INT(one->count, shape->count);
    *begin = g->adapter->matrix[g->adapter->place[first]].a_begin;
    one->param = gr_tensor_rows(g->adapter->param, *begin, *begin + one->elements);
    gr_free(config.target_regex);
    gr_free(names);
    return one;
}

/* The backward that ends at an adapter in the last layer leaves there what the backward through all
 * layers does. */
static void check_lowest(enum gr_group group)
{
    struct gr_golden g;
    struct gr_arena step = {0};
    struct gr_adapter *all, *one;
    int64_t begin, last;
    float *through, *ended;

    if (gr_golden_is_cuda())
        SKIP("CUDA computes in bf16");
    open_golden(&g, "qwen2", GR_F32, false);
    last = g.model.config.layers - 1;
    silence_others(&g, last, group);
    through = gradient_of(&g);

    all = g.adapter;
    one = adapter_of_group(&begin, &g, last, group);
    g.adapter = one;
    g.gradient = gr_tensor_rows(g.gradient, 0, one->elements);
    gr_pass_destroy(g.pass);
    g.pass = gr_pass_create(&g.model, g.batch.rows, &g.adapter, 1, true);
    ASSERT(g.pass->lowest.layer == last && g.pass->lowest.group == group);
    lay_out(&g, &step, 0);
    ended = gradient_of(&g);
    assert_same("group", (int64_t)group, ended, through + begin, one->elements);

    gr_device_arena_release(g.dev, &step);
    gr_free(ended);
    gr_free(through);
    gr_adapter_destroy(one);
    g.adapter = all;
    gr_golden_close(&g);
}

TEST(recompute_lowest_adapter_same_gradient)
{
    for (int group = 0; group < GR_GROUP_COUNT; group++)
        check_lowest((enum gr_group)group);
}
