/* From text files to a store, and from a store to documents that fit.  See token_store.h. */
#include "data/token_store.h"

#include "data/staging.h"
#include "data/store/store.h"
#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "kernels/base/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HINT_PREPARE "prepare it again with this configuration: graft data prepare"

json_t *gr_token_settings(const struct gr_token_request *request)
{
    const struct gr_records_options *o = request->options;
    char *max_length = gr_format("%lld", (long long)o->max_length);
    char *eos = gr_format("%lld", (long long)gr_records_eos(request->tokenizer, o));
    json_t *settings =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "tokenizer", request->tokenizer_hash,
                  "format", o->format, "chat_format", o->chat_format, "too_long", o->too_long,
                  "loss_on", o->loss_on, "max_length", max_length, "eos", eos);

    GR_CHECK(settings != NULL, "the settings are no JSON");
    gr_free(max_length);
    gr_free(eos);
    return settings;
}

bool gr_token_store_is(const char *path)
{
    static const char signature[] = "\x89HDF\r\n\x1a\n";
    char found[sizeof signature - 1];
    FILE *file = fopen(path, "rbe");
    bool is = file != NULL && fread(found, sizeof found, 1, file) == 1 &&
              memcmp(found, signature, sizeof found) == 0;

    if (file != NULL)
        fclose(file);
    return is;
}

/* ---- making ------------------------------------------------------------------------------- */

/* Where the reader's documents go. */
struct making {
    struct gr_token_writer *writer;
    bool is_place; /* the writer failed */
};

static gr_status write_document(void *context, const uint32_t *tokens, const uint8_t *labels,
                                int32_t length, int32_t source)
{
    struct making *making = context;
    gr_status status = gr_token_writer_add(making->writer, tokens, labels, length, source);

    making->is_place = status != GR_OK;
    if (status == GR_OK)
        status = gr_failpoint(GR_FAILPOINT_TOKENS_DOCUMENT);
    return status;
}

gr_status gr_token_store_make(char hex[GR_SHA256_HEX_BYTES], struct gr_sources *sources,
                              bool *is_place, const char *path,
                              const struct gr_token_request *request,
                              const struct gr_data_files *files)
{
    gr_status status = GR_OK;
    struct making making = {0};
    const struct gr_document_sink sink = {.context = &making, .add = write_document};
    json_t *settings = gr_token_settings(request);

    GR_CHECK(sources->count == 0, "%lld sources", (long long)sources->count);
    status = gr_token_writer_create(&making.writer, path);
    *is_place = status != GR_OK;
    GR_TRY(status);
    status = gr_records_stream(&sink, sources, request->tokenizer, files->path, files->count,
                               request->options);
    *is_place = making.is_place;
    GR_TRY(status);
    GR_TRY(gr_data_files_check(files));
    for (int64_t i = 0; i < files->count; i++)
        gr_source_set(&sources->item[i].sha256, files->sha256[i]);
    status = gr_token_writer_finish(making.writer, hex, settings, sources);
    *is_place = status != GR_OK;
out:
    gr_token_writer_destroy(making.writer);
    json_decref(settings);
    return status;
}

/* The hash goes last: a file that stands without one, or beside that of an older file, is refused
 * until this is done again. */
gr_status gr_token_store_export(struct gr_sources *sources, const char *path,
                                const struct gr_token_request *request,
                                const struct gr_data_files *files)
{
    gr_status status = GR_OK;
    const char *name = gr_path_name(path);
    char *folder = gr_path_folder(path), *beside = gr_format("%s.sha256", name), *line = NULL;
    char hex[GR_SHA256_HEX_BYTES];
    struct gr_store *store = NULL;
    struct gr_staging *staging = NULL;
    bool is_place = false;

    GR_TRY(gr_staging_create(&staging, path, false));
    GR_TRY(gr_token_store_make(hex, sources, &is_place, gr_staging_path(staging), request, files));
    GR_TRY(gr_failpoint(GR_FAILPOINT_TOKENS_WRITTEN));
    GR_TRY(gr_staging_commit(staging));
    GR_TRY(gr_store_open(&store, folder));
    line = gr_format("%s  %s\n", hex, name);
    GR_TRY(store->ops->put(store, beside, line, (int64_t)strlen(line)));
out:
    gr_staging_destroy(staging);
    gr_store_close(store);
    gr_free(folder);
    gr_free(beside);
    gr_free(line);
    return status;
}

/* ---- loading ------------------------------------------------------------------------------ */

/* FILE.sha256, as sha256sum writes it: the hash, then the name. */
static gr_status read_hash_beside(char hex[GR_SHA256_HEX_BYTES], const char *path)
{
    gr_status status = GR_OK;
    char *beside = gr_format("%s.sha256", path);
    FILE *file = fopen(beside, "rbe");
    size_t count = 0;

    memset(hex, 0, GR_SHA256_HEX_BYTES);
    if (file != NULL)
        count = fread(hex, 1, GR_SHA256_HEX_BYTES - 1, file);
    if (file == NULL) {
        status = gr_file_fail(beside, "opened");
        gr_hint("a token store is read only with its hash beside it: sha256sum %s > %s", path,
                beside);
    } else if (count != GR_SHA256_HEX_BYTES - 1 || strspn(hex, "0123456789abcdef") != count) {
        status = gr_fail(GR_ERR_DATA, beside, "write it again with sha256sum",
                         "no SHA-256 (found something else, expected 64 digits and a name)");
    }
    if (file != NULL)
        fclose(file);
    gr_free(beside);
    return status;
}

/* Is everything in the store of the format that is asked for by name? */
static bool all_sources_are(const struct gr_sources *sources, int64_t first, const char *key,
                            const char *name)
{
    bool is_chat = strcmp(key, "chat_format") == 0;

    for (int64_t i = first; i < sources->count; i++) {
        const char *found = is_chat ? sources->item[i].chat_format : sources->item[i].format;

        if (strcmp(found, name) != 0 && !(is_chat && found[0] == '\0'))
            return false;
    }
    return true;
}

/* A store fits when its settings are those of the request.  A format that is asked for by name may
 * have been found by itself; and whoever says "tokens" takes the records as they were. */
static gr_status check_settings(const json_t *found, const struct gr_sources *sources,
                                int64_t first, const char *path,
                                const struct gr_token_request *request)
{
    static const char *const keys[] = {"tokenizer", "format",     "chat_format", "too_long",
                                       "loss_on",   "max_length", "eos"};
    const char *format = request->options->format;
    json_t *expected = gr_token_settings(request);
    gr_status status = GR_OK;

    for (int64_t i = 0; i < GR_COUNT(keys) && status == GR_OK; i++) {
        const char *key = keys[i], *has = json_string_value(json_object_get(found, key));
        const char *wants = json_string_value(json_object_get(expected, key));
        bool is_format = strcmp(key, "format") == 0, is_chat = strcmp(key, "chat_format") == 0;

        if ((has != NULL && strcmp(has, wants) == 0) ||
            (is_format && strcmp(format, "tokens") == 0) ||
            ((is_format || is_chat) && all_sources_are(sources, first, key, wants)))
            continue;
        status = gr_fail(GR_ERR_DATA, path, HINT_PREPARE,
                         "the tokens were made with another %s%s (found %.16s, expected %.16s)",
                         i == 0 || strcmp(key, "eos") == 0 ? "" : "data.", key,
                         has == NULL ? "none" : has, wants);
    }
    json_decref(expected);
    return status;
}

/* Another program's store says nothing: its documents must fit, and the user must have asked. */
static gr_status check_foreign(const struct gr_documents *d, int64_t first, const char *path,
                               const struct gr_records_options *options)
{
    if (strcmp(options->format, "tokens") != 0)
        return gr_fail(GR_ERR_DATA, path,
                       "set data.format to tokens to take the tokens and labels as they are",
                       "the store does not say which tokenizer and settings made it");
    for (int64_t i = first; i < d->count; i++)
        if (d->document[i].length > options->max_length)
            return gr_fail(GR_ERR_DATA, path, "raise data.max_length",
                           "/documents[%lld] is too long (found %d tokens, expected at most %lld)",
                           (long long)(i - first), d->document[i].length,
                           (long long)options->max_length);
    return GR_OK;
}

gr_status gr_token_store_max_length(int64_t *max_length, const char *path)
{
    gr_status status = GR_OK;
    struct gr_sources sources = {0};
    char hex[GR_SHA256_HEX_BYTES];
    json_t *settings = NULL;
    const char *text;

    *max_length = 0;
    GR_TRY(read_hash_beside(hex, path));
    GR_TRY(gr_token_file_read(NULL, &sources, &settings, path, hex));
    text = json_string_value(json_object_get(settings, "max_length"));
    *max_length = text == NULL ? 0 : strtoll(text, NULL, 10);
out:
    gr_sources_release(&sources);
    json_decref(settings);
    return status;
}

gr_status gr_token_store_load(struct gr_documents *documents, struct gr_sources *sources,
                              const char *path, const struct gr_token_request *request)
{
    gr_status status = GR_OK;
    char hex[GR_SHA256_HEX_BYTES];
    json_t *settings = NULL;
    int64_t first = documents->count, first_source = sources->count;

    GR_TRY(read_hash_beside(hex, path));
    GR_TRY(gr_token_file_read(documents, sources, &settings, path, hex));
    if (settings == NULL)
        status = check_foreign(documents, first, path, request->options);
    else
        status = check_settings(settings, sources, first_source, path, request);
out:
    json_decref(settings);
    return status;
}
