/* What device.dtype: auto stands for: f32, bf16 where it is faster or f32 weights do not fit, and
 * what a run began with whatever the machine says now; and what follows from it in memory. */
#include "data/store/store.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "kernels/base/widen.h"
#include "tests/files.h"
#include "tests/test.h"
#include "trainer/run/compute_dtype.h"
#include "trainer/run/engine.h"

#include <stdlib.h>
#include <sys/stat.h>

static void open_config(struct gr_config *config, const char *golden)
{
    gr_config_init(config);
    gr_free(config->model);
    config->model = gr_format("%s/tests/golden/%s", getenv("GRAFT_SOURCE_DIR"), golden);
}

/* A device that does not prefer bf16. */
static struct gr_device *open_v3(void)
{
    struct gr_device *dev = NULL;

#ifdef __x86_64__
    ASSERT_OK(gr_device_create(&dev, "cpu", 1, "v3"));
#else
    ASSERT_OK(gr_device_create(&dev, "cpu", 1, NULL));
#endif
    return dev;
}

TEST(compute_dtype_auto_is_bf16_where_it_is_faster_or_f32_does_not_fit)
{
    static const struct {
        const char *asked;
        bool prefers;
        int64_t f32_bytes;
        enum gr_dtype expected;
    } rows[] = {{"auto", false, 1000, GR_F32}, {"auto", false, 1001, GR_BF16},
                {"auto", true, 1, GR_BF16},    {"f32", true, 1001, GR_F32},
                {"f32", false, 1, GR_F32},     {"bf16", false, 1, GR_BF16},
                {"bf16", true, 1001, GR_BF16}};

    for (int64_t i = 0; i < GR_COUNT(rows); i++) {
        struct gr_config config;
        char *assignment = gr_format("device.dtype=%s", rows[i].asked);

        gr_config_init(&config);
        ASSERT_OK(gr_config_set(&config, assignment));
        ASSERT_INT(gr_compute_dtype_choose(&config, rows[i].prefers, rows[i].f32_bytes, 1000),
                   rows[i].expected);
        gr_free(assignment);
        gr_config_release(&config);
    }
}

/* A byte less than the weights take as f32 is too little. */
TEST(compute_dtype_auto_looks_at_model_and_memory)
{
    struct gr_config config;
    struct gr_model_config model;
    struct gr_device *dev = open_v3();
    enum gr_dtype dtype;

    open_config(&config, "llama");
    ASSERT_OK(gr_model_config_load(&model, config.model));
    ASSERT_OK(gr_compute_dtype_resolve(&dtype, &config, dev));
    ASSERT_INT(dtype, GR_F32);
    config.device.memory = 4 * gr_weights_parameters(&model);
    ASSERT_OK(gr_compute_dtype_resolve(&dtype, &config, dev));
    ASSERT_INT(dtype, GR_F32);
    config.device.memory--;
    ASSERT_OK(gr_compute_dtype_resolve(&dtype, &config, dev));
    ASSERT_INT(dtype, GR_BF16);
    gr_device_destroy(dev);
    gr_config_release(&config);
}

TEST(compute_dtype_run_keeps_what_it_began_with)
{
    static const char run[] = "{\"dtype\": \"bf16\"}\n", strange[] = "{\"dtype\": \"int4\"}\n";
    struct gr_config config;
    struct gr_device *dev = open_v3();
    enum gr_dtype dtype;

    gr_test_enter_folder();
    open_config(&config, "llama");
    gr_free(config.output);
    config.output = gr_strdup("out");
    ASSERT_OK(gr_compute_dtype_resolve(&dtype, &config, dev));
    ASSERT_INT(dtype, GR_F32);
    ASSERT(!gr_store_is_there("out")); /* looking made nothing */
    ASSERT(mkdir("out", 0777) == 0);
    ASSERT_OK(gr_compute_dtype_resolve(&dtype, &config, dev));
    ASSERT_INT(dtype, GR_F32);
    gr_test_write_file("out/run.json", run, sizeof run - 1);
    ASSERT_OK(gr_compute_dtype_resolve(&dtype, &config, dev));
    ASSERT_INT(dtype, GR_BF16);
    ASSERT_OK(gr_config_set(&config, "device.dtype=f32")); /* refused later, as another identity */
    ASSERT_OK(gr_compute_dtype_resolve(&dtype, &config, dev));
    ASSERT_INT(dtype, GR_F32);
    ASSERT_OK(gr_config_set(&config, "device.dtype=auto"));
    gr_test_write_file("out/run.json", strange, sizeof strange - 1);
    ASSERT_OK(gr_compute_dtype_resolve(&dtype, &config, dev));
    ASSERT_INT(dtype, GR_F32);
    gr_device_destroy(dev);
    gr_config_release(&config);
}

static void load(struct gr_weights *weights, const char *golden, enum gr_dtype dtype)
{
    struct gr_weight_sharing alone = {
        .dtype = dtype, .local_size = 1, .job_key = "dtype", .threads = 2, .timeout_s = 10};
    char *directory = gr_format("%s/tests/golden/%s", getenv("GRAFT_SOURCE_DIR"), golden);
    struct gr_model_config model;
    char hash[65];

    ASSERT_OK(gr_model_config_load(&model, directory));
    ASSERT_OK(gr_weights_load(weights, hash, &model, directory, &alone));
    ASSERT_OK(gr_weights_share(weights, &model, &alone));
    gr_free(directory);
}

/* f32 files are rounded once; of bf16 files the matrices are the same in both dtypes, to be widened
 * where they are used, and the vectors are widened. */
TEST(compute_dtype_weights_are_rounded_or_the_same)
{
    static const char *const names[] = {"llama", "llama-bf16"};

    for (int i = 0; i < 2; i++) {
        struct gr_weights wide, narrow;
        int64_t changed = 0;

        load(&wide, names[i], GR_F32);
        load(&narrow, names[i], GR_BF16);
        ASSERT_INT(wide.embedding.dtype, i == 0 ? GR_F32 : GR_BF16);
        ASSERT_INT(narrow.embedding.dtype, GR_BF16);
        ASSERT_INT(wide.final_norm.dtype, GR_F32);
        ASSERT_INT(narrow.final_norm.dtype, GR_BF16);
        for (int64_t j = 0; j < gr_tensor_count(wide.embedding); j++) {
            uint16_t bits = ((const uint16_t *)narrow.embedding.data)[j];
            float value = i == 0 ? ((const float *)wide.embedding.data)[j]
                                 : gr_float_from_bf16(((const uint16_t *)wide.embedding.data)[j]);

            ASSERT_INT(bits, gr_float_to_bf16(value));
            changed += gr_float_from_bf16(bits) != value;
        }
        ASSERT(i == 0 ? changed > 0 : changed == 0);
        gr_weights_release(&wide);
        gr_weights_release(&narrow);
    }
}

/* Activations of a pass take half; what stays f32 and the scratch memory do not shrink. */
TEST(compute_dtype_bf16_pass_takes_less_memory)
{
    struct gr_config config;
    struct gr_model model[2] = {{.dtype = GR_F32}, {.dtype = GR_BF16}};
    int64_t used[2];

    gr_log_speaks(false);
    open_config(&config, "qwen3");
    for (int i = 0; i < 2; i++) {
        struct gr_arena step = {.name = "step"};
        struct gr_pass *pass = NULL;

        ASSERT_OK(gr_device_create(&model[i].dev, "cpu", 1, NULL));
        ASSERT_OK(gr_model_config_load(&model[i].config, config.model));
        pass = gr_pass_create(&model[i], 4096, NULL, 0, true);
        gr_pass_layout(pass, &step, NULL);
        used[i] = step.used - pass->workspace_bytes;
        gr_pass_destroy(pass);
        gr_device_destroy(model[i].dev);
    }
    ASSERT_MSG(used[1] < used[0] * 6 / 10 && used[1] > used[0] / 2,
               "%" PRId64 " bytes in bf16, %" PRId64 " in f32", used[1], used[0]);
    gr_config_release(&config);
}
