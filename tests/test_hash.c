/* Hashes of buffers and files, the finite check, and the cache of both. */
#include "data/hash.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "tests/files.h"
#include "tests/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct gr_hash_options one_thread = {.threads = 1};

/* Known answers of FIPS 180-2, appendix B. */
TEST(hash_buffer_known_answers)
{
    char hex[GR_SHA256_HEX_BYTES];

    gr_sha256_hex(hex, "", 0);
    ASSERT_TEXT(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    gr_sha256_hex(hex, "abc", 3);
    ASSERT_TEXT(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* The definition, computed by another hand: sha256sum of the digests of the chunks. */
TEST(hash_file_is_the_hash_of_its_chunks_hashes)
{
    static const struct {
        int64_t bytes;
        const char *hex;
    } known[] = {
        {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {3, "1c502ac9ab8e4dd556645c52182cd2fee2e7e1608e8655f68732993b3a1f5ae4"},
        {GR_HASH_CHUNK_BYTES, "4f7f555d45992803562152b46908b7ac8818a0856f0cb4838452f5966d52dec8"},
        {GR_HASH_CHUNK_BYTES + 1,
         "09b09e9dc070d6f95cfc1c2477b62521b070d5d105ea59ee66393bc3d31e140a"},
        {2 * GR_HASH_CHUNK_BYTES,
         "b203cca5e4699d0ff9d0f27490a0db7be8443686eef717206d3786c271d4de93"},
        {5 * GR_HASH_CHUNK_BYTES - 7,
         "c2c31729d5ed3e069c06ca1f0e413e6f620ed52cf6784f586b1f89e9713f8601"},
    };
    int64_t capacity = 5 * GR_HASH_CHUNK_BYTES;
    char *bytes = gr_alloc(capacity, 1);
    char hex[GR_SHA256_HEX_BYTES];

    gr_test_enter_folder();
    for (int64_t i = 0; i < capacity; i++)
        bytes[i] = (char)(i * 7 + i / 1000);
    for (int64_t i = 0; i < GR_COUNT(known); i++) {
        gr_test_write_file("x", bytes, (size_t)known[i].bytes);
        for (int threads = 1; threads <= 3; threads++) {
            ASSERT_OK(gr_hash_file(hex, "x", &(struct gr_hash_options){.threads = threads}));
            ASSERT_TEXT(hex, known[i].hex);
        }
    }
    gr_free(bytes);
}

TEST(hash_file_missing_is_refused)
{
    char hex[GR_SHA256_HEX_BYTES];

    gr_test_enter_folder();
    ASSERT_INT(gr_hash_file(hex, "x", &one_thread), GR_ERR_NOT_FOUND);
    ASSERT_TEXT(gr_error_message(), "x: there is no such file (found nothing, expected a file)");
}

/* ---- non-finite weights ----------------------------------------------------------------- */

/* 3 MiB of zeros per tensor; the last tensor starts in the first chunk and ends in the second. */
enum { ELEMENTS = 3 << 19 };

static void write_weights(const char *path, const uint16_t *f16, const uint16_t *bf16,
                          const uint32_t *f32, const uint64_t *f64)
{
    const struct gr_safetensors_item item[] = {
        {.name = "a", .dtype = GR_F64, .ndim = 1, .dim = {ELEMENTS / 4}, .data = f64},
        {.name = "c", .dtype = GR_F32, .ndim = 1, .dim = {ELEMENTS / 2}, .data = f32},
        {.name = "b", .dtype = GR_BF16, .ndim = 1, .dim = {ELEMENTS}, .data = bf16},
        {.name = "z", .dtype = GR_F16, .ndim = 1, .dim = {ELEMENTS}, .data = f16},
        {.name = "i",
         .dtype = GR_I32,
         .ndim = 1,
         .dim = {2},
         .data = "\xff\xff\xff\xff\xff\xff\xff"},
        {.name = "e", .dtype = GR_F32, .ndim = 1, .dim = {0}, .data = f32},
    };
    struct gr_buffer bytes = {0};

    gr_safetensors_write(&bytes, item, GR_COUNT(item), NULL);
    gr_test_write_file(path, bytes.data, bytes.length);
    gr_buffer_release(&bytes);
}

static gr_status hash_weights(int threads, const char *cache_dir)
{
    struct gr_safetensors file;
    char hex[GR_SHA256_HEX_BYTES], plain[GR_SHA256_HEX_BYTES];
    gr_status status;

    ASSERT_OK(gr_safetensors_open(&file, "x.safetensors"));
    status = gr_hash_weights(hex, &file,
                             &(struct gr_hash_options){.cache_dir = cache_dir, .threads = threads});
    if (status == GR_OK) {
        ASSERT_OK(gr_hash_file(plain, "x.safetensors", &one_thread));
        ASSERT_TEXT(hex, plain);
    }
    gr_safetensors_close(&file);
    return status;
}

TEST(hash_weights_first_bad_element_is_named)
{
    uint16_t *f16 = gr_alloc(ELEMENTS, 2), *bf16 = gr_alloc(ELEMENTS, 2);
    uint32_t *f32 = gr_alloc(ELEMENTS / 2, 4);
    uint64_t *f64 = gr_alloc(ELEMENTS / 4, 8);
    const char *const messages[] = {
        "x.safetensors: tensor \"z\": element 1572863 of 1572864 is not finite (found inf, "
        "expected "
        "a number)",
        "x.safetensors: tensor \"z\": element 1025 of 1572864 is not finite (found nan, expected a "
        "number)",
        "x.safetensors: tensor \"b\": element 0 of 1572864 is not finite (found inf, expected a "
        "number)",
        "x.safetensors: tensor \"c\": element 786431 of 786432 is not finite (found nan, expected "
        "a "
        "number)",
        "x.safetensors: tensor \"a\": element 77 of 393216 is not finite (found nan, expected a "
        "number)",
    };

    gr_test_enter_folder();
    for (int64_t i = 0; i < ELEMENTS; i++) { /* the largest finite numbers */
        f16[i] = 0xfbff;
        bf16[i] = 0x7f7f;
    }
    write_weights("x.safetensors", f16, bf16, f32, f64);
    for (int threads = 1; threads <= 3; threads++)
        ASSERT_OK(hash_weights(threads, NULL));
    for (int bad = 0; bad < (int)GR_COUNT(messages); bad++) {
        if (bad == 0)
            f16[ELEMENTS - 1] = 0x7c00;
        if (bad == 1)
            f16[1025] = 0xfc01;
        if (bad == 2)
            bf16[0] = 0xff80;
        if (bad == 3)
            f32[ELEMENTS / 2 - 1] = 0x7fc00000;
        if (bad == 4)
            f64[77] = 0xfff0000000000001;
        write_weights("x.safetensors", f16, bf16, f32, f64);
        for (int threads = 1; threads <= 3; threads++) {
            ASSERT_INT(hash_weights(threads, NULL), GR_ERR_DATA);
            ASSERT_TEXT(gr_error_message(), messages[bad]);
            gr_error_clear();
        }
    }
    gr_free(f16);
    gr_free(bf16);
    gr_free(f32);
    gr_free(f64);
}

/* An element whose bytes lie in two chunks belongs to the first. */
TEST(hash_weights_element_across_chunks_is_seen)
{
    enum { COUNT = 3 << 20 };
    static const char text[] =
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[3145728],\"data_offsets\":[0,12582912]}}          ";
    uint32_t *data = gr_alloc(COUNT, sizeof *data);
    char header[128];
    int64_t across = 0;

    gr_test_enter_folder();
    for (size_t pad = 0; pad < 4; pad++) {
        size_t length = strlen(text) - pad;

        memcpy(header, text, length);
        header[length] = '\0';
        across = (GR_HASH_CHUNK_BYTES - 8 - (int64_t)length) / 4;
        for (int64_t i = across - 1; i <= across + 1; i++) {
            data[i] = 0x7f800000;
            gr_test_write_safetensors("x.safetensors", header, data, COUNT * sizeof *data);
            ASSERT_INT(hash_weights(2, NULL), GR_ERR_DATA);
            ASSERT(strstr(gr_error_message(), "is not finite") != NULL);
            gr_error_clear();
            data[i] = 0;
        }
    }
    gr_free(data);
}

/* ---- the cache -------------------------------------------------------------------------- */

/* The only file in cache/hashes. */
static char *cached_file(void)
{
    DIR *folder = opendir("cache/hashes");
    char *path = NULL;

    for (struct dirent *e = folder ? readdir(folder) : NULL; e != NULL; e = readdir(folder)) {
        if (e->d_name[0] != '.') {
            ASSERT(path == NULL);
            path = gr_format("cache/hashes/%s", e->d_name);
        }
    }
    if (folder != NULL)
        closedir(folder);
    return path;
}

/* Writes a verdict on x.safetensors that nobody reached by looking. */
static void plant_verdict(const char *path, const char *sha256)
{
    struct gr_file_identity id;
    char *text = NULL;

    ASSERT_OK(gr_file_identity(&id, "x.safetensors"));
    text = gr_format("{\"size\":%" PRId64 ",\"mtime_ns\":%" PRId64 ",\"ctime_ns\":%" PRId64
                     ",\"sha256\":\"%s\",\"finite\":false}",
                     id.bytes, id.mtime_ns, id.ctime_ns, sha256);
    gr_test_write_text(path, text);
    gr_free(text);
}

TEST(hash_cache_keeps_only_what_can_be_trusted)
{
    const struct gr_hash_options cached = {.cache_dir = "cache", .threads = 1};
    const float weight = 1;
    const struct gr_safetensors_item item = {.name = "w", .dtype = GR_F32, .data = &weight};
    struct gr_buffer bytes = {0};
    char first[GR_SHA256_HEX_BYTES], second[GR_SHA256_HEX_BYTES];
    const char *zeros = "0000000000000000000000000000000000000000000000000000000000000000";
    char *path = NULL;
    struct gr_file_identity id;

    gr_test_enter_folder();
    gr_safetensors_write(&bytes, &item, 1, NULL);
    gr_test_write_file("x.safetensors", bytes.data, bytes.length);
    ASSERT_OK(gr_hash_file(first, "x.safetensors", &cached));
    ASSERT(cached_file() == NULL); /* too young */
    gr_sleep_ns(2100000000);
    ASSERT_OK(gr_hash_file(first, "x.safetensors", &cached));
    path = cached_file();
    ASSERT(path != NULL);

    /* What stands there is believed (for hashing, not for weights that nobody looked at) ... */
    plant_verdict(path, zeros);
    ASSERT_OK(gr_hash_file(second, "x.safetensors", &cached));
    ASSERT_TEXT(second, zeros);
    ASSERT_OK(hash_weights(1, "cache")); /* compares with the true hash */
    ASSERT_OK(gr_hash_file(second, "x.safetensors", &cached));
    ASSERT_TEXT(second, first); /* and replaced the planted one */

    /* ... but not when it is broken ... */
    gr_test_write_text(path, "{\"size\":");
    ASSERT_OK(gr_hash_file(second, "x.safetensors", &cached));
    ASSERT_TEXT(second, first);
    plant_verdict(path, zeros + 1);
    ASSERT_OK(gr_hash_file(second, "x.safetensors", &cached));
    ASSERT_TEXT(second, first);

    /* ... or about other bytes: same size and mtime, written in place. */
    ASSERT_OK(gr_file_identity(&id, "x.safetensors"));
    bytes.data[bytes.length - 1] = 0x40;
    gr_test_write_file("x.safetensors", bytes.data, bytes.length);
    ASSERT(utimensat(AT_FDCWD, "x.safetensors",
                     (struct timespec[2]){
                         {.tv_nsec = UTIME_OMIT},
                         {.tv_sec = id.mtime_ns / 1000000000, .tv_nsec = id.mtime_ns % 1000000000}},
                     0) == 0);
    ASSERT_OK(gr_hash_file(second, "x.safetensors", &cached));
    ASSERT(strcmp(second, first) != 0);
    gr_buffer_release(&bytes);
    gr_free(path);
}

TEST(hash_cache_that_cannot_be_used_costs_only_time)
{
    char hex[GR_SHA256_HEX_BYTES];

    gr_test_enter_folder();
    gr_test_write_text("taken", "");
    gr_test_write_text("x", "abc");
    gr_sleep_ns(2100000000);
    ASSERT_OK(gr_hash_file(hex, "x",
                           &(struct gr_hash_options){.cache_dir = "taken/cache", .threads = 1}));
    ASSERT(mkdir("cache", 0777) == 0);
    gr_test_write_text("cache/hashes", "a file where a folder should be");
    ASSERT_OK(
        gr_hash_file(hex, "x", &(struct gr_hash_options){.cache_dir = "cache", .threads = 1}));
    ASSERT(!gr_error_is_set());
}
