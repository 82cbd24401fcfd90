/* Loading and running a golden case.  See golden_case.h. */
#include "tests/golden_case.h"

#include "kernels/base/alloc.h"
#include "tests/test.h"

#include <stdlib.h>

static const void *truth_of(const struct gr_golden *g, const char *name, int64_t *count)
{
    const struct gr_safetensors_entry *entry = gr_safetensors_find(&g->truth, name);

    ASSERT_MSG(entry != NULL, "%s has no tensor %s", g->truth.path, name);
    *count = 1;
    for (int i = 0; i < entry->ndim; i++)
        *count *= entry->dim[i];
    return gr_safetensors_data(&g->truth, entry);
}

/* The pack as the loader would lay it out. */
static void make_batch(struct gr_golden *g)
{
    struct gr_batch *b = &g->batch;
    int64_t tokens, docs, count;
    const int32_t *ids = truth_of(g, "ids", &tokens);
    const int32_t *places = truth_of(g, "docs", &docs);
    const uint8_t *labels = truth_of(g, "labels", &count);

    b->rows = gr_round_up_rows(tokens);
    b->ids = GR_NEW_ARRAY(int32_t, b->rows);
    b->positions = GR_NEW_ARRAY(int32_t, b->rows);
    b->docs = GR_NEW_ARRAY(int32_t, docs);
    b->label_rows = GR_NEW_ARRAY(int32_t, b->rows);
    b->targets = GR_NEW_ARRAY(int32_t, b->rows);
    b->doc_count = docs / 2;
    for (int64_t i = 0; i < b->rows; i++) {
        b->ids[i] = i < tokens ? ids[i] : -1;
        b->label_rows[i] = -1;
    }
    memcpy(b->docs, places, (size_t)docs * sizeof *b->docs);
    for (int64_t d = 0; d < b->doc_count; d++) {
        for (int32_t row = places[2 * d]; row < places[2 * d + 1]; row++) {
            b->positions[row] = row - places[2 * d];
            if (labels[row]) {
                b->label_rows[b->label_count] = row - 1;
                b->targets[b->label_count++] = ids[row];
            }
        }
    }
    b->label_padded = gr_round_up_rows(b->label_count);
}

static void make_rope_tables(struct gr_golden *g)
{
    int64_t half = g->model.config.head_dim / 2;
    float *table = GR_NEW_ARRAY(float, 2 * g->batch.rows * half);
    int64_t bytes = 2 * g->batch.rows * half * (int64_t)sizeof(float) + 2 * GR_ARENA_ALIGN;

    ASSERT_OK(gr_device_arena_create(g->dev, &g->fixed, "weights", bytes));
    g->model.cos = gr_arena_tensor_2d(&g->fixed, GR_F32, g->batch.rows, half);
    g->model.sin = gr_arena_tensor_2d(&g->fixed, GR_F32, g->batch.rows, half);
    gr_rope_table(table, table + g->batch.rows * half, &g->model.config, g->batch.rows);
    gr_device_upload(g->dev, g->model.cos, table);
    gr_device_upload(g->dev, g->model.sin, table + g->batch.rows * half);
    ASSERT_OK(gr_device_sync(g->dev));
    gr_free(table);
}

/* The device's own copies, of weights that are joined or lie in other memory than the host's. */
static void place_weights(struct gr_golden *g, bool joined)
{
    struct gr_arena measured = {.name = "weights"};

    if (joined)
        gr_joined_weights_init(&g->model.joined, &g->model.config, &g->adapter, 1);
    for (int round = 0; round < 2 && (joined || !gr_device_uses_host_memory(g->dev)); round++) {
        struct gr_arena *arena = round == 0 ? &measured : &g->weights;

        if (round == 1)
            ASSERT_OK(gr_device_arena_create(g->dev, &g->weights, "weights", measured.used));
        gr_joined_weights_layout(&g->model.joined, g->model.dtype, arena);
        gr_weights_layout(&g->model.weights, &g->model.config, &g->model.joined, g->dev, arena);
    }
    ASSERT_OK(gr_device_sync(g->dev));
}

static void make_pass(struct gr_golden *g, const char *adapter_dir)
{
    struct gr_arena measured = {.name = "step"};
    int64_t elements = g->adapter->elements;
    float *values = GR_NEW_ARRAY(float, elements);

    g->pass = gr_pass_create(&g->model, g->batch.rows, &g->adapter, 1, true);
    for (int round = 0; round < 2; round++) {
        struct gr_arena *arena = round == 0 ? &measured : &g->step;

        if (round == 1)
            ASSERT_OK(gr_device_arena_create(g->dev, &g->step, "step", measured.used));
        g->adapter->param = gr_arena_tensor_1d(arena, GR_F32, elements);
        if (g->model.dtype != GR_F32 && !g->pass->is_joined)
            g->adapter->copy = gr_arena_tensor_1d(arena, g->model.dtype, elements);
        g->gradient = gr_arena_tensor_1d(arena, GR_F32, elements);
        gr_pass_layout(g->pass, arena, NULL);
    }
    ASSERT_OK(gr_peft_read_weights(values, g->adapter, adapter_dir));
    gr_device_upload(g->dev, g->adapter->param, values);
    if (!gr_tensor_is_none(g->adapter->copy))
        gr_copy(g->dev, g->adapter->copy, g->adapter->param);
    if (g->pass->is_joined) {
        gr_joined_weights_bind(&g->model.joined, g->adapter);
        gr_joined_weights_refresh(&g->model.joined, g->dev);
    }
    ASSERT_OK(gr_device_sync(g->dev));
    gr_pass_bind(g->pass, &g->gradient);
    gr_free(values);
}

bool gr_golden_is_cuda(void)
{
    const char *device = getenv("GRAFT_TEST_DEVICE");

    return device != NULL && strcmp(device, "cuda") == 0;
}

void gr_golden_open(struct gr_golden *g, const char *name, struct gr_golden_how how)
{
    bool is_cuda = gr_golden_is_cuda();
    char *dir = gr_format("%s/tests/golden/%s", getenv("GRAFT_SOURCE_DIR"), name);
    char *truth = gr_format("%s/golden.safetensors", dir), *adapter = gr_format("%s/adapter", dir);
    struct gr_weight_sharing alone = {.dtype = how.dtype,
                                      .local_size = 1,
                                      .job_key = "golden",
                                      .threads = how.threads,
                                      .timeout_s = 10};
    struct gr_lora_config lora = {0};
    char hash[65];

    memset(g, 0, sizeof *g);
    ASSERT_OK(gr_safetensors_open(&g->truth, truth));
    ASSERT_OK(gr_device_create(&g->dev, is_cuda ? "cuda" : "cpu", how.threads,
                               is_cuda ? NULL : getenv("GRAFT_ISA")));
    g->model.dev = g->dev;
    g->model.dtype = how.dtype;
    ASSERT_OK(gr_model_config_load(&g->model.config, dir));
    ASSERT_OK(gr_weights_load(&g->model.weights, hash, &g->model.config, dir, &alone));
    ASSERT_OK(gr_weights_share(&g->model.weights, &g->model.config, &alone));
    ASSERT_OK(gr_peft_read_config(&lora, adapter));
    ASSERT_OK(gr_adapter_create(&g->adapter, &g->model.config, &lora));
    g->bf16_ratio = GR_NEW_ARRAY(double, 2 * g->adapter->count);
    make_batch(g);
    make_rope_tables(g);
    place_weights(g, how.joined);
    make_pass(g, adapter);
    gr_lora_config_release(&lora);
    gr_free(dir);
    gr_free(truth);
    gr_free(adapter);
}

/* max |found - truth| / max |truth| */
static double relative_error(const float *found, const double *truth, int64_t count)
{
    double difference = 0, largest = 0;

    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)found[i] - truth[i]);

        difference = d > difference || isnan(d) ? d : difference;
        largest = fabs(truth[i]) > largest ? fabs(truth[i]) : largest;
    }
    return largest == 0 ? difference : difference / largest;
}

/* ||found - truth|| / ||truth|| */
static double norm_error(const float *found, const double *truth, int64_t count)
{
    double difference = 0, norm = 0;

    for (int64_t i = 0; i < count; i++) {
        difference += ((double)found[i] - truth[i]) * ((double)found[i] - truth[i]);
        norm += truth[i] * truth[i];
    }
    return sqrt(difference / norm);
}

static void compare_logits(struct gr_golden *g)
{
    int64_t vocab = g->model.config.vocab_size, count;
    const double *truth = truth_of(g, "logits", &count);
    float *found = GR_NEW_ARRAY(float, vocab);
    struct gr_arena arena = {0};
    double largest = 0;

    for (int64_t i = 0; i < count; i++)
        largest = fabs(truth[i]) > largest ? fabs(truth[i]) : largest;
    ASSERT_INT(count, g->batch.label_count * vocab);
    ASSERT_OK(gr_device_arena_create(g->dev, &arena, "logits", vocab * (int64_t)sizeof(float)));
    for (int64_t i = 0; i < g->batch.label_count; i++) {
        double row_largest = 0, error;

        gr_head_logits(g->dev, gr_tensor_2d(arena.base, GR_F32, 1, vocab), g->pass->h_final,
                       g->model.weights.head, gr_tensor_rows(g->pass->in.label_rows, i, i + 1));
        gr_device_download(g->dev, found, gr_tensor_2d(arena.base, GR_F32, 1, vocab));
        ASSERT_OK(gr_device_sync(g->dev));
        for (int64_t v = 0; v < vocab; v++)
            row_largest = fmax(row_largest, fabs(truth[i * vocab + v]));
        error = relative_error(found, truth + i * vocab, vocab) * row_largest / largest;
        g->logits_error = error > g->logits_error || isnan(error) ? error : g->logits_error;
    }
    gr_device_arena_release(g->dev, &arena);
    gr_free(found);
}

static void compare_gradients(struct gr_golden *g)
{
    float *found = GR_NEW_ARRAY(float, g->adapter->elements);

    gr_device_download(g->dev, found, g->gradient);
    ASSERT_OK(gr_device_sync(g->dev));
    for (int64_t i = 0; i < 2 * g->adapter->count; i++) {
        const struct gr_lora_matrix *m = &g->adapter->matrix[i / 2];
        int64_t begin = i % 2 == 0 ? m->a_begin : m->b_begin, count;
        char name[64], key[160], bf16_key[180];
        const double *truth;
        double error;
        int64_t one;

        gr_lora_matrix_name(name, m);
        snprintf(key, sizeof key, "grad.base_model.model.%s.lora_%c.weight", name,
                 i % 2 == 0 ? 'A' : 'B');
        truth = truth_of(g, key, &count);
        ASSERT_INT(count, i % 2 == 0 ? m->r * m->in : m->out * m->r);
        snprintf(bf16_key, sizeof bf16_key, "bf16_error.%s", key);
        g->bf16_ratio[i] =
            norm_error(found + begin, truth, count) / *(const double *)truth_of(g, bf16_key, &one);
        error = relative_error(found + begin, truth, count);
        if (error >= g->gradient_error || isnan(error)) {
            g->gradient_error = error;
            snprintf(g->worst_gradient, sizeof g->worst_gradient, "%s", key);
        }
    }
    gr_free(found);
}

void gr_golden_run(struct gr_golden *g)
{
    int64_t count;
    const double *truth = truth_of(g, "loss", &count);
    double loss = 0;

    gr_pass_begin(g->pass);
    gr_pass_add(g->pass, &g->batch, 0, (struct gr_rng){0});
    gr_pass_upload(g->pass);
    ASSERT_OK(gr_pass_forward(g->pass, true));
    compare_logits(g);
    ASSERT_OK(gr_pass_loss(g->pass));
    gr_device_download(g->dev, &loss, gr_tensor_rows(g->pass->loss, 0, 1));
    ASSERT_OK(gr_device_sync(g->dev));
    g->loss_error = fabs(loss - truth[0]) / fabs(truth[0]);
    ASSERT_OK(gr_pass_backward(g->pass));
    compare_gradients(g);
}

void gr_golden_close(struct gr_golden *g)
{
    gr_pass_destroy(g->pass);
    gr_adapter_destroy(g->adapter);
    gr_joined_weights_release(&g->model.joined);
    gr_weights_release(&g->model.weights);
    gr_device_arena_release(g->dev, &g->weights);
    gr_device_arena_release(g->dev, &g->step);
    gr_device_arena_release(g->dev, &g->fixed);
    gr_device_destroy(g->dev);
    gr_safetensors_close(&g->truth);
    gr_free(g->bf16_ratio);
    gr_free(g->batch.ids);
    gr_free(g->batch.positions);
    gr_free(g->batch.docs);
    gr_free(g->batch.label_rows);
    gr_free(g->batch.targets);
}
