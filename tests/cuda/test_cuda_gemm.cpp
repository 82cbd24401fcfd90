/* Products of the CUDA backend against sums in f64: awkward shapes, strides and transposes, and
 * what is added to them.  Linked with the emulated plug-in's objects rather than opening it, since
 * gr_cuda_gemm is no op. */
#include "kernels/cuda/gemm.h"

#include "emu_count.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" {
#include "kernels/base/arena.h"
#include "kernels/base/widen.h"
#define _Noreturn __attribute__((noreturn)) /* C++ has no such word */
#include "tests/files.h"
#include "tests/test.h"
}

extern "C" gr_status gr_cuda_open(struct gr_device *dev, int local_rank);

/* A device, and the host's copies of the matrices that are on it. */
struct bench {
    struct gr_device dev;
    struct gr_arena arena;
    uint64_t random;
    float divisor; /* of the values; 1: bf16 holds them, and sums of their products are exact */
};

static void open_bench(struct bench *b)
{
    *b = {};
    b->random = 1;
    b->divisor = 1;
    b->dev.threads = 1;
    ASSERT_INT(gr_cuda_open(&b->dev, 0), GR_OK);
    ASSERT_INT(gr_device_arena_create(&b->dev, &b->arena, "test", 4 << 20), GR_OK);
}

static void close_bench(struct bench *b)
{
    gr_device_arena_release(&b->dev, &b->arena);
    b->dev.ops->close(&b->dev);
    gr_free(b->dev.cache_folder);
}

struct host_matrix {
    gr_tensor on_device;
    double *values; /* rows, columns */
};

static int64_t rows_of(const struct host_matrix *m)
{
    return m->on_device.dim[0];
}

static int64_t columns_of(const struct host_matrix *m)
{
    return m->on_device.dim[1];
}

/* A view on the device whose first column is `gap` elements after an aligned place, and whose rows
 * lie columns + gap apart, with random values. */
static struct host_matrix random_matrix(struct bench *b, enum gr_dtype dtype, int64_t rows,
                                        int64_t columns, int64_t gap)
{
    const gr_tensor whole = gr_arena_tensor_2d(&b->arena, dtype, rows, columns + gap);
    const struct host_matrix m = {gr_tensor_columns(whole, gap, gap + columns),
                                  GR_NEW_ARRAY(double, rows *columns)};
    char *bytes = GR_NEW_ARRAY(char, rows *columns * 4);

    for (int64_t i = 0; i < rows * columns; i++) {
        b->random = b->random * 6364136223846793005u + 1442695040888963407u;
        const float value = ((float)(b->random >> 57) / 64 - 1) / b->divisor;
        const uint16_t bf16 = gr_float_to_bf16(value);

        m.values[i] = value;
        if (dtype == GR_BF16)
            memcpy(bytes + 2 * i, &bf16, sizeof bf16);
        else
            memcpy(bytes + 4 * i, &value, sizeof value);
    }
    gr_device_upload(&b->dev, m.on_device, bytes);
    ASSERT_INT(gr_device_sync(&b->dev), GR_OK);
    gr_free(bytes);
    return m;
}

static double *fetch(struct bench *b, gr_tensor t)
{
    const int64_t count = gr_tensor_count(t);
    double *values = GR_NEW_ARRAY(double, count);
    char *bytes = GR_NEW_ARRAY(char, count * 4);

    gr_device_download(&b->dev, bytes, t);
    ASSERT_INT(gr_device_sync(&b->dev), GR_OK);
    for (int64_t i = 0; i < count; i++) {
        uint16_t bf16;
        float value;

        memcpy(&bf16, bytes + 2 * i, sizeof bf16);
        memcpy(&value, bytes + 4 * i, sizeof value);
        values[i] = t.dtype == GR_BF16 ? gr_float_from_bf16(bf16) : value;
    }
    gr_free(bytes);
    return values;
}

/* One product: what is transposed, how far rows are apart, and what is added. */
struct arrangement {
    enum gr_dtype inputs, output;
    bool a_is_transposed, b_is_transposed;
    int64_t gap;
    enum source_kind { ALONE, IN_PLACE, ANOTHER } source;
};

struct operands {
    struct host_matrix a, b, c, source;
};

static double element(const struct host_matrix *m, bool is_transposed, int64_t i, int64_t j)
{
    return is_transposed ? m->values[j * columns_of(m) + i] : m->values[i * columns_of(m) + j];
}

static void assert_product(const struct operands *o, const struct arrangement *how, float alpha,
                           float beta, const double *found, int64_t depth)
{
    const double rounding = how->output == GR_BF16 ? 1.0 / 256 : 1e-6;

    for (int64_t i = 0; i < rows_of(&o->c); i++) {
        for (int64_t j = 0; j < columns_of(&o->c); j++) {
            double expected = beta * o->source.values[i * columns_of(&o->c) + j];
            const double result = found[i * columns_of(&o->c) + j];

            for (int64_t k = 0; k < depth; k++)
                expected += (double)alpha * element(&o->a, how->a_is_transposed, i, k) *
                            element(&o->b, how->b_is_transposed, k, j);
            ASSERT_MSG(fabs(result - expected) <= rounding * fabs(expected) + 1e-6 * (double)depth,
                       "(%d, %d) of %d x %d x %d is %g, expected %g (transposes %d %d, gap %d)",
                       (int)i, (int)j, (int)rows_of(&o->c), (int)columns_of(&o->c), (int)depth,
                       result, expected, how->a_is_transposed, how->b_is_transposed, (int)how->gap);
        }
    }
}

static void check_product(struct bench *b, const struct arrangement *how, int64_t m, int64_t n,
                          int64_t k)
{
    const int64_t mark = b->arena.used;
    const float alpha = 0.5f, beta = how->source == arrangement::ALONE ? 0.0f : 2.0f;
    struct operands o;
    struct gr_cuda_product product = {};
    double *found;

    o.a = random_matrix(b, how->inputs, how->a_is_transposed ? k : m, how->a_is_transposed ? m : k,
                        how->gap);
    o.b = random_matrix(b, how->inputs, how->b_is_transposed ? n : k, how->b_is_transposed ? k : n,
                        2 * how->gap);
    o.c = random_matrix(b, how->output, m, n, how->gap);
    o.source = how->source == arrangement::ANOTHER
                   ? random_matrix(b, how->output, m, n, 3 * how->gap)
                   : o.c;
    product.c = o.c.on_device;
    product.a = o.a.on_device;
    product.b = o.b.on_device;
    if (how->source != arrangement::ALONE)
        product.source = o.source.on_device;
    product.a_is_transposed = how->a_is_transposed;
    product.b_is_transposed = how->b_is_transposed;
    product.alpha = alpha;
    product.beta = beta;
    gr_cuda_gemm(&b->dev, "test", &product);
    found = fetch(b, o.c.on_device);
    assert_product(&o, how, alpha, beta, found, k);
    gr_free(found);
    gr_free(o.a.values);
    gr_free(o.b.values);
    gr_free(o.c.values);
    if (how->source == arrangement::ANOTHER)
        gr_free(o.source.values);
    gr_arena_reset(&b->arena, mark);
}

static const int64_t sizes[] = {1, 31, 33, 64};

static void check_all_sizes(struct bench *b, const struct arrangement *how)
{
    for (int64_t m : sizes) {
        for (int64_t n : sizes) {
            for (int64_t k : sizes)
                check_product(b, how, m, n, k);
        }
    }
}

/* Every transpose, even and odd strides, the source absent, c itself and another. */
static void check_arrangements(enum gr_dtype inputs, enum gr_dtype output, const char *cache_folder)
{
    struct bench b;

    open_bench(&b);
    if (cache_folder != NULL)
        gr_device_set_cache(&b.dev, cache_folder);
    for (int i = 0; i < 12; i++) {
        const struct arrangement how = {inputs,
                                        output,
                                        (i & 1) != 0,
                                        (i & 2) != 0,
                                        (i + i / 4) % 2 * 5,
                                        i / 4 == 0   ? arrangement::ALONE
                                        : i / 4 == 1 ? arrangement::IN_PLACE
                                                     : arrangement::ANOTHER};

        check_all_sizes(&b, &how);
    }
    close_bench(&b);
}

TEST(cuda_gemm_bf16_to_bf16_matches_f64)
{
    check_arrangements(GR_BF16, GR_BF16, NULL);
}

TEST(cuda_gemm_bf16_to_f32_matches_f64)
{
    check_arrangements(GR_BF16, GR_F32, NULL);
}

TEST(cuda_gemm_f32_matches_f64)
{
    check_arrangements(GR_F32, GR_F32, NULL);
}

TEST(cuda_gemm_no_rows_does_nothing)
{
    struct bench b;
    struct gr_cuda_product product = {};

    open_bench(&b);
    product.a = gr_tensor_2d(NULL, GR_BF16, 0, 8);
    product.b = gr_arena_tensor_2d(&b.arena, GR_BF16, 8, 8);
    product.c = gr_tensor_2d(NULL, GR_BF16, 0, 8);
    product.alpha = 1;
    gr_cuda_gemm(&b.dev, "test", &product);
    ASSERT_INT(gr_device_sync(&b.dev), GR_OK);
    close_bench(&b);
}

/* On an open bench: a product whose sums tell algorithms apart. */
static struct gr_cuda_product uneven_product(struct bench *b)
{
    struct gr_cuda_product product = {};
    struct host_matrix x, y;

    b->divisor = 3;
    x = random_matrix(b, GR_F32, 33, 257, 0);
    y = random_matrix(b, GR_F32, 257, 31, 0);
    product.a = x.on_device;
    product.b = y.on_device;
    product.c = gr_arena_tensor_2d(&b->arena, GR_F32, 33, 31);
    product.alpha = 1.0f / 3;
    gr_free(x.values);
    gr_free(y.values);
    return product;
}

/* Algorithms whose sums depend on who comes first are not taken. */
TEST(cuda_gemm_again_same_bits)
{
    struct bench b;
    struct gr_cuda_product product;
    double *first = NULL;

    open_bench(&b);
    product = uneven_product(&b);
    for (int i = 0; i < 4; i++) {
        double *found;

        gr_cuda_gemm(&b.dev, "test", &product);
        found = fetch(&b, product.c);
        if (first != NULL)
            ASSERT(memcmp(first, found, 33 * 31 * sizeof *found) == 0);
        gr_free(first);
        first = found;
    }
    gr_free(first);
    close_bench(&b);
}

TEST(cuda_gemm_stride_below_width_fails_with_words)
{
    struct bench b;
    struct gr_cuda_product product = {};

    open_bench(&b);
    product.a = random_matrix(&b, GR_BF16, 8, 8, 0).on_device;
    product.b = random_matrix(&b, GR_BF16, 8, 8, 0).on_device;
    product.c = random_matrix(&b, GR_BF16, 8, 8, 0).on_device;
    product.a.stride = 4;
    product.alpha = 1;
    gr_cuda_gemm(&b.dev, "here", &product);
    ASSERT_INT(gr_device_sync(&b.dev), GR_ERR_DEVICE);
    ASSERT(strstr(b.dev.failure.message, "8 x 8 x 8") != NULL);
    close_bench(&b);
}

/* ---- a heuristic that finds little ---- */

TEST(cuda_gemm_with_less_asked_for_matches_f64)
{
    for (const char *sparse : {"1", "2", "3"}) {
        setenv("EMU_BLAS_SPARSE", sparse, 1);
        check_arrangements(GR_BF16, GR_F32, NULL);
    }
}

TEST(cuda_gemm_without_any_algorithm_fails_with_words)
{
    struct bench b;
    struct gr_cuda_product product = {};

    open_bench(&b);
    setenv("EMU_BLAS_SPARSE", "4", 1);
    product.a = random_matrix(&b, GR_BF16, 8, 8, 0).on_device;
    product.b = random_matrix(&b, GR_BF16, 8, 8, 0).on_device;
    product.c = random_matrix(&b, GR_BF16, 8, 8, 0).on_device;
    product.alpha = 1;
    gr_cuda_gemm(&b.dev, "here", &product);
    ASSERT_INT(gr_device_sync(&b.dev), GR_ERR_DEVICE);
    ASSERT(strstr(b.dev.failure.message, "NOT_SUPPORTED (found a product of 8 x 8 x 8)") != NULL);
    close_bench(&b);
}

/* ---- choices that one device takes over from another ---- */

/* The result of an uneven product, on a new device with those choices;
 * *choices: what the device has then.  For the caller to free, and to release. */
static double *product_with(struct gr_buffer *choices, const char *given)
{
    struct bench b;
    struct gr_cuda_product product;
    double *found;

    open_bench(&b);
    ASSERT_INT(gr_device_set_choices(&b.dev, given), GR_OK);
    product = uneven_product(&b);
    gr_cuda_gemm(&b.dev, "test", &product);
    found = fetch(&b, product.c);
    *choices = {};
    gr_device_get_choices(&b.dev, choices);
    close_bench(&b);
    return found;
}

TEST(cuda_gemm_choices_of_another_device_same_bits)
{
    const size_t bytes = 33 * 31 * sizeof(double);
    struct gr_buffer usual, other, taken;
    double *by_usual = product_with(&usual, ""), *by_other, *by_taken;

    setenv("EMU_BLAS_SPARSE", "1", 1); /* what has no workspace is another algorithm */
    by_other = product_with(&other, "");
    unsetenv("EMU_BLAS_SPARSE");
    by_taken = product_with(&taken, other.data);
    ASSERT(memcmp(by_usual, by_other, bytes) != 0);
    ASSERT(memcmp(by_taken, by_other, bytes) == 0);
    ASSERT_TEXT(taken.data, other.data);
    ASSERT(strcmp(usual.data, other.data) != 0);
    gr_free(by_usual);
    gr_free(by_other);
    gr_free(by_taken);
    gr_buffer_release(&usual);
    gr_buffer_release(&other);
    gr_buffer_release(&taken);
}

TEST(cuda_gemm_choices_that_are_none_are_refused)
{
    struct gr_buffer good;
    struct bench b;
    const char *const bad[] = {"nonsense\n", "attention own", "attention nobody's\n",
                               "product 00\n", "attention cudnn 91900\n"};

    gr_free(product_with(&good, ""));
    open_bench(&b);
    for (const char *text : bad) {
        ASSERT(gr_device_set_choices(&b.dev, text) != GR_OK);
        gr_error_clear();
    }
    good.data[good.length - 2] ^= 1; /* within the algorithm's unused end, as the double has it */
    ASSERT_INT(gr_device_set_choices(&b.dev, good.data), GR_OK);
    good.data[good.length - 129] ^= 1; /* its first byte, which says that it is one */
    ASSERT_INT(gr_device_set_choices(&b.dev, good.data), GR_ERR_DEVICE);
    gr_error_clear();
    good.data[good.length - 200] = 'x'; /* within the key */
    ASSERT_INT(gr_device_set_choices(&b.dev, good.data), GR_ERR_DATA);
    gr_buffer_release(&good);
    close_bench(&b);
}

TEST(cuda_gemm_settled_is_not_timed)
{
    struct bench b;
    const struct arrangement how = {GR_BF16, GR_F32, false, true, 0, arrangement::IN_PLACE};

    gr_test_enter_folder();
    open_bench(&b);
    gr_device_set_cache(&b.dev, "cache");
    gr_device_settle_choices(&b.dev);
    emu_count(1);
    check_product(&b, &how, 33, 31, 64);
    for (int64_t i = 0, products = 0; i < emu_counted(); i++) {
        products += strcmp(emu_counted_operation(i).name, "cublasLtMatmul") == 0;
        ASSERT(products <= 1);
    }
    ASSERT(access("cache", F_OK) != 0);
    close_bench(&b);
}

/* ---- algorithms chosen by time, and kept ---- */

/* Timing runs a product again and again: c is the result of one of them all the same. */
TEST(cuda_gemm_timed_matches_f64)
{
    gr_test_enter_folder();
    check_arrangements(GR_BF16, GR_BF16, "cache");
}

/* One product of a new device with that cache; how many products were run for it. */
static int64_t run_with_cache(const char *folder, enum arrangement::source_kind source)
{
    const struct arrangement how = {GR_BF16, GR_F32, false, true, 0, source};
    struct bench b;
    int64_t products = 0;

    open_bench(&b);
    if (folder != NULL)
        gr_device_set_cache(&b.dev, folder);
    emu_count(1);
    check_product(&b, &how, 33, 31, 64);
    for (int64_t i = 0; i < emu_counted(); i++)
        products += strcmp(emu_counted_operation(i).name, "cublasLtMatmul") == 0;
    close_bench(&b);
    return products;
}

/* The only name in a folder; the caller frees it. */
static char *only_name(const char *folder)
{
    DIR *names = opendir(folder);
    char *only = NULL;
    struct dirent *entry;

    ASSERT(names != NULL);
    while ((entry = readdir(names)) != NULL) {
        if (entry->d_name[0] != '.') {
            ASSERT(only == NULL);
            only = gr_format("%s/%s", folder, entry->d_name);
        }
    }
    closedir(names);
    ASSERT(only != NULL);
    return only;
}

/* The file that run_with_cache leaves in that folder. */
static char *kept_file(const char *folder)
{
    char *library = gr_format("%s/cublaslt", folder), *gpu = only_name(library);
    char *file = only_name(gpu);

    gr_free(library);
    gr_free(gpu);
    return file;
}

TEST(cuda_gemm_without_cache_runs_once)
{
    ASSERT_INT(run_with_cache(NULL, arrangement::IN_PLACE), 1);
}

TEST(cuda_gemm_kept_algorithm_is_not_timed_again)
{
    struct stat first, second;
    char *file;

    gr_test_enter_folder();
    ASSERT(run_with_cache("new/cache", arrangement::IN_PLACE) > 4);
    file = kept_file("new/cache");
    ASSERT_INT(stat(file, &first), 0);
    ASSERT_INT(run_with_cache("new/cache", arrangement::IN_PLACE), 1);
    ASSERT_INT(stat(file, &second), 0);
    ASSERT_INT(second.st_ino, first.st_ino);
    gr_free(file);
}

/* Another folder that cannot be written is no failure. */
TEST(cuda_gemm_cache_that_is_a_file_is_no_failure)
{
    gr_test_enter_folder();
    gr_test_write_text("taken", "");
    ASSERT(run_with_cache("taken/cache", arrangement::IN_PLACE) > 4);
    ASSERT(run_with_cache("taken/cache", arrangement::IN_PLACE) > 4);
}

TEST(cuda_gemm_damaged_file_is_written_anew)
{
    struct stat info;
    char *file, byte;

    gr_test_enter_folder();
    run_with_cache("new/cache", arrangement::IN_PLACE);
    file = kept_file("new/cache");
    ASSERT_INT(stat(file, &info), 0);
    /* of the magic, the key, the algorithm, its unused end, the sum; then the file is cut */
    for (off_t at : {(off_t)0, (off_t)8, (off_t)105, (off_t)160, info.st_size - 1, info.st_size}) {
        const int fd = open(file, O_RDWR);

        ASSERT(fd >= 0);
        if (at == info.st_size) {
            ASSERT_INT(ftruncate(fd, at - 1), 0);
        } else {
            ASSERT_INT(pread(fd, &byte, 1, at), 1);
            byte = (char)(byte ^ 1);
            ASSERT_INT(pwrite(fd, &byte, 1, at), 1);
        }
        close(fd);
        ASSERT(run_with_cache("new/cache", arrangement::IN_PLACE) > 4);
        ASSERT_INT(run_with_cache("new/cache", arrangement::IN_PLACE), 1);
    }
    gr_free(file);
}

/* The file of another product, which only the key tells from this one. */
TEST(cuda_gemm_file_of_another_key_is_written_anew)
{
    char *file, *other;

    gr_test_enter_folder();
    run_with_cache("new/cache", arrangement::IN_PLACE);
    run_with_cache("other", arrangement::ANOTHER);
    file = kept_file("new/cache");
    other = kept_file("other");
    ASSERT_INT(rename(other, file), 0);
    ASSERT(run_with_cache("new/cache", arrangement::IN_PLACE) > 4);
    ASSERT_INT(run_with_cache("new/cache", arrangement::IN_PLACE), 1);
    gr_free(file);
    gr_free(other);
}
