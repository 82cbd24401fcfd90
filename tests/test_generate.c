/* Generation: with the cache of keys and values, logits and greedy text are those of ordinary
 * passes over the whole text, for every golden model; and where a text ends. */
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "tests/test.h"
#include "trainer/model/peft_files.h"
#include "trainer/run/generate.h"

#include <math.h>
#include <stdlib.h>

enum { VOCAB = 96, TEXT = 120, ROWS = 128 };

/* A golden model with its adapter, loaded twice: to generate, and to look at whole texts. */
struct rig {
    struct gr_config config;
    struct gr_comm *comm;
    struct gr_device *dev;
    struct gr_adapter *adapter[2];
    struct gr_engine cached, whole;
    int32_t ids[TEXT]; /* random */
};

static void load(struct rig *r, struct gr_engine *e, int number, int64_t prompt, int64_t text)
{
    char *directory = gr_format("%s/adapter", r->config.model);
    float *values;

    ASSERT_OK(gr_engine_load_model(e, &r->config, r->dev, r->comm));
    ASSERT_OK(gr_peft_read(&r->adapter[number], &values, &e->model.config, directory));
    ASSERT_OK(text > 0 ? gr_engine_prepare_generate(e, r->adapter[number], prompt, text)
                       : gr_engine_prepare_eval(e, r->adapter[number], ROWS));
    ASSERT_OK(gr_engine_set_adapter(e, values, 0));
    gr_free(values);
    gr_free(directory);
}

static void open_rig_in(struct rig *r, const char *dtype, const char *name, int64_t prompt,
                        int64_t text)
{
    memset(r, 0, sizeof *r);
    gr_log_speaks(false);
    gr_config_init(&r->config);
    gr_free(r->config.model);
    r->config.model = gr_format("%s/tests/golden/%s", getenv("GRAFT_SOURCE_DIR"), name);
    ASSERT_OK(gr_config_set(&r->config, "data.max_length=120"));
    ASSERT_OK(gr_config_set(&r->config, dtype));
    ASSERT_OK(gr_comm_create(&r->comm, 10));
    ASSERT_OK(gr_device_create(&r->dev, "cpu", 1, NULL));
    load(r, &r->cached, 0, prompt, text);
    load(r, &r->whole, 1, 0, 0);
    ASSERT_INT(r->cached.model.config.vocab_size, VOCAB);
    for (uint32_t i = 0; i < TEXT; i++)
        r->ids[i] = (int32_t)(gr_philox(11, i, 0, 0, 0).word[0] % VOCAB);
}

static void open_rig(struct rig *r, const char *name, int64_t prompt, int64_t text)
{
    open_rig_in(r, "device.dtype=f32", name, prompt, text);
}

static void close_rig(struct rig *r)
{
    gr_engine_release(&r->cached);
    gr_engine_release(&r->whole);
    gr_adapter_destroy(r->adapter[0]);
    gr_adapter_destroy(r->adapter[1]);
    gr_device_destroy(r->dev);
    gr_comm_destroy(r->comm);
    gr_config_release(&r->config);
}

/* logits (length, V) <- of an ordinary evaluation of ids[0..length) as one document. */
static void whole_logits(float *logits, struct rig *r, const int32_t *ids, int64_t length)
{
    static int32_t memory[4][ROWS];
    int32_t docs[2] = {0, (int32_t)length};
    struct gr_engine *e = &r->whole;
    struct gr_arena arena = {0};
    struct gr_sums sums = {0};
    struct gr_batch batch = {.rows = ROWS,
                             .ids = memory[0],
                             .positions = memory[1],
                             .label_rows = memory[2],
                             .targets = memory[3],
                             .docs = docs,
                             .doc_count = 1,
                             .label_count = length,
                             .label_padded = gr_round_up_rows(length)};
    gr_tensor rows;

    for (int32_t i = 0; i < ROWS; i++) {
        batch.ids[i] = i < length ? ids[i] : -1;
        batch.positions[i] = i < length ? i : 0;
        batch.label_rows[i] = i < length ? i : -1;
    }
    ASSERT_OK(gr_engine_eval_batch(e, &sums, &batch, 0));
    ASSERT_OK(gr_device_arena_create(r->dev, &arena, "logits", ROWS * VOCAB * 4));
    rows = gr_tensor_2d(arena.base, GR_F32, length, VOCAB);
    gr_head_logits(r->dev, rows, e->eval_pass->h_final, e->model.weights.head,
                   gr_tensor_rows(e->eval_pass->in.label_rows, 0, length));
    gr_device_download(r->dev, logits, rows);
    ASSERT_OK(gr_device_sync(r->dev));
    gr_device_arena_release(r->dev, &arena);
}

/* ---- the cache ---- */

static void check_logits(struct rig *r, const char *name, double tolerance)
{
    static const int64_t prompts[] = {1, 30, 64};
    static float expected[TEXT][VOCAB];
    double largest = 0, worst = 0;

    whole_logits(expected[0], r, r->ids, TEXT);
    for (int64_t i = 0; i < TEXT; i++) {
        for (int64_t v = 0; v < VOCAB; v++)
            largest = fmax(largest, fabs((double)expected[i][v]));
    }
    for (int64_t k = 0; k < GR_COUNT(prompts); k++) {
        r->cached.cache.length = 0;
        for (int64_t end = prompts[k]; end <= TEXT; end++) {
            int64_t begin = r->cached.cache.length;
            float found[VOCAB];

            ASSERT_OK(gr_generate_extend(&r->cached, found, r->ids + begin, end - begin, false));
            ASSERT_INT(r->cached.cache.length, end);
            for (int64_t v = 0; v < VOCAB; v++) {
                double off = fabs((double)found[v] - (double)expected[end - 1][v]);

                ASSERT_MSG(off <= tolerance * largest,
                           "%s: prompt of %lld, logit %lld behind token %lld is off by %g", name,
                           (long long)prompts[k], (long long)v, (long long)end - 1, off / largest);
                worst = fmax(worst, off / largest);
            }
        }
    }
    printf("%s: logits %.1e\n", name, worst);
}

struct collected {
    int32_t ids[TEXT];
    int64_t count;
};

static gr_status collect(void *context, uint32_t id)
{
    struct collected *c = context;

    ASSERT(c->count < TEXT);
    c->ids[c->count++] = (int32_t)id;
    return GR_OK;
}

/* The text behind the first `prompt` random ids. */
static struct collected generate(struct rig *r, int64_t prompt, const struct gr_generate_options *o)
{
    struct collected c = {0};
    uint32_t ids[TEXT];

    for (int64_t i = 0; i < prompt; i++)
        ids[i] = (uint32_t)r->ids[i];
    ASSERT_OK(gr_generate(&r->cached, ids, prompt, o, collect, &c));
    return c;
}

static int32_t likeliest(const float *logits)
{
    int32_t best = 0;

    for (int32_t v = 1; v < VOCAB; v++)
        best = logits[v] > logits[best] ? v : best;
    return best;
}

static void check_greedy(struct rig *r, const char *name)
{
    enum { PROMPT = 9 };
    static float logits[TEXT][VOCAB];
    struct gr_generate_options o = {.max_new_tokens = 100};
    struct collected found = generate(r, PROMPT, &o);
    int32_t text[TEXT];

    ASSERT_INT(found.count, 100);
    memcpy(text, r->ids, PROMPT * sizeof *text);
    for (int64_t n = 0; n < found.count; n++) {
        whole_logits(logits[0], r, text, PROMPT + n);
        text[PROMPT + n] = likeliest(logits[PROMPT + n - 1]);
        ASSERT_MSG(found.ids[n] == text[PROMPT + n],
                   "%s: new token %lld is off (found %d, expected %d)", name, (long long)n,
                   found.ids[n], text[PROMPT + n]);
    }
}

#define GENERATE_CASE(test, name)                                                                  \
    TEST(generate_##test##_equals_whole_passes)                                                    \
    {                                                                                              \
        struct rig r;                                                                              \
                                                                                                   \
        open_rig(&r, name, 64, TEXT);                                                              \
        check_logits(&r, name, 1e-5);                                                              \
        check_greedy(&r, name);                                                                    \
        close_rig(&r);                                                                             \
    }

GENERATE_CASE(llama, "llama")
GENERATE_CASE(llama_bias, "llama-bias")
GENERATE_CASE(llama_bf16_shards, "llama-bf16")
GENERATE_CASE(llama_rope_linear, "llama-rope-linear")
GENERATE_CASE(llama_rope_llama3, "llama-rope-llama3")
GENERATE_CASE(llama_rope_yarn, "llama-rope-yarn")
GENERATE_CASE(mistral_window_below_the_text, "mistral")
GENERATE_CASE(qwen2, "qwen2")
GENERATE_CASE(qwen3, "qwen3")
GENERATE_CASE(qwen3_rslora, "qwen3-rslora")

/* bf16 rounds o once per pass, but after sums in another order: a step of bf16 here and there. */
TEST(generate_bf16_equals_whole_passes_but_for_rounding)
{
    static const char *const names[] = {"llama", "mistral", "qwen3"};

    for (int64_t i = 0; i < GR_COUNT(names); i++) {
        struct rig r;

        open_rig_in(&r, "device.dtype=bf16", names[i], 64, TEXT);
        ASSERT_INT(r.cached.cache.k.dtype, GR_BF16);
        check_logits(&r, names[i], 2e-2);
        close_rig(&r);
    }
}

/* ---- the base model alone, and an engine prepared once more ---- */

TEST(generate_base_only_is_the_model_without_its_adapter)
{
    struct gr_generate_options o = {.max_new_tokens = 40}, base = {.max_new_tokens = 40};
    struct collected with, without, found;
    struct rig r;

    base.base_only = true;
    open_rig(&r, "llama", 9, TEXT);
    with = generate(&r, 9, &o);
    without = generate(&r, 9, &base);
    ASSERT_INT(with.count, 40);
    ASSERT_INT(without.count, 40);
    ASSERT(memcmp(with.ids, without.ids, sizeof with.ids) != 0);
    gr_engine_retire(&r.cached);
    ASSERT_OK(gr_engine_prepare_generate(&r.cached, NULL, 9, TEXT));
    found = generate(&r, 9, &o);
    ASSERT(memcmp(found.ids, without.ids, sizeof found.ids) == 0);
    close_rig(&r);
}

/* ---- where a text ends ---- */

TEST(generate_stop_token_ends_the_text)
{
    struct gr_generate_options o = {.max_new_tokens = 50,
                                    .sampling = {.temperature = 1, .top_p = 1, .seed = 5}};
    struct collected all, cut;
    int64_t last = 0; /* where its token 10 comes first */
    struct rig r;

    open_rig(&r, "llama", 9, TEXT);
    all = generate(&r, 9, &o);
    ASSERT_INT(all.count, 50);
    while (all.ids[last] != all.ids[10])
        last++;
    ASSERT(last > 0);
    o.stop[0] = VOCAB; /* never */
    o.stop[1] = all.ids[last];
    o.stops = 2;
    cut = generate(&r, 9, &o);
    ASSERT_INT(cut.count, last);
    ASSERT(memcmp(cut.ids, all.ids, (size_t)last * sizeof *cut.ids) == 0);
    close_rig(&r);
}

TEST(generate_full_cache_ends_the_text)
{
    struct gr_generate_options o = {.max_new_tokens = 50};
    uint32_t ids[20] = {0};
    struct collected c = {0};
    struct rig r;

    open_rig(&r, "llama", 20, 20);
    ASSERT_INT(generate(&r, 9, &o).count, 11);
    ASSERT_INT(generate(&r, 19, &o).count, 1);
    ASSERT_INT(gr_generate(&r.cached, ids, 20, &o, collect, &c), GR_ERR_USAGE);
    ASSERT_INT(gr_generate(&r.cached, ids, 0, &o, collect, &c), GR_ERR_USAGE);
    gr_error_clear();
    close_rig(&r);
}

/* ---- the choice: its distribution is test_sample.c's ---- */

TEST(generate_same_seed_same_text)
{
    struct gr_generate_options o = {.max_new_tokens = 50,
                                    .sampling = {.temperature = 1, .top_p = 0.9, .seed = 3}};
    struct collected first, again, other;
    struct rig r;

    open_rig(&r, "llama", 9, TEXT);
    first = generate(&r, 9, &o);
    again = generate(&r, 9, &o);
    o.sampling.seed = 4;
    other = generate(&r, 9, &o);
    ASSERT_INT(first.count, 50);
    ASSERT(memcmp(&first, &again, sizeof first) == 0);
    ASSERT(memcmp(&first, &other, sizeof first) != 0);
    close_rig(&r);
}

/* Ids the tokenizer does not have are never chosen, however likely. */
TEST(generate_padding_of_the_vocabulary_is_not_chosen)
{
    struct gr_generate_options o = {
        .max_new_tokens = 50, .tokens = VOCAB / 2, .sampling = {.temperature = 100, .top_p = 1}};
    struct collected text;
    struct rig r;

    open_rig(&r, "llama", 9, TEXT);
    text = generate(&r, 9, &o);
    ASSERT_INT(text.count, 50);
    for (int64_t i = 0; i < text.count; i++)
        ASSERT(text.ids[i] < VOCAB / 2);
    close_rig(&r);
}

TEST(generate_not_finite_is_refused)
{
    struct gr_generate_options o = {.max_new_tokens = 9};
    struct collected text = {0};
    uint32_t id = 3;
    float *values;
    struct rig r;

    open_rig(&r, "llama", 9, TEXT);
    values = GR_NEW_ARRAY(float, r.adapter[0]->elements);
    values[r.adapter[0]->matrix[0].b_begin] = NAN;
    ASSERT_OK(gr_engine_set_adapter(&r.cached, values, 0));
    ASSERT_INT(gr_generate(&r.cached, &id, 1, &o, collect, &text), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "the logits of token 1 are not finite") != NULL);
    ASSERT_INT(text.count, 0);
    gr_error_clear();
    gr_free(values);
    close_rig(&r);
}
