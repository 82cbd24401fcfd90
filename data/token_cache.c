/* Finding a token store in the cache, or making it.  See token_cache.h. */
#include "data/token_cache.h"

#include "data/store/file_error.h"
#include "data/store/store.h"
#include "data/token_layout.h"
#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "kernels/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* One store of the cache, there or not. */
struct entry {
    const struct gr_token_request *request;
    const struct gr_data_files *files;
    char key[GR_SHA256_HEX_BYTES];
    char *folder; /* CACHE/tokens */
    char *record; /* KEY.json */
    struct gr_store *store;
    bool is_place; /* the last failure is one of the cache, not of the data */
    /* of its record */
    char *path;
    char hex[GR_SHA256_HEX_BYTES];
};

static void compute_key(struct entry *e)
{
    json_t *data = json_array();
    json_t *everything = json_pack("{s:i, s:o, s:o}", "version", GR_TOKEN_VERSION, "settings",
                                   gr_token_settings(e->request), "data", data);
    char *text = NULL;

    for (int64_t i = 0; i < e->files->count; i++)
        json_array_append_new(data, json_string(e->files->sha256[i]));
    text = json_dumps(everything, JSON_COMPACT | JSON_SORT_KEYS);
    gr_sha256_hex(e->key, text, (int64_t)strlen(text));
    free(text);
    json_decref(everything);
}

static gr_status begin(struct entry *e, const char *cache_dir)
{
    gr_status status;

    compute_key(e);
    e->folder = gr_format("%s/tokens", cache_dir);
    e->record = gr_format("%s.json", e->key);
    status = gr_store_open(&e->store, e->folder);
    e->is_place = status != GR_OK;
    return status;
}

static void end(struct entry *e)
{
    gr_store_close(e->store);
    gr_free(e->folder);
    gr_free(e->record);
    gr_free(e->path);
}

/* Is there a record, and a file of its size?  What is not as it should be is not there. */
static bool find(struct entry *e)
{
    struct gr_buffer bytes = {0};
    json_t *record = NULL;
    const char *file = NULL, *sha256 = NULL;
    json_int_t size = 0;
    struct stat info;

    gr_free(e->path);
    e->path = NULL;
    if (e->store->ops->get(e->store, &bytes, e->record, 0, -1) == GR_OK)
        record = json_loadb(bytes.data, bytes.length, 0, NULL);
    gr_error_clear();
    if (json_unpack(record, "{s:s, s:I, s:s}", "file", &file, "bytes", &size, "sha256", &sha256) ==
            0 &&
        strchr(file, '/') == NULL && strlen(sha256) == GR_SHA256_HEX_BYTES - 1) {
        e->path = gr_format("%s/%s", e->folder, file);
        memcpy(e->hex, sha256, sizeof e->hex);
    }
    if (e->path != NULL && (stat(e->path, &info) != 0 || info.st_size != size)) {
        gr_free(e->path);
        e->path = NULL;
    }
    json_decref(record);
    gr_buffer_release(&bytes);
    return e->path != NULL;
}

/* One process at a time makes a store.  Without locks several do: the record decides. */
static gr_status lock(int *fd, const struct entry *e)
{
    char *path = gr_format("%s/%s.lock", e->folder, e->key);
    gr_status status = GR_OK;

    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        status = gr_file_error(path, "opened", errno);
    while (*fd >= 0 && flock(*fd, LOCK_EX) != 0 && errno == EINTR)
        ;
    gr_free(path);
    return status;
}

/* Files of makers that died, and a record whose file is gone: with the lock held nobody else is at
 * work on this key. */
static void sweep(struct entry *e)
{
    struct gr_store_list list = {0};

    e->store->ops->remove(e->store, e->record);
    if (e->store->ops->list(e->store, &list, e->key) == GR_OK) {
        for (int64_t i = 0; i < list.count; i++) {
            size_t length = strlen(list.entry[i].key);

            if (length > 3 && strcmp(list.entry[i].key + length - 3, ".h5") == 0)
                e->store->ops->remove(e->store, list.entry[i].key);
        }
    }
    gr_error_clear();
    gr_store_list_release(&list);
}

static gr_status put_record(struct entry *e, const char *name, const char *path)
{
    gr_status status = GR_OK;
    struct stat info;
    char *text = NULL;

    if (stat(path, &info) != 0)
        GR_TRY(gr_file_error(path, "examined", errno));
    text = gr_format("{\"bytes\":%" PRId64 ",\"file\":\"%s\",\"sha256\":\"%s\"}\n",
                     (int64_t)info.st_size, name, e->hex);
    GR_TRY(e->store->ops->put_if_absent(e->store, e->record, text, (int64_t)strlen(text)));
out:
    gr_free(text);
    return status;
}

static gr_status make(struct entry *e)
{
    gr_status status = GR_OK;
    struct gr_sources sources = {0};
    uint64_t random[2] = {0};
    char *name = NULL, *path = NULL;

    GR_CHECK(getrandom(random, sizeof random, 0) == sizeof random, "getrandom");
    name = gr_format("%s-%016" PRIx64 "%016" PRIx64 ".h5", e->key, random[0], random[1]);
    path = gr_format("%s/%s", e->folder, name);
    sweep(e);
    GR_TRY(gr_token_store_make(e->hex, &sources, &e->is_place, path, e->request, e->files));
    GR_TRY(gr_failpoint(GR_FAILPOINT_TOKENS_WRITTEN));
    status = put_record(e, name, path);
    e->is_place = status != GR_OK;
    if (status == GR_ERR_EXISTS) { /* somebody without our lock was faster */
        gr_error_clear();
        status = GR_OK;
        unlink(path);
    }
out:
    gr_sources_release(&sources);
    gr_free(name);
    gr_free(path);
    return status;
}

/* Whoever makes the store, the rank that speaks says what takes so long. */
static void announce(const struct entry *e)
{
    enum { LARGE_BYTES = 64 << 20 };
    int64_t bytes = 0;

    for (int64_t i = 0; i < e->files->count; i++)
        bytes += e->files->identity[i].bytes;
    if (bytes >= LARGE_BYTES)
        gr_note("tokenizing %" PRId64 " MB, once, into %s", bytes / 1000000, e->folder);
}

/* find(), or make() with the lock held. */
static gr_status find_or_make(struct entry *e, bool *was_there)
{
    gr_status status = GR_OK;
    int fd = -1;

    *was_there = find(e);
    if (*was_there)
        return GR_OK;
    announce(e);
    status = lock(&fd, e);
    e->is_place = status != GR_OK;
    GR_TRY(status);
    *was_there = find(e);
    if (*was_there)
        goto out;
    GR_TRY(make(e));
    if (!find(e)) {
        e->is_place = true;
        status = gr_fail(GR_ERR_RETRY, e->folder, "check the disk",
                         "a token store is gone right after it was written");
    }
out:
    if (fd >= 0)
        close(fd);
    return status;
}

/* With the lock, so that nobody loses a store that was just made again. */
static void discard(struct entry *e)
{
    int fd = -1;
    char *damaged = gr_strdup(e->path);

    if (lock(&fd, e) != GR_OK)
        gr_error_clear();
    if (find(e) && strcmp(e->path, damaged) == 0)
        sweep(e);
    if (fd >= 0)
        close(fd);
    gr_free(damaged);
}

static gr_status read_store(struct gr_documents *documents, struct gr_sources *sources,
                            struct entry *e)
{
    json_t *settings = NULL;
    int64_t first = sources->count;
    gr_status status = gr_token_file_read(documents, sources, &settings, e->path, e->hex);

    json_decref(settings);
    for (int64_t i = 0; i < e->files->count && first + i < sources->count; i++)
        gr_source_set(&sources->item[first + i].path, e->files->path[i]); /* their names now */
    return status;
}

/* Without the cache. */
static gr_status read_text(struct gr_documents *documents, struct gr_sources *sources,
                           struct entry *e)
{
    const struct gr_token_request *request = e->request;
    int64_t first = sources->count;
    gr_status status = GR_OK;

    GR_TRY(gr_records_read(documents, sources, request->tokenizer, e->files->path, e->files->count,
                           request->options));
    GR_TRY(gr_data_files_check(e->files));
    for (int64_t i = 0; i < e->files->count; i++)
        gr_source_set(&sources->item[first + i].sha256, e->files->sha256[i]);
out:
    return status;
}

/* The store is there and good, or made; documents NULL: only its sources are read. */
static gr_status obtain(struct gr_documents *documents, struct gr_sources *sources, struct entry *e,
                        bool *was_there)
{
    enum { ATTEMPTS = 2 };
    gr_status status = GR_OK;

    for (int attempt = 1;; attempt++) {
        GR_TRY(find_or_make(e, was_there));
        status = read_store(documents, sources, e);
        e->is_place = status != GR_OK;
        if (status == GR_OK || attempt == ATTEMPTS)
            goto out;
        gr_warn("the cache is damaged, the data is tokenized again: %s", gr_error_message());
        gr_error_clear();
        discard(e);
    }
out:
    return status;
}

gr_status gr_token_cache_load(struct gr_documents *documents, struct gr_sources *sources,
                              const struct gr_token_request *request,
                              const struct gr_data_files *files, const char *cache_dir)
{
    gr_status status = GR_OK;
    struct entry e = {.request = request, .files = files};
    bool was_there = false;

    status = begin(&e, cache_dir);
    if (status == GR_OK)
        status = obtain(documents, sources, &e, &was_there);
    if (status != GR_OK && e.is_place) {
        gr_warn("the tokens are not kept: %s", gr_error_message());
        gr_error_clear();
        status = read_text(documents, sources, &e);
    }
    end(&e);
    return status;
}

gr_status gr_token_cache_prepare(char **path, bool *was_there, struct gr_sources *sources,
                                 const struct gr_token_request *request,
                                 const struct gr_data_files *files, const char *cache_dir)
{
    gr_status status = GR_OK;
    struct entry e = {.request = request, .files = files};

    *path = NULL;
    GR_TRY(begin(&e, cache_dir));
    GR_TRY(obtain(NULL, sources, &e, was_there));
    *path = gr_strdup(e.path);
out:
    end(&e);
    return status;
}
