/* Merging: every weight is W + scale B A rounded once, everything else is the base's, and the
 * folder appears whole or not at all.  On the golden models and adapters. */
#include "data/model_files.h"
#include "kernels/base/alloc.h"
#include "kernels/base/widen.h"
#include "tests/files.h"
#include "tests/test.h"
#include "trainer/model/merge.h"
#include "trainer/model/peft_files.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct rig {
    char *base;
    struct gr_adapter *adapter;
    float *values;
};

static void open_rig(struct rig *r, const char *golden)
{
    struct gr_model_config model;
    char *from;

    r->base = gr_format("%s/tests/golden/%s", getenv("GRAFT_SOURCE_DIR"), golden);
    from = gr_format("%s/adapter", r->base);
    ASSERT_OK(gr_model_config_load(&model, r->base));
    ASSERT_OK(gr_peft_read(&r->adapter, &r->values, &model, from));
    gr_free(from);
    gr_test_enter_folder();
}

static void close_rig(struct rig *r)
{
    gr_free(r->base);
    gr_free(r->values);
    gr_adapter_destroy(r->adapter);
}

/* *size grows by what the terms' absolute values sum to. */
static double product(const struct rig *r, const struct gr_lora_matrix *m, int64_t row,
                      int64_t column, double *size)
{
    double sum = 0;

    for (int64_t k = 0; k < m->r; k++) {
        double term = (double)m->scale * (double)r->values[m->b_begin + row * m->r + k] *
                      (double)r->values[m->a_begin + k * m->in + column];

        sum += term;
        *size += fabs(term);
    }
    return sum;
}

/* Half a unit in the last place of what holds x, and what f32 arithmetic over terms of this size
 * adds. */
static double bound(double x, double size, enum gr_dtype dtype)
{
    int exponent = 0;

    frexp(x, &exponent);
    return ldexp(0.5, exponent - (dtype == GR_BF16 ? 8 : 24)) + 1e-6 * size;
}

static const struct gr_lora_matrix *adapted(const struct rig *r, const char *tensor)
{
    for (int64_t i = 0; i < r->adapter->count; i++) {
        char name[64];

        gr_lora_matrix_name(name, &r->adapter->matrix[i]);
        if (strncmp(tensor, name, strlen(name)) == 0 && strstr(tensor, ".weight") != NULL)
            return &r->adapter->matrix[i];
    }
    return NULL;
}

static float element(const struct gr_model_tensor *t, int64_t i)
{
    float value = 0;
    const char *data = gr_model_tensor_data(t);

    ASSERT(gr_widen(&value, data + i * gr_dtype_bytes(t->entry->dtype), t->entry->dtype, 1));
    return value;
}

static int64_t compare_tensor(const struct rig *r, const struct gr_model_tensor *base,
                              const struct gr_model_tensor *merged)
{
    const struct gr_lora_matrix *m = adapted(r, base->entry->name);
    int64_t count = base->entry->bytes / gr_dtype_bytes(base->entry->dtype), changed = 0;

    for (int64_t i = 0; i < count; i++) {
        double w = (double)element(base, i), found = (double)element(merged, i), expected = w;

        double size = fabs(w);

        if (m != NULL)
            expected += product(r, m, i / m->in, i % m->in, &size);
        ASSERT_MSG(m == NULL
                       ? found == w
                       : fabs(found - expected) <= bound(expected, size, merged->entry->dtype),
                   "%s[%lld]: found %.9g, expected %.9g", base->entry->name, (long long)i, found,
                   expected);
        changed += found != w;
    }
    return changed;
}

static void check(const char *golden, bool to_f32)
{
    struct rig r;
    struct gr_merge_options options = {.to_f32 = to_f32, .threads = 3};
    struct gr_model_files base = {0}, merged = {0};
    int64_t changed = 0;

    open_rig(&r, golden);
    ASSERT_OK(gr_merge("merged/", r.base, r.adapter, r.values, &options));
    ASSERT(access("merged.partial", F_OK) != 0);
    ASSERT_OK(gr_model_files_open(&base, r.base));
    ASSERT_OK(gr_model_files_open(&merged, "merged"));
    ASSERT_INT(merged.count, base.count);
    ASSERT_INT(merged.file_count, base.file_count);
    for (int64_t i = 0; i < base.count; i++) {
        const struct gr_safetensors_entry *entry = merged.tensor[i].entry;

        ASSERT_TEXT(entry->name, base.tensor[i].entry->name);
        ASSERT_INT(entry->dtype, to_f32 ? GR_F32 : base.tensor[i].entry->dtype);
        changed += compare_tensor(&r, &base.tensor[i], &merged.tensor[i]);
    }
    ASSERT(changed > r.adapter->elements);
    gr_model_files_close(&base);
    gr_model_files_close(&merged);
    close_rig(&r);
}

TEST(merge_f32_base_gives_the_sum)
{
    check("llama", false);
}

TEST(merge_bf16_shards_are_rounded_once)
{
    check("llama-bf16", false);
}

TEST(merge_bf16_base_can_become_f32)
{
    check("llama-bf16", true);
}

TEST(merge_rslora_scales_by_the_root)
{
    check("qwen3-rslora", false);
}

static void expect_key(const char *path, const char *key)
{
    struct gr_file_map map;

    ASSERT_OK(gr_file_map_open(&map, path));
    ASSERT_MSG(memmem(map.data, (size_t)map.identity.bytes, key, strlen(key)) != NULL,
               "%s has no %s", path, key);
    gr_file_map_close(&map);
}

TEST(merge_f32_says_so_in_config_and_index)
{
    struct rig r;
    struct gr_merge_options options = {.to_f32 = true, .threads = 1};
    struct gr_model_files merged = {0};
    char *total;
    int64_t bytes = 0;

    open_rig(&r, "llama-bf16");
    ASSERT_OK(gr_merge("merged", r.base, r.adapter, r.values, &options));
    ASSERT_OK(gr_model_files_open(&merged, "merged"));
    for (int64_t i = 0; i < merged.count; i++)
        bytes += merged.tensor[i].entry->bytes;
    total = gr_format("\"total_size\": %lld", (long long)bytes);
    expect_key("merged/model.safetensors.index.json", total);
    expect_key("merged/config.json", "\"dtype\": \"float32\"");
    gr_free(total);
    gr_model_files_close(&merged);
    close_rig(&r);
}

TEST(merge_existing_output_is_refused_and_untouched)
{
    struct rig r;
    struct gr_merge_options options = {.threads = 1};

    open_rig(&r, "llama");
    gr_test_write_text("merged", "mine");
    ASSERT_INT(gr_merge("merged", r.base, r.adapter, r.values, &options), GR_ERR_USAGE);
    ASSERT(strstr(gr_error_message(), "exists already") != NULL);
    expect_key("merged", "mine");
    gr_error_clear();
    close_rig(&r);
}

TEST(merge_result_that_f16_or_bf16_cannot_hold_is_refused)
{
    struct rig r;
    struct gr_merge_options options = {.threads = 2};

    open_rig(&r, "llama");
    r.values[r.adapter->matrix[3].b_begin] = INFINITY;
    ASSERT_INT(gr_merge("merged", r.base, r.adapter, r.values, &options), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "is not finite in F32") != NULL);
    ASSERT_INT(gr_test_count_names("."), 0);
    gr_error_clear();
    close_rig(&r);
}

/* The disk refuses to sync: nothing stands where the result would, nor beside it. */
TEST(merge_failure_leaves_nothing_behind)
{
    struct rig r;
    struct gr_merge_options options = {.threads = 1};

    open_rig(&r, "llama");
    gr_test_forbid(SYS_fsync, EIO);
    ASSERT_INT(gr_merge("merged", r.base, r.adapter, r.values, &options), GR_ERR_RETRY);
    ASSERT_INT(gr_test_count_names("."), 0);
    gr_error_clear();
    close_rig(&r);
}

/* Every finite value, and around each point halfway to the next. */
static void check_halves(uint16_t (*narrow)(float), float (*widen)(uint16_t), uint32_t infinity)
{
    for (uint32_t bits = 0; bits < infinity; bits++) {
        float low = widen((uint16_t)bits), high = widen((uint16_t)(bits + 1));
        float middle = (float)(((double)low + (double)high) / 2);

        ASSERT_INT(narrow(low), bits);
        ASSERT_INT(narrow(-low), bits | 0x8000);
        if (bits + 1 == infinity) /* the next one would be twice the power of two below */
            continue;
        ASSERT_INT(narrow(middle), bits % 2 == 0 ? bits : bits + 1);
        ASSERT_INT(narrow(nextafterf(middle, 0)), bits);
        ASSERT_INT(narrow(nextafterf(middle, INFINITY)), bits + 1);
    }
    ASSERT_INT(narrow(INFINITY), infinity);
    ASSERT_INT(narrow(3.4e38f), infinity);
    ASSERT(isnan(widen(narrow(NAN))));
}

TEST(narrow_rounds_to_the_nearest_even)
{
    check_halves(gr_float_to_f16, gr_float_from_f16, 0x7c00);
    check_halves(gr_float_to_bf16, gr_float_from_bf16, 0x7f80);
    ASSERT_INT(gr_float_to_f16(65519.996f), 0x7bff);
    ASSERT_INT(gr_float_to_f16(65520), 0x7c00);
}
