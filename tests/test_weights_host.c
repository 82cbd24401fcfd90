/* Weights on the host: exact widening, mapping without a copy, one memory for several processes. */
#include "data/weights_host.h"

#include "data/fd_share.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/widen.h"
#include "tests/files.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALL_HALVES = 1 << 16, LARGE = 3 * (1 << 18) + 5 };

__extension__ typedef _Float16 compiler_f16;

static const char *const names[] = {"f16", "f32", "bf16", "large", "scalar", "empty"};
static const float f32_data[3] = {1.5f, -0.0f, 3e38f};

/* m/model.safetensors: every half there is in both formats, and the cases around them. */
static void write_model(void)
{
    uint16_t *halves = gr_alloc(ALL_HALVES, 2), *large = gr_alloc(LARGE, 2);
    const struct gr_safetensors_item item[] = {
        {.name = "bf16", .dtype = GR_BF16, .ndim = 1, .dim = {ALL_HALVES}, .data = halves},
        {.name = "f16", .dtype = GR_F16, .ndim = 2, .dim = {256, 256}, .data = halves},
        {.name = "f32", .dtype = GR_F32, .ndim = 1, .dim = {3}, .data = f32_data},
        {.name = "large", .dtype = GR_BF16, .ndim = 1, .dim = {LARGE}, .data = large},
        {.name = "scalar", .dtype = GR_BF16, .ndim = 0, .data = "\x80\x3f"},
        {.name = "empty", .dtype = GR_F16, .ndim = 2, .dim = {0, 4}, .data = halves},
        {.name = "f64", .dtype = GR_F64, .ndim = 1, .dim = {1}, .data = halves},
        {.name = "matrix", .dtype = GR_BF16, .ndim = 2, .dim = {2, 4}, .data = halves},
        {.name = "u8", .dtype = GR_U8, .ndim = 1, .dim = {1}, .data = halves},
    };
    struct gr_buffer bytes = {0};

    for (int i = 0; i < ALL_HALVES; i++)
        halves[i] = (uint16_t)i;
    for (int i = 0; i < LARGE; i++)
        large[i] = (uint16_t)(i * 31 + 7);
    gr_safetensors_write(&bytes, item, GR_COUNT(item), NULL);
    ASSERT(mkdir("m", 0777) == 0);
    gr_test_write_file("m/model.safetensors", bytes.data, bytes.length);
    gr_buffer_release(&bytes);
    gr_free(halves);
    gr_free(large);
}

static uint32_t bits_of(const float *value)
{
    uint32_t bits;

    memcpy(&bits, value, sizeof bits);
    return bits;
}

/* Every value of tensor i of `names`, against the compiler's own conversion. */
static void assert_values(const struct gr_weights_host *weights)
{
    const float *f16 = gr_weights_host_data(weights, 0);
    const float *bf16 = gr_weights_host_data(weights, 2);
    const float *large = gr_weights_host_data(weights, 3);

    for (int i = 0; i < ALL_HALVES; i++) {
        uint16_t half = (uint16_t)i;
        compiler_f16 number;
        float expected;

        memcpy(&number, &half, sizeof half);
        expected = (float)number;
        if (isnan(expected)) /* a signalling NaN may become quiet there, here its bits stay */
            ASSERT(isnan(f16[i]) && (bits_of(&f16[i]) >> 13 & 0x3ff) == (half & 0x3ffu) &&
                   signbit(f16[i]) == signbit(expected));
        else
            ASSERT_MSG(bits_of(&f16[i]) == bits_of(&expected), "f16 0x%04x is %a, expected %a",
                       half, (double)f16[i], (double)expected);
        ASSERT_INT(bits_of(&bf16[i]), (uint32_t)half << 16);
    }
    for (int i = 0; i < LARGE; i++)
        ASSERT_INT(bits_of(&large[i]), (uint32_t)(uint16_t)(i * 31 + 7) << 16);
    ASSERT(memcmp(gr_weights_host_data(weights, 1), f32_data, sizeof f32_data) == 0);
    ASSERT_NEAR(*(const float *)gr_weights_host_data(weights, 4), 1, 0);
}

static struct gr_weights_host_options options_of(int local_rank, int local_size, double timeout_s)
{
    static char key[256]; /* the scratch folder: no other run of this test has it */

    ASSERT(getcwd(key, sizeof key) != NULL);
    return (struct gr_weights_host_options){.local_rank = local_rank,
                                            .local_size = local_size,
                                            .job_key = key,
                                            .threads = 1 + local_rank % 3,
                                            .timeout_s = timeout_s};
}

/* Both calls; *weights is NULL after a failure. */
static gr_status create_and_share(struct gr_weights_host **weights,
                                  const struct gr_model_files *model, const char *const *name,
                                  int64_t count, const struct gr_weights_host_options *options)
{
    gr_status status = GR_OK;

    GR_TRY(gr_weights_host_create(weights, model, name, count, options));
    GR_TRY(gr_weights_host_share(*weights, options));
out:
    if (status != GR_OK) {
        gr_weights_host_destroy(*weights);
        *weights = NULL;
    }
    return status;
}

/* bf16 asked for: a bf16 file is mapped, the others are rounded to the nearest. */
TEST(weights_host_bf16_is_mapped_others_are_rounded)
{
    static const char *const asked[] = {"bf16", "f32", "f16"};
    struct gr_weights_host_options options = options_of(0, 1, 10);
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    const uint16_t *found;
    int64_t bytes = 0, mapped = 0;

    gr_test_enter_folder();
    write_model();
    options.dtype = GR_BF16;
    ASSERT_OK(gr_model_files_open(&model, "m"));
    ASSERT_OK(gr_weights_host_measure(&bytes, &mapped, &model, asked, 1, GR_BF16));
    ASSERT_INT(bytes, 0);
    ASSERT_INT(mapped, 2 * ALL_HALVES);
    ASSERT_OK(create_and_share(&weights, &model, asked, GR_COUNT(asked), &options));
    ASSERT(gr_weights_host_data(weights, 0) ==
           gr_model_tensor_data(gr_model_files_find(&model, "bf16")));
    found = gr_weights_host_data(weights, 1);
    for (int64_t i = 0; i < GR_COUNT(f32_data); i++)
        ASSERT_INT(found[i], gr_float_to_bf16(f32_data[i]));
    found = gr_weights_host_data(weights, 2);
    for (int i = 0; i < ALL_HALVES; i++)
        ASSERT_INT(found[i], gr_float_to_bf16(gr_float_from_f16((uint16_t)i)));
    gr_weights_host_destroy(weights);
    gr_model_files_close(&model);
}

/* What computes in f32 takes a matrix of bf16 as it is. */
TEST(weights_host_bf16_matrix_stays_mapped_for_f32)
{
    static const char *const asked[] = {"matrix", "bf16"};
    struct gr_weights_host_options options = options_of(0, 1, 10);
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;

    gr_test_enter_folder();
    write_model();
    options.dtype = GR_F32;
    ASSERT_OK(gr_model_files_open(&model, "m"));
    ASSERT_OK(create_and_share(&weights, &model, asked, GR_COUNT(asked), &options));
    ASSERT(gr_weights_host_data(weights, 0) ==
           gr_model_tensor_data(gr_model_files_find(&model, "matrix")));
    ASSERT_INT(gr_weights_host_dtype(weights, 0), GR_BF16);
    ASSERT_INT(gr_weights_host_dtype(weights, 1), GR_F32);
    gr_weights_host_destroy(weights);
    gr_model_files_close(&model);
}

TEST(weights_host_one_process_widens_exactly)
{
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    const struct gr_model_tensor *f32 = NULL;
    int64_t bytes = 0, mapped = 0;

    gr_test_enter_folder();
    write_model();
    ASSERT_OK(gr_model_files_open(&model, "m"));
    ASSERT_OK(gr_weights_host_measure(&bytes, &mapped, &model, names, GR_COUNT(names), GR_F32));
    ASSERT_INT(bytes, 4 * ALL_HALVES * 2 + (4 * LARGE + 63) / 64 * 64 + 64);
    ASSERT_INT(mapped, (int64_t)sizeof f32_data);
    for (int threads = 1; threads <= 3; threads++) {
        struct gr_weights_host_options options = options_of(0, 1, 10);

        options.threads = threads;
        ASSERT_OK(create_and_share(&weights, &model, names, GR_COUNT(names), &options));
        assert_values(weights);
        f32 = gr_model_files_find(&model, "f32");
        ASSERT(gr_weights_host_data(weights, 1) == gr_model_tensor_data(f32)); /* no copy */
        gr_weights_host_destroy(weights);
    }
    gr_weights_host_destroy(NULL);
    gr_model_files_close(&model);
}

/* Pages of the mapped tensor that are in memory. */
static int64_t resident_pages(const unsigned char *data, int64_t bytes, int64_t page)
{
    unsigned char *begin = (unsigned char *)(uintptr_t)(data - (uintptr_t)data % (uintptr_t)page);
    int64_t pages = (data + bytes - begin + page - 1) / page, count = 0;
    unsigned char *is_there = GR_NEW_ARRAY(unsigned char, pages);

    ASSERT(mincore(begin, (size_t)(pages * page), is_there) == 0);
    for (int64_t i = 0; i < pages; i++)
        count += is_there[i] & 1;
    gr_free(is_there);
    return count;
}

/* Nobody reads: the pages come all the same, those that were named and no others that far away. */
TEST(weights_host_expected_bytes_are_fetched_meanwhile)
{
    static const char *const asked[] = {"large", "f16"};
    struct gr_weights_host_options options = options_of(0, 1, 10);
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    const unsigned char *data;
    int64_t page = sysconf(_SC_PAGESIZE), bytes = 2 * LARGE, pages = bytes / page, found = 0;
    int fd;

    gr_test_enter_folder();
    write_model();
    options.dtype = GR_BF16;
    ASSERT_OK(gr_model_files_open(&model, "m"));
    ASSERT_OK(create_and_share(&weights, &model, asked, GR_COUNT(asked), &options));
    data = gr_weights_host_data(weights, 0);
    fd = open("m/model.safetensors", O_RDONLY | O_CLOEXEC);
    ASSERT(fd >= 0 && fsync(fd) == 0);
    gr_file_map_forget(&model.file[0].map, 0, model.file[0].map.identity.bytes);
    ASSERT(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    close(fd);
    if (resident_pages(data, bytes, page) > 2)
        SKIP("this file system keeps its files in memory");
    gr_weights_host_expect(weights, 1, 0, 2 * ALL_HALVES); /* converted: nothing to do */
    ASSERT(resident_pages(data, bytes, page) <= 2);
    gr_weights_host_expect(weights, 0, 0, bytes / 2);
    for (int i = 0; i < 500 && (found = resident_pages(data, bytes, page)) < pages / 2; i++)
        gr_sleep_ns(10000000);
    ASSERT_MSG(found >= pages / 2 && found < pages * 3 / 4, "%lld of %lld pages", (long long)found,
               (long long)pages);
    gr_weights_host_destroy(weights);
    gr_model_files_close(&model);
}

/* Nothing in the format keeps a header's length even. */
TEST(weights_host_data_at_odd_addresses_is_copied)
{
    const float f32[2] = {2.5f, -7};
    const uint16_t f16 = 0x3e00, bf16 = 0x3fc0; /* 1.5 */
    const char *const asked[] = {"x", "h", "b"};
    struct gr_weights_host_options options = options_of(0, 1, 10);
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    unsigned char data[12];

    gr_test_enter_folder();
    memcpy(data, f32, 8);
    memcpy(data + 8, &f16, 2);
    memcpy(data + 10, &bf16, 2);
    ASSERT(mkdir("m", 0777) == 0);
    gr_test_write_safetensors("m/model.safetensors",
                              "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                              "\"h\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[8,10]},"
                              "\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[10,12]}}",
                              data, sizeof data);
    ASSERT_OK(gr_model_files_open(&model, "m"));
    for (int64_t i = 0; i < model.count; i++)
        ASSERT(model.tensor[i].entry->offset % 2 != 0);
    ASSERT_OK(create_and_share(&weights, &model, asked, GR_COUNT(asked), &options));
    for (int64_t i = 0; i < GR_COUNT(asked); i++)
        ASSERT_INT((uintptr_t)gr_weights_host_data(weights, i) % 64, 0);
    ASSERT(memcmp(gr_weights_host_data(weights, 0), f32, sizeof f32) == 0);
    ASSERT_NEAR(*(const float *)gr_weights_host_data(weights, 1), 1.5, 0);
    ASSERT_NEAR(*(const float *)gr_weights_host_data(weights, 2), 1.5, 0);
    gr_weights_host_destroy(weights);
    gr_model_files_close(&model);
}

TEST(weights_host_other_dtypes_and_missing_tensors_are_refused)
{
    static const struct {
        const char *name;
        const char *message;
    } refused[] = {
        {"f64", "m/model.safetensors: tensor \"f64\" has the wrong dtype (found F64, expected "
                "F32, BF16 or F16)"},
        {"u8", "m/model.safetensors: tensor \"u8\" has the wrong dtype (found U8, expected F32, "
               "BF16 or F16)"},
        {"none", "m: tensor \"none\" is missing (found nothing, expected a weight)"},
    };
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    int64_t bytes = 0, mapped = 0;

    gr_test_enter_folder();
    write_model();
    ASSERT_OK(gr_model_files_open(&model, "m"));
    for (int64_t i = 0; i < GR_COUNT(refused); i++) {
        const char *asked[] = {"bf16", refused[i].name};
        struct gr_weights_host_options options = options_of(0, 1, 10);

        ASSERT_INT(gr_weights_host_create(&weights, &model, asked, 2, &options), GR_ERR_DATA);
        ASSERT_TEXT(gr_error_message(), refused[i].message);
        ASSERT(weights == NULL);
        gr_error_clear();
        ASSERT_INT(gr_weights_host_measure(&bytes, &mapped, &model, asked, 2, GR_F32), GR_ERR_DATA);
        gr_error_clear();
    }
    gr_model_files_close(&model);
}

/* The inode of the mapping that holds `address`; 0 if it is no file. */
static unsigned long long mapped_inode(const void *address)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long long begin, end, inode, found = 0;
    char line[512];

    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        if (sscanf(line, "%llx-%llx %*s %*s %*s %llu", &begin, &end, &inode) == 3 &&
            (uintptr_t)address >= begin && (uintptr_t)address < end)
            found = strstr(line, "memfd:graft-weights") != NULL ? inode : 0;
    }
    if (maps != NULL)
        fclose(maps);
    return found;
}

/* Three processes, the first of them late: one memory, the same values. */
TEST(weights_host_three_processes_share_one_memory)
{
    enum { SIZE = 3 };
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    unsigned long long inode[SIZE] = {0};
    int results[2];
    int local_rank = 0;

    gr_test_enter_folder();
    write_model();
    ASSERT(pipe(results) == 0);
    ASSERT_OK(gr_model_files_open(&model, "m"));
    fflush(NULL);
    for (int r = 1; r < SIZE && local_rank == 0; r++)
        local_rank = fork() == 0 ? r : 0;
    if (local_rank == 0)
        gr_sleep_ns(200000000);
    {
        struct gr_weights_host_options options = options_of(local_rank, SIZE, 20);

        ASSERT_OK(create_and_share(&weights, &model, names, GR_COUNT(names), &options));
    }
    assert_values(weights);
    inode[0] = mapped_inode(gr_weights_host_data(weights, 0));
    if (local_rank != 0) {
        ASSERT(write(results[1], inode, sizeof inode[0]) == sizeof inode[0]);
        _exit(0);
    }
    for (int r = 1; r < SIZE; r++) {
        int wait_status = -1;

        ASSERT(wait(&wait_status) > 0);
        ASSERT(WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0);
        ASSERT(read(results[0], &inode[r], sizeof inode[r]) == sizeof inode[r]);
        ASSERT(inode[r] != 0 && inode[r] == inode[0]);
    }
    gr_weights_host_destroy(weights);
    gr_model_files_close(&model);
}

/* What a peer gets is sealed: it can be neither written nor cut by anybody. */
TEST(weights_host_shared_memory_is_sealed)
{
    struct gr_weights_host_options options;
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    pid_t child;
    int fd = -1;

    gr_test_enter_folder();
    write_model();
    ASSERT_OK(gr_model_files_open(&model, "m"));
    options = options_of(0, 2, 10);
    child = fork();
    if (child == 0)
        _exit(create_and_share(&weights, &model, names, GR_COUNT(names), &options) == GR_OK ? 0
                                                                                            : 1);
    ASSERT_OK(gr_fd_take(&fd, options.job_key, gr_clock_ns() + 10000000000));
    ASSERT(write(fd, "x", 1) < 0 && errno == EPERM);
    ASSERT(ftruncate(fd, 1) < 0 && errno == EPERM);
    ASSERT(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    ASSERT(waitpid(child, NULL, 0) == child);
    close(fd);
    gr_model_files_close(&model);
}

/* ---- peers that fail -------------------------------------------------------------------- */

TEST(weights_host_missing_processes_end_at_the_deadline)
{
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    int64_t start_ns = 0;

    gr_test_enter_folder();
    write_model();
    ASSERT_OK(gr_model_files_open(&model, "m"));
    for (int local_rank = 0; local_rank < 2; local_rank++) {
        struct gr_weights_host_options options = options_of(local_rank, 3, 0.3);

        start_ns = gr_clock_ns();
        ASSERT_INT(create_and_share(&weights, &model, names, GR_COUNT(names), &options),
                   GR_ERR_RETRY);
        ASSERT_TEXT(strchr(gr_error_message(), ':'),
                    local_rank == 0
                        ? ": local processes did not come in time (found 0, expected 2)"
                        : ": the first process of this host did not offer its file in time");
        ASSERT(gr_clock_ns() - start_ns > 250000000);
        ASSERT(gr_clock_ns() - start_ns < 5000000000);
        gr_error_clear();
    }
    gr_model_files_close(&model);
}

TEST(weights_host_first_process_that_dies_is_noticed_at_once)
{
    struct gr_weights_host_options options;
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    int64_t start_ns = gr_clock_ns();
    pid_t child;

    gr_test_enter_folder();
    write_model();
    ASSERT_OK(gr_model_files_open(&model, "m"));
    options = options_of(1, 2, 60);
    child = fork();
    if (child == 0) {
        int listener = -1;

        gr_fd_offer_open(&listener, options.job_key, 1, start_ns + 10000000000);
        gr_sleep_ns(300000000);
        _exit(0);
    }
    ASSERT_INT(create_and_share(&weights, &model, names, GR_COUNT(names), &options), GR_ERR_RETRY);
    ASSERT(strstr(gr_error_message(), "the first process of this host gave up") != NULL);
    ASSERT(gr_clock_ns() - start_ns < 10000000000);
    ASSERT(waitpid(child, NULL, 0) == child);
    gr_model_files_close(&model);
}

/* A name in use is waited for: an older process of the job may be on its way out. */
TEST(weights_host_taken_name_is_refused_at_the_deadline)
{
    struct gr_weights_host_options options;
    int64_t start_ns = gr_clock_ns();
    int first = -1, second = -1;

    gr_test_enter_folder();
    options = options_of(0, 2, 0.2);
    ASSERT_OK(gr_fd_offer_open(&first, options.job_key, 1, gr_clock_ns() + 1000000000));
    ASSERT_INT(gr_fd_offer_open(&second, options.job_key, 1, gr_clock_ns() + 100000000),
               GR_ERR_RETRY);
    ASSERT(strstr(gr_error_message(),
                  "the local socket cannot be named (Address already in use)") != NULL);
    ASSERT(gr_clock_ns() - start_ns > 90000000);
    gr_error_clear();
    close(first);
    ASSERT_OK(gr_fd_offer_open(&second, options.job_key, 1, gr_clock_ns() + 1000000000));
    close(second);
}

TEST(weights_host_other_weights_are_refused)
{
    struct gr_weights_host_options options;
    struct gr_model_files model;
    struct gr_weights_host *weights = NULL;
    pid_t child;

    gr_test_enter_folder();
    write_model();
    ASSERT_OK(gr_model_files_open(&model, "m"));
    options = options_of(0, 2, 10);
    child = fork();
    if (child == 0) {
        create_and_share(&weights, &model, names + 2, 1, &options);
        _exit(0);
    }
    options.local_rank = 1;
    ASSERT_INT(create_and_share(&weights, &model, names, GR_COUNT(names), &options), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(),
                "m: another process of this host shares other weights (found 262144 bytes, "
                "expected 3670144 bytes, sealed)");
    ASSERT(waitpid(child, NULL, 0) == child);
    gr_model_files_close(&model);
}
