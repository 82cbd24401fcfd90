/* Hashing with several threads, and the cache of verdicts.  See hash.h.
 *
 * Threads take chunks in the order of the file from one counter.  The first non-finite element is
 * the one with the lowest offset any thread found: every chunk before it has been taken. */
#include "data/hash.h"

#include "data/store/store.h"
#include "data/threads.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MIN_AGE_S = 2 }; /* file systems tell times apart by as much as this */

static void digest_of(unsigned char digest[GR_SHA256_BYTES], const void *bytes, int64_t count)
{
    int done = EVP_Digest(bytes, (size_t)count, digest, NULL, EVP_sha256(), NULL);

    GR_CHECK(done == 1, "EVP_Digest of %" PRId64 " bytes", count);
}

static void write_hex(char hex[GR_SHA256_HEX_BYTES], const unsigned char digest[GR_SHA256_BYTES])
{
    for (int i = 0; i < GR_SHA256_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void gr_sha256_hex(char hex[GR_SHA256_HEX_BYTES], const void *bytes, int64_t count)
{
    unsigned char digest[GR_SHA256_BYTES];

    digest_of(digest, bytes, count);
    write_hex(hex, digest);
}

gr_status gr_sha256_file(char hex[GR_SHA256_HEX_BYTES], const char *path)
{
    enum { PIECE_BYTES = 1 << 20 };
    gr_status status = GR_OK;
    unsigned char digest[GR_SHA256_BYTES];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    char *piece = gr_alloc(PIECE_BYTES, 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = 0;

    if (fd < 0)
        GR_TRY(gr_file_fail(path, "opened"));
    EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    while ((count = read(fd, piece, PIECE_BYTES)) > 0)
        EVP_DigestUpdate(context, piece, (size_t)count);
    if (count < 0)
        GR_TRY(gr_file_fail(path, "read"));
    EVP_DigestFinal_ex(context, digest, NULL);
    write_hex(hex, digest);
out:
    EVP_MD_CTX_free(context);
    gr_free(piece);
    if (fd >= 0)
        close(fd);
    return status;
}

/* ---- non-finite elements ---------------------------------------------------------------- */

/* Bits that are all set in NaNs and infinities, and in them alone; 0: dtypes without these. */
static uint64_t exponent_bits(enum gr_dtype dtype)
{
    static const uint64_t bits[GR_DTYPE_COUNT + 1] = {[GR_F32] = 0x7f800000,
                                                      [GR_BF16] = 0x7f80,
                                                      [GR_F16] = 0x7c00,
                                                      [GR_F64] = 0x7ff0000000000000};

    return bits[dtype];
}

/* first_bad_T(data, begin, end, mask): the first element in [begin, end) with all bits of `mask`,
 * or -1.  Whole blocks are tested first, which compilers do with vectors. */
#define DEFINE_FIRST_BAD(type)                                                                     \
    static int64_t first_bad_##type(const unsigned char *data, int64_t begin, int64_t end,         \
                                    type mask)                                                     \
    {                                                                                              \
        enum { BLOCK = 1024 };                                                                     \
                                                                                                   \
        for (int64_t block = begin; block < end; block += BLOCK) {                                 \
            int64_t stop = end - block < BLOCK ? end : block + BLOCK;                              \
            int bad = 0;                                                                           \
                                                                                                   \
            for (int64_t i = block; i < stop; i++) {                                               \
                type element;                                                                      \
                memcpy(&element, data + i * (int64_t)sizeof element, sizeof element);              \
                bad |= (element & mask) == mask;                                                   \
            }                                                                                      \
            for (int64_t i = block; bad && i < stop; i++) {                                        \
                type element;                                                                      \
                memcpy(&element, data + i * (int64_t)sizeof element, sizeof element);              \
                if ((element & mask) == mask)                                                      \
                    return i;                                                                      \
            }                                                                                      \
        }                                                                                          \
        return -1;                                                                                 \
    }
DEFINE_FIRST_BAD(uint16_t)
DEFINE_FIRST_BAD(uint32_t)
DEFINE_FIRST_BAD(uint64_t)

static int64_t first_bad(const unsigned char *data, enum gr_dtype dtype, int64_t begin, int64_t end)
{
    uint64_t mask = exponent_bits(dtype);

    switch (gr_dtype_bytes(dtype)) {
    case sizeof(uint16_t):
        return first_bad_uint16_t(data, begin, end, (uint16_t)mask);
    case sizeof(uint32_t):
        return first_bad_uint32_t(data, begin, end, (uint32_t)mask);
    default:
        return first_bad_uint64_t(data, begin, end, mask);
    }
}

/* ---- chunks ----------------------------------------------------------------------------- */

struct hash_job {
    const struct gr_file_map *map;
    const struct gr_safetensors *weights; /* NULL: nothing to look for */
    unsigned char (*digest)[GR_SHA256_BYTES];
    int64_t chunk_count;
    _Atomic int64_t next_chunk;
    _Atomic int64_t bad_offset; /* of the first non-finite element; INT64_MAX: none */
};

/* The element whose first byte is the first at or behind byte `at` of the file. */
static int64_t element_from(const struct gr_safetensors_entry *entry, int64_t at)
{
    int64_t size = gr_dtype_bytes(entry->dtype);

    if (at <= entry->offset)
        return 0;
    if (at >= entry->offset + entry->bytes)
        return entry->bytes / size;
    return (at - entry->offset + size - 1) / size;
}

/* Looks at the elements that start in the chunk; they may end behind it. */
static void scan_chunk(struct hash_job *job, int64_t chunk_begin, int64_t chunk_end)
{
    const struct gr_safetensors *file = job->weights;

    for (int64_t i = 0; i < file->count; i++) {
        const struct gr_safetensors_entry *entry = &file->entry[i];
        int64_t bad = -1, lowest = 0;

        if (exponent_bits(entry->dtype) == 0)
            continue;
        bad = first_bad(gr_safetensors_data(file, entry), entry->dtype,
                        element_from(entry, chunk_begin), element_from(entry, chunk_end));
        if (bad < 0)
            continue;
        bad = entry->offset + bad * gr_dtype_bytes(entry->dtype);
        lowest = atomic_load(&job->bad_offset);
        while (bad < lowest && !atomic_compare_exchange_weak(&job->bad_offset, &lowest, bad))
            ;
    }
}

static void hash_chunks(void *context)
{
    struct hash_job *job = context;
    int64_t chunk = 0;

    while ((chunk = atomic_fetch_add(&job->next_chunk, 1)) < job->chunk_count) {
        int64_t begin = chunk * GR_HASH_CHUNK_BYTES;
        int64_t bytes = job->map->identity.bytes - begin;

        if (begin > atomic_load(&job->bad_offset))
            return; /* the file is refused for something before this chunk */
        if (bytes > GR_HASH_CHUNK_BYTES)
            bytes = GR_HASH_CHUNK_BYTES;
        digest_of(job->digest[chunk], job->map->data + begin, bytes);
        if (job->weights != NULL)
            scan_chunk(job, begin, begin + bytes);
        gr_file_map_forget(job->map, begin, begin + bytes);
    }
}

static gr_status refuse_element(const struct gr_safetensors *file, int64_t offset)
{
    const struct gr_safetensors_entry *entry = file->entry;
    uint64_t bits = 0, mask = 0;
    int64_t size = 0;

    while (offset < entry->offset || offset >= entry->offset + entry->bytes)
        entry++;
    size = gr_dtype_bytes(entry->dtype);
    memcpy(&bits, file->map.data + offset, (size_t)size);
    mask = exponent_bits(entry->dtype);
    return gr_fail(GR_ERR_DATA, file->path,
                   "the weights are damaged: download or export them again",
                   "tensor \"%.200s\": element %" PRId64 " of %" PRId64
                   " is not finite (found %s, expected a number)",
                   entry->name, (offset - entry->offset) / size, entry->bytes / size,
                   (bits & ((mask & -mask) - 1)) != 0 ? "nan" : "inf");
}

static gr_status hash_map(char hex[GR_SHA256_HEX_BYTES], const struct gr_file_map *map,
                          const char *path, const struct gr_safetensors *weights, int threads)
{
    gr_status status = GR_OK;
    struct gr_file_identity now;
    struct hash_job job = {.map = map,
                           .weights = weights,
                           .chunk_count = (map->identity.bytes + GR_HASH_CHUNK_BYTES - 1) /
                                          GR_HASH_CHUNK_BYTES,
                           .bad_offset = INT64_MAX};

    job.digest = gr_alloc(job.chunk_count, sizeof *job.digest);
    gr_run_threads(threads, hash_chunks, &job);
    if (job.bad_offset != INT64_MAX)
        GR_TRY(refuse_element(weights, job.bad_offset));
    GR_TRY(gr_file_identity(&now, path));
    if (!gr_file_identity_equal(&now, &map->identity))
        GR_TRY(gr_fail(GR_ERR_DATA, path, "leave the inputs of a run alone while it starts",
                       "the file changed while it was read"));
    gr_sha256_hex(hex, job.digest, job.chunk_count * GR_SHA256_BYTES);
out:
    gr_free(job.digest);
    return status;
}

/* ---- the cache of verdicts -------------------------------------------------------------- */

/* hashes/<device>-<inode>.json: {"size", "mtime_ns", "ctime_ns", "sha256", "finite"}.  finite: true
 * when the weights in the file were looked at and found good.  What does not parse or fit the file
 * is as if it were not there, and an unusable cache only costs time: no error comes from here. */
static char *cache_key(const struct gr_file_identity *identity)
{
    return gr_format("hashes/%" PRIx64 "-%" PRIx64 ".json", identity->device, identity->inode);
}

static bool is_hex(const char *text)
{
    return strlen(text) == GR_SHA256_HEX_BYTES - 1 &&
           strspn(text, "0123456789abcdef") == GR_SHA256_HEX_BYTES - 1;
}

static bool read_cache(char hex[GR_SHA256_HEX_BYTES], struct gr_store *cache,
                       const struct gr_file_identity *identity, bool weights)
{
    struct gr_buffer bytes = {0};
    char *key = cache_key(identity);
    json_t *verdict = NULL;
    json_int_t size = 0, mtime_ns = 0, ctime_ns = 0;
    const char *sha256 = NULL;
    int finite = 0;
    bool found = false;

    if (cache->ops->get(cache, &bytes, key, 0, -1) == GR_OK)
        verdict = json_loadb(bytes.data, bytes.length, 0, NULL);
    gr_error_clear();
    if (json_unpack(verdict, "{s:I, s:I, s:I, s:s, s:b}", "size", &size, "mtime_ns", &mtime_ns,
                    "ctime_ns", &ctime_ns, "sha256", &sha256, "finite", &finite) == 0)
        found = size == identity->bytes && mtime_ns == identity->mtime_ns &&
                ctime_ns == identity->ctime_ns && is_hex(sha256) && (finite || !weights);
    if (found)
        memcpy(hex, sha256, GR_SHA256_HEX_BYTES);
    json_decref(verdict);
    gr_buffer_release(&bytes);
    gr_free(key);
    return found;
}

static void write_cache(const char *hex, struct gr_store *cache,
                        const struct gr_file_identity *identity, bool weights)
{
    char *key = cache_key(identity);
    char *text = gr_format("{\"size\":%" PRId64 ",\"mtime_ns\":%" PRId64 ",\"ctime_ns\":%" PRId64
                           ",\"sha256\":\"%s\",\"finite\":%s}\n",
                           identity->bytes, identity->mtime_ns, identity->ctime_ns, hex,
                           weights ? "true" : "false");

    cache->ops->put(cache, key, text, (int64_t)strlen(text));
    gr_error_clear();
    gr_free(text);
    gr_free(key);
}

/* A file written to within the last moments may be written to again without a change of its times:
 * no verdict on it is kept. */
static bool is_settled(const struct gr_file_identity *identity)
{
    return gr_clock_unix_s() - (double)identity->ctime_ns * 1e-9 > MIN_AGE_S;
}

static gr_status hash_cached(char hex[GR_SHA256_HEX_BYTES], const struct gr_file_map *map,
                             const char *path, const struct gr_safetensors *weights,
                             const struct gr_hash_options *options)
{
    gr_status status = GR_OK;
    struct gr_store *cache = NULL;

    if (options->cache_dir != NULL && gr_store_open(&cache, options->cache_dir) != GR_OK)
        gr_error_clear();
    if (cache != NULL && read_cache(hex, cache, &map->identity, weights != NULL))
        goto out;
    GR_TRY(hash_map(hex, map, path, weights, options->threads));
    if (cache != NULL && is_settled(&map->identity))
        write_cache(hex, cache, &map->identity, weights != NULL);
out:
    gr_store_close(cache);
    return status;
}

gr_status gr_hash_file(char hex[GR_SHA256_HEX_BYTES], const char *path,
                       const struct gr_hash_options *options)
{
    gr_status status = GR_OK;
    struct gr_file_map map;

    GR_TRY(gr_file_map_open(&map, path));
    GR_TRY(hash_cached(hex, &map, path, NULL, options));
out:
    gr_file_map_close(&map);
    return status;
}

gr_status gr_hash_weights(char hex[GR_SHA256_HEX_BYTES], const struct gr_safetensors *file,
                          const struct gr_hash_options *options)
{
    return hash_cached(hex, &file->map, file->path, file, options);
}

void gr_hash_list_add(struct gr_buffer *list, const char *name, const char *hex)
{
    char *line = gr_format("%s %s\n", hex, name);

    gr_buffer_add_text(list, line);
    gr_free(line);
}

gr_status gr_hash_list_add_file(struct gr_buffer *list, const char *name, const char *path,
                                const struct gr_hash_options *options)
{
    gr_status status = GR_OK;
    char hex[GR_SHA256_HEX_BYTES];

    GR_TRY(gr_hash_file(hex, path, options));
    gr_hash_list_add(list, name, hex);
out:
    return status;
}
