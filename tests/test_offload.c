/* Inputs of layers that wait in the host's memory between forward and backward: the same gradient
 * bits as without, less memory of the device, chosen last.  On the CPU, or where GRAFT_TEST_DEVICE
 * says. */
#include "data/safetensors.h"
#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"
#include "tests/engine_rig.h"
#include "tests/files.h"
#include "tests/test.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { LAYERS = 5, OF_THE_MODEL = 2, ALL_AWAY = LAYERS - GR_STASH_LANES };

/* ---- a model with more layers: those of the golden Llama again and again ---- */

static void write_config(const char *source)
{
    char *path = gr_format("%s/config.json", source), line[256];
    struct gr_buffer text = {0};
    FILE *file = fopen(path, "re");

    ASSERT(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strstr(line, "num_hidden_layers") != NULL)
            gr_buffer_add_format(&text, "  \"num_hidden_layers\": %d,\n", LAYERS);
        else
            gr_buffer_add_text(&text, line);
    }
    fclose(file);
    gr_test_write_text("deep/config.json", text.data);
    gr_buffer_release(&text);
    gr_free(path);
}

static void write_weights(const char *source)
{
    char *path = gr_format("%s/model.safetensors", source);
    struct gr_safetensors file;
    struct gr_safetensors_item *item;
    struct gr_buffer bytes = {0};
    int64_t count = 0;

    ASSERT_OK(gr_safetensors_open(&file, path));
    item = GR_NEW_ARRAY(struct gr_safetensors_item, file.count * LAYERS);
    for (int64_t i = 0; i < file.count; i++) {
        const struct gr_safetensors_entry *entry = &file.entry[i];
        int layer = -1, end = 0, step = OF_THE_MODEL;

        if (sscanf(entry->name, "model.layers.%d.%n", &layer, &end) != 1)
            layer = LAYERS - step; /* the tensor is there once */
        for (; layer < LAYERS; layer += step, count++) {
            item[count] = (struct gr_safetensors_item){
                .name = end == 0 ? gr_strdup(entry->name)
                                 : gr_format("model.layers.%d.%s", layer, entry->name + end),
                .dtype = entry->dtype,
                .ndim = entry->ndim,
                .data = gr_safetensors_data(&file, entry)};
            memcpy(item[count].dim, entry->dim, sizeof entry->dim);
        }
    }
    gr_safetensors_write(&bytes, item, count, NULL);
    gr_test_write_file("deep/model.safetensors", bytes.data, bytes.length);
    for (int64_t i = 0; i < count; i++)
        gr_free((void *)(uintptr_t)item[i].name);
    gr_free(item);
    gr_buffer_release(&bytes);
    gr_safetensors_close(&file);
    gr_free(path);
}

static bool is_cuda(void)
{
    const char *device = getenv("GRAFT_TEST_DEVICE");

    return device != NULL && strcmp(device, "cuda") == 0;
}

/* Two micro-batches a step. */
static void open_deep(struct engine_rig *r, const char *key)
{
    static bool is_written;
    char *source = gr_format("%s/tests/golden/llama", getenv("GRAFT_SOURCE_DIR"));
    const char *keys[] = {"model=deep",
                          "device.dtype=bf16",
                          "train.micro_batches=2",
                          "data.packing=false",
                          "train.max_steps=2",
                          key,
                          NULL};

    if (!is_written) {
        gr_test_enter_folder();
        ASSERT(mkdir("deep", 0777) == 0);
        write_config(source);
        write_weights(source);
        is_written = true;
    }
    gr_free(source);
    engine_rig_open(r, is_cuda() ? "cuda" : "cpu", keys);
}

/* ---- the same bits ---- */

struct room {
    struct gr_arena step, away;
};

/* Gives the pass new memory, that of the device full of garbage; returns the bytes of both. */
static struct room lay_out(struct engine_rig *r, int64_t amount)
{
    struct gr_arena step = {.name = "step"}, away = {.name = "away"};
    struct gr_pass *pass = r->engine.pass;
    unsigned char *garbage;
    struct room room;

    gr_pass_set_recompute(pass, amount);
    gr_pass_layout(pass, &step, &away);
    ASSERT_OK(gr_device_arena_create(r->dev, &room.step, "step", step.used));
    ASSERT_OK(gr_device_stash_create(r->dev, &room.away, "inputs", away.used));
    garbage = gr_alloc(step.used, 1);
    memset(garbage, 0xff, (size_t)step.used);
    gr_device_upload(r->dev, gr_tensor_1d(room.step.base, GR_U8, step.used), garbage);
    gr_free(garbage);
    gr_pass_layout(pass, &room.step, &room.away);
    return room;
}

static void release(struct engine_rig *r, struct room *room)
{
    gr_device_stash_release(r->dev, &room->away);
    gr_device_arena_release(r->dev, &room->step);
}

/* The sum of a step's gradients, for the caller to free: all of it is queued before anything is
 * waited for. */
static float *gradient_of(struct engine_rig *r)
{
    float *gradient = GR_NEW_ARRAY(float, r->trial[0].adapter->elements);
    gr_tensor root;

    engine_rig_compute(r, 1);
    ASSERT_OK(gr_tree_root(r->engine.tree, &root));
    gr_device_download(r->dev, gradient, root);
    ASSERT_OK(gr_tree_wait(r->engine.tree));
    return gradient;
}

static void assert_same(const float *found, const float *expected, int64_t count, int64_t amount)
{
    double difference = 0;

    for (int64_t i = 0; i < count; i++)
        difference = fmax(difference, fabs((double)found[i] - (double)expected[i]));
    ASSERT_MSG(memcmp(found, expected, (size_t)count * sizeof *found) == 0,
               "amount %" PRId64 ": the gradient's bits differ, off by %g", amount, difference);
}

/* What is computed again level by level, what is offloaded layer by layer. */
TEST(offload_any_amount_same_bits)
{
    struct engine_rig r;
    float *kept;
    int64_t most_away = 0;

    open_deep(&r, "lora.init_lora_weights=false");
    engine_rig_prepare(&r, 1);
    ASSERT_INT(r.engine.model.config.layers, LAYERS);
    kept = gradient_of(&r);
    for (int64_t amount = 0; amount <= gr_pass_offload_most(r.engine.pass);
         amount += amount < gr_pass_recompute_most(r.engine.pass) ? LAYERS : 1) {
        struct room room = lay_out(&r, amount);
        int64_t away = gr_pass_count_away(r.engine.pass);
        float *again = gradient_of(&r);

        assert_same(again, kept, r.trial[0].adapter->elements, amount);
        ASSERT(away >= most_away && (amount > gr_pass_recompute_most(r.engine.pass) || away == 0));
        most_away = away;
        gr_free(again);
        release(&r, &room);
    }
    ASSERT_INT(most_away, ALL_AWAY);
    gr_free(kept);
    engine_rig_close(&r);
}

/* ---- memory ---- */

TEST(offload_moves_what_it_says)
{
    struct engine_rig r;
    struct room all, away;
    int64_t input;

    open_deep(&r, "train.seed=1");
    engine_rig_prepare(&r, 1);
    input = r.engine.pass->rows * r.engine.model.config.hidden_size * 2;
    all = lay_out(&r, gr_pass_recompute_most(r.engine.pass));
    away = lay_out(&r, gr_pass_offload_most(r.engine.pass));
    ASSERT_INT(all.away.used, 0);
    ASSERT_INT(away.away.used, ALL_AWAY * input);
    ASSERT_INT(all.step.used - away.step.used, ALL_AWAY * input);
    release(&r, &all);
    release(&r, &away);
    engine_rig_close(&r);
}

/* ---- how it is chosen: on a device that has memory of its own ---- */

struct outcome {
    int64_t bytes, away, elements;
    float *adapter;
};

/* Two steps with that key, in `memory` bytes (0: as many as there are). */
static struct outcome train(const char *key, int64_t memory)
{
    struct engine_rig r;
    struct outcome o;

    open_deep(&r, key);
    r.config.device.memory = memory;
    engine_rig_prepare(&r, 1);
    o.bytes = r.engine.model.weights.bytes +
              gr_joined_weights_bytes(&r.engine.model.joined, r.engine.model.dtype) +
              r.engine.state.used + r.engine.step.used;
    o.away = gr_pass_count_away(r.engine.pass);
    ASSERT_INT(r.engine.away.base != NULL, o.away > 0);
    for (int64_t step = 1; step <= 2; step++) {
        struct gr_update update;

        engine_rig_step(&r, &update, step);
    }
    o.elements = r.trial[0].adapter->elements;
    o.adapter = GR_NEW_ARRAY(float, o.elements);
    ASSERT_OK(gr_engine_get_adapter(&r.engine, o.adapter, 0));
    engine_rig_close(&r);
    return o;
}

TEST(offload_is_the_last_that_is_chosen)
{
    struct outcome none = train("device.recompute=none", 0), all = train("device.recompute=all", 0);
    struct outcome fits = train("device.recompute=auto", all.bytes);
    struct outcome most, tight = {0};

    ASSERT_INT(none.away + all.away + fits.away, 0);
    assert_same(all.adapter, none.adapter, none.elements, 1);
    most = train("device.recompute=offload", 0);
    assert_same(most.adapter, none.adapter, none.elements, 2);
    ASSERT_INT(most.away, is_cuda() ? ALL_AWAY : 0); /* the host's memory is no other place to it */
    if (is_cuda()) {
        ASSERT(most.bytes < all.bytes);
        tight = train("device.recompute=auto", (all.bytes + most.bytes) / 2);
        ASSERT_MSG(tight.away > 0 && tight.away < most.away && tight.bytes < all.bytes,
                   "%" PRId64 " away", tight.away);
        assert_same(tight.adapter, none.adapter, none.elements, 3);
    }
    gr_free(none.adapter);
    gr_free(all.adapter);
    gr_free(fits.adapter);
    gr_free(tight.adapter);
    gr_free(most.adapter);
}

/* What graft estimate says is what train takes, and too little is refused with all of it in use. */
TEST(offload_plan_is_what_is_taken)
{
    struct engine_rig r;
    struct gr_engine planned;
    struct gr_memory_plan plan = {0};
    struct gr_trial trial;

    if (!is_cuda())
        SKIP("on the CPU nothing is offloaded");
    open_deep(&r, "device.recompute=offload");
    engine_rig_prepare(&r, 1);
    ASSERT_OK(gr_engine_examine_model(&planned, &plan, &r.config, r.dev, r.comm, false));
    ASSERT_OK(gr_trial_init(&trial, &r.config, &planned.model.config, &r.documents, 0, 0));
    ASSERT_OK(gr_engine_plan(&planned, &plan, &trial, 1, 0, 1));
    ASSERT_INT(plan.away_layers, ALL_AWAY);
    ASSERT_INT(plan.away_bytes, r.engine.away.used);
    gr_engine_release(&planned);
    gr_trial_release(&trial);
    gr_engine_retire(&r.engine);
    ASSERT(r.engine.away.base == NULL);
    engine_rig_close(&r);
}
