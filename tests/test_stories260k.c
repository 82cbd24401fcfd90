/* A real trained model: token ids, the loss of every token and the greedy text of stories260k equal
 * what independent implementations give. */
#include "data/json.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"
#include "tests/test.h"
#include "trainer/run/generate.h"

#include <stdlib.h>
#include <unistd.h>

struct fixture {
    struct gr_config config;
    struct gr_comm *comm;
    struct gr_device *dev;
    struct gr_engine engine;
    char *vectors;
};

enum { ROWS = 512 };

/* generates: the engine is to generate text, else to evaluate. */
static void open_fixture(struct fixture *f, bool generates)
{
    const char *source = getenv("GRAFT_SOURCE_DIR");
    char *model = gr_format("%s/../shared/fixtures/models/stories260k", source);

    memset(f, 0, sizeof *f);
    f->vectors = gr_format("%s/../shared/fixtures/vectors/stories260k", source);
    if (access(model, R_OK) != 0)
        SKIP("%s is not there", model);
    gr_config_init(&f->config);
    gr_free(f->config.model);
    f->config.model = model;
    ASSERT_OK(gr_config_set(&f->config, "device.dtype=f32")); /* as what the fixture holds */
    f->config.data.max_length = ROWS;
    ASSERT_OK(gr_comm_create(&f->comm, 10));
    ASSERT_OK(gr_device_create(&f->dev, "cpu", 2, NULL));
    ASSERT_OK(gr_engine_load_model(&f->engine, &f->config, f->dev, f->comm));
    ASSERT_OK(generates ? gr_engine_prepare_generate(&f->engine, NULL, 1, ROWS)
                        : gr_engine_prepare_eval(&f->engine, NULL, ROWS));
}

static void close_fixture(struct fixture *f)
{
    gr_engine_release(&f->engine);
    gr_device_destroy(f->dev);
    gr_comm_destroy(f->comm);
    gr_config_release(&f->config);
    gr_free(f->vectors);
}

static json_t *load(const struct fixture *f, const char *name)
{
    char *path = gr_format("%s/%s", f->vectors, name);
    struct gr_json json = {0};

    ASSERT_OK(gr_json_load(&json, path));
    gr_free(path);
    gr_free(json.place);
    return json.value;
}

/* One document whose every token but the first is a target. */
static void fill(struct gr_batch *batch, const json_t *ids)
{
    int64_t length = (int64_t)json_array_size(ids);

    for (int64_t i = 0; i < ROWS; i++) {
        batch->ids[i] =
            i < length ? (int32_t)json_integer_value(json_array_get(ids, (size_t)i)) : -1;
        batch->positions[i] = i < length ? (int32_t)i : 0;
        batch->label_rows[i] = i + 1 < length ? (int32_t)i : -1;
        batch->targets[i] = 0;
        if (i > 0 && i < length)
            batch->targets[i - 1] = batch->ids[i];
    }
    batch->docs[0] = 0;
    batch->docs[1] = (int32_t)length;
    batch->doc_count = 1;
    batch->label_count = length - 1;
    batch->label_padded = gr_round_up_rows(length - 1);
}

TEST(stories260k_losses_equal_the_fixture)
{
    static int32_t memory[4][ROWS], docs[2];
    struct gr_batch batch = {.rows = ROWS,
                             .ids = memory[0],
                             .positions = memory[1],
                             .docs = docs,
                             .label_rows = memory[2],
                             .targets = memory[3]};
    static double row_loss[ROWS];
    struct fixture f;
    json_t *root, *one;
    size_t i;

    open_fixture(&f, false);
    root = load(&f, "nll.json");
    json_array_foreach(json_object_get(root, "cases"), i, one)
    {
        const json_t *nll = json_object_get(one, "nll");
        struct gr_sums sums = {0};
        double largest = 0;

        fill(&batch, json_object_get(one, "ids_with_bos"));
        ASSERT_OK(gr_engine_eval_batch(&f.engine, &sums, &batch, 0));
        gr_device_download(f.dev, row_loss,
                           gr_tensor_rows(f.engine.eval_pass->row_loss, 0, batch.label_count));
        ASSERT_OK(gr_device_sync(f.dev));
        ASSERT_INT(json_array_size(nll), batch.label_count);
        for (int64_t k = 0; k < batch.label_count; k++)
            largest = fmax(largest, json_number_value(json_array_get(nll, (size_t)k)));
        for (int64_t k = 0; k < batch.label_count; k++) /* relative in the max norm */
            ASSERT_NEAR(row_loss[k], json_number_value(json_array_get(nll, (size_t)k)),
                        1e-5 * largest);
        ASSERT_NEAR(sums.loss / (double)sums.supervised,
                    json_number_value(json_object_get(one, "mean_nll")), 1e-5);
    }
    ASSERT_INT(i, 8);
    json_decref(root);
    close_fixture(&f);
}

struct collected {
    uint32_t ids[ROWS];
    int64_t count;
};

static gr_status collect(void *context, uint32_t id)
{
    struct collected *c = context;

    c->ids[c->count++] = id;
    return GR_OK;
}

TEST(stories260k_greedy_text_is_the_published_one)
{
    struct gr_generate_options options = {.max_new_tokens = 200};
    struct gr_tokenizer *tokenizer = NULL;
    struct gr_buffer text = {0};
    struct collected found = {0};
    const uint32_t bos = 1;
    struct fixture f;
    json_t *root, *ids;

    open_fixture(&f, true);
    root = load(&f, "greedy.json");
    ids = json_object_get(root, "greedy_ids");
    ASSERT_OK(gr_generate(&f.engine, &bos, 1, &options, collect, &found));
    ASSERT_INT(found.count, json_array_size(ids));
    for (int64_t i = 0; i < found.count; i++)
        ASSERT_INT(found.ids[i], json_integer_value(json_array_get(ids, (size_t)i)));
    ASSERT_OK(gr_tokenizer_create(&tokenizer, f.config.model));
    ASSERT_OK(gr_tokenizer_decode(tokenizer, &text, found.ids, found.count, true));
    ASSERT_TEXT(text.data, json_string_value(json_object_get(root, "decoded")));
    gr_buffer_release(&text);
    gr_tokenizer_destroy(tokenizer);
    json_decref(root);
    close_fixture(&f);
}
