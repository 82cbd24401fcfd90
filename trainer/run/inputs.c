/* Reading tokenizer and documents.  See inputs.h. */
#include "trainer/run/inputs.h"

#include "data/hash.h"
#include "data/store/file_error.h"
#include "data/token_cache.h"
#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "kernels/base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In a folder that all users share, anybody can make this one first: it must be ours, and ours
 * alone, or another's tokens and verdicts would be taken for good. */
static gr_status private_folder(char **folder)
{
    const char *shared = gr_env(GR_ENV_TMPDIR);
    char *path = gr_format("%s/graft-%lld", shared == NULL ? "/tmp" : shared, (long long)geteuid());
    gr_status status = GR_OK;
    struct stat info;

    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        GR_TRY(gr_file_error(path, "made", errno));
    if (lstat(path, &info) != 0)
        GR_TRY(gr_file_error(path, "examined", errno));
    if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0)
        GR_TRY(gr_fail(GR_ERR_USAGE, path, "set HOME or data.cache_dir",
                       "not a folder of this user alone (found user %lld and mode %03o, expected "
                       "%lld and 700)",
                       (long long)info.st_uid, info.st_mode & 0777U, (long long)geteuid()));
    *folder = path;
    path = NULL;
out:
    gr_free(path);
    return status;
}

gr_status gr_cache_dir(char **folder, const struct gr_config *config)
{
    const char *cache = gr_env(GR_ENV_XDG_CACHE_HOME), *home = gr_env(GR_ENV_HOME);

    *folder = NULL;
    if (strcmp(config->data.cache_dir, "auto") != 0)
        *folder = gr_strdup(config->data.cache_dir);
    else if (cache != NULL)
        *folder = gr_format("%s/graft", cache);
    else if (home != NULL)
        *folder = gr_format("%s/.cache/graft", home);
    else
        return private_folder(folder);
    return GR_OK;
}

/* Over those of the files the tokenizer is read from that are there. */
static gr_status hash_tokenizer(char hash[65], const char *model,
                                const struct gr_hash_options *options)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja"};
    gr_status status = GR_OK;
    struct gr_buffer list = {0};

    for (int64_t i = 0; i < GR_COUNT(names) && status == GR_OK; i++) {
        char *path = gr_format("%s/%s", model, names[i]);

        status = gr_hash_list_add_file(&list, names[i], path, options);
        if (status == GR_ERR_NOT_FOUND) {
            gr_error_clear();
            status = GR_OK;
        }
        gr_free(path);
    }
    gr_sha256_hex(hash, list.data, (int64_t)list.length);
    gr_buffer_release(&list);
    return status;
}

gr_status gr_check_vocabulary(const uint32_t *ids, int64_t count,
                              const struct gr_model_config *model, const char *directory)
{
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] >= model->vocab_size)
            return gr_fail(GR_ERR_DATA, directory, "tokenizer.json belongs to another model",
                           "the tokenizer gives ids the model does not have (found %lld, expected "
                           "less than vocab_size %lld)",
                           (long long)ids[i], (long long)model->vocab_size);
    }
    return GR_OK;
}

/* What reading takes beside the files. */
struct reading {
    struct gr_records_options options;
    struct gr_token_request request;
    struct gr_hash_options hashing;
    char *cache_dir;
    const struct gr_config *config;
};

static gr_status begin_reading(struct reading *r, struct gr_inputs *in, const struct gr_config *c,
                               const struct gr_model_config *model, int threads)
{
    gr_status status = GR_OK;

    *r = (struct reading){.config = c};
    GR_TRY(gr_cache_dir(&r->cache_dir, c));
    r->hashing = (struct gr_hash_options){.cache_dir = r->cache_dir, .threads = threads};
    r->options =
        (struct gr_records_options){.format = c->data.format,
                                    .chat_format = c->data.chat_format,
                                    .too_long = c->data.too_long,
                                    .loss_on = c->data.loss_on,
                                    .max_length = c->data.max_length,
                                    .threads = threads,
                                    .fallback_eos = model->eos_count > 0 ? model->eos[0] : -1};
    GR_TRY(gr_tokenizer_create(&in->tokenizer, c->model));
    GR_TRY(hash_tokenizer(in->tokenizer_hash, c->model, &r->hashing));
    r->request = (struct gr_token_request){
        .tokenizer = in->tokenizer, .tokenizer_hash = in->tokenizer_hash, .options = &r->options};
out:
    return status;
}

/* The text files from `begin` up to the next token store, or the end of the list. */
static int64_t end_of_text(const struct gr_text_list *list, int64_t begin)
{
    int64_t end = begin;

    while (end < list->count && !gr_token_store_is(list->item[end]))
        end++;
    return end;
}

static gr_status open_text(struct gr_data_files *files, const struct reading *r,
                           const struct gr_text_list *list, int64_t begin, int64_t end)
{
    if (strcmp(r->options.format, "tokens") == 0)
        return gr_fail(GR_ERR_DATA, list->item[begin],
                       "set data.format to auto, or name a file that graft data prepare made",
                       "not a token store (found something else, expected an HDF5 file)");
    return gr_data_files_open(files, (const char *const *)list->item + begin, end - begin,
                              &r->hashing);
}

/* Text goes through the cache; stores are taken as they are. */
static gr_status load_list(struct gr_documents *documents, struct gr_sources *sources,
                           const struct reading *r, const struct gr_text_list *list)
{
    gr_status status = GR_OK;
    struct gr_data_files files = {0};

    for (int64_t i = 0; i < list->count;) {
        int64_t end = end_of_text(list, i);

        if (end == i) {
            GR_TRY(gr_token_store_load(documents, sources, list->item[i++], &r->request));
            continue;
        }
        GR_TRY(open_text(&files, r, list, i, end));
        GR_TRY(gr_token_cache_load(documents, sources, &r->request, &files, r->cache_dir));
        gr_data_files_release(&files);
        i = end;
    }
out:
    gr_data_files_release(&files);
    return status;
}

/* Over what the files hold, not over where they are, nor in which form they came. */
static void hash_data(char hash[65], const struct gr_sources *sources)
{
    struct gr_buffer list = {0};

    for (int64_t i = 0; i < sources->count; i++)
        gr_hash_list_add(&list, "", sources->item[i].sha256);
    gr_sha256_hex(hash, list.data, (int64_t)list.length);
    gr_buffer_release(&list);
}

static gr_status read_documents(struct gr_documents *documents, struct gr_sources *sources,
                                char hash[65], const struct reading *r,
                                const struct gr_text_list *list,
                                const struct gr_model_config *model)
{
    gr_status status = GR_OK;

    if (list->count == 0)
        return GR_OK;
    GR_TRY(load_list(documents, sources, r, list));
    for (int64_t i = 0; i < sources->count; i++) {
        gr_documents_count(documents, &sources->item[i]);
        gr_source_note(&sources->item[i], r->options.max_length);
    }
    GR_TRY(gr_sources_check_learned(sources, r->options.max_length));
    GR_TRY(gr_check_vocabulary(documents->tokens, documents->token_count, model, r->config->model));
    hash_data(hash, sources);
out:
    return status;
}

static gr_status split(struct gr_inputs *in, double fraction)
{
    if (fraction <= 0)
        return GR_OK;
    if (in->train.count < 2)
        return gr_fail(GR_ERR_DATA, "data.eval_split", "name files in data.eval instead",
                       "nothing is left to hold out (found %lld documents, expected at least 2)",
                       (long long)in->train.count);
    gr_documents_hold_out(&in->eval, &in->train, fraction);
    gr_note("data.eval_split: %lld documents held out for evaluation, %lld left to train on",
            (long long)in->eval.count, (long long)in->train.count);
    if (in->train.supervised_count == 0 || in->eval.supervised_count == 0)
        return gr_fail(GR_ERR_DATA, "data.eval_split", "name files in data.eval instead",
                       "one side of the split has no supervised token");
    return GR_OK;
}

gr_status gr_inputs_load(struct gr_inputs *in, const struct gr_config *c,
                         const struct gr_model_config *model, int threads)
{
    gr_status status = GR_OK;
    struct reading r;

    memset(in, 0, sizeof *in);
    GR_TRY(begin_reading(&r, in, c, model, threads));
    GR_TRY(
        read_documents(&in->train, &in->train_sources, in->train_hash, &r, &c->data.train, model));
    GR_TRY(read_documents(&in->eval, &in->eval_sources, in->eval_hash, &r, &c->data.eval, model));
    if (c->data.train.count > 0)
        GR_TRY(split(in, c->data.eval_split));
out:
    gr_free(r.cache_dir);
    return status;
}

/* One run of text files of a list. */
static gr_status prepare_text(const struct reading *r, const char *name,
                              const struct gr_data_files *files, const char *folder,
                              void (*done)(const struct gr_prepared *store))
{
    struct gr_prepared store = {.list = name};
    gr_status status = GR_OK;

    if (folder == NULL) {
        GR_TRY(gr_token_cache_prepare(&store.path, &store.was_there, &store.sources, &r->request,
                                      files, r->cache_dir));
    } else {
        store.path = gr_format("%s/%s.h5", folder, name);
        GR_TRY(gr_token_store_export(&store.sources, store.path, &r->request, files));
    }
    for (int64_t i = 0; i < store.sources.count; i++)
        gr_source_note(&store.sources.item[i], r->options.max_length);
    done(&store);
    GR_TRY(gr_sources_check_learned(&store.sources, r->options.max_length));
out:
    gr_sources_release(&store.sources);
    gr_free(store.path);
    return status;
}

static gr_status prepare_list(const struct reading *r, const char *name,
                              const struct gr_text_list *list, const char *folder,
                              void (*done)(const struct gr_prepared *store))
{
    gr_status status = GR_OK;
    struct gr_data_files files = {0};

    for (int64_t i = 0; i < list->count && status == GR_OK;) {
        int64_t end = end_of_text(list, i);

        if (folder != NULL && (i > 0 || end < list->count))
            return gr_fail(GR_ERR_USAGE, list->item[i > 0 ? i : end],
                           "name the text it was made of",
                           "a token store already (found an HDF5 file, expected text)");
        if (end > i) {
            status = open_text(&files, r, list, i, end);
            if (status == GR_OK)
                status = prepare_text(r, name, &files, folder, done);
            gr_data_files_release(&files);
        }
        i = end > i ? end : i + 1;
    }
    return status;
}

gr_status gr_inputs_prepare(const struct gr_config *c, const struct gr_model_config *model,
                            int threads, const char *folder,
                            void (*done)(const struct gr_prepared *store))
{
    gr_status status = GR_OK;
    struct gr_inputs in = {0};
    struct reading r;

    GR_TRY(begin_reading(&r, &in, c, model, threads));
    GR_TRY(prepare_list(&r, "train", &c->data.train, folder, done));
    GR_TRY(prepare_list(&r, "eval", &c->data.eval, folder, done));
out:
    gr_free(r.cache_dir);
    gr_inputs_release(&in);
    return status;
}

void gr_inputs_release(struct gr_inputs *in)
{
    gr_tokenizer_destroy(in->tokenizer);
    gr_sources_release(&in->train_sources);
    gr_sources_release(&in->eval_sources);
    gr_documents_release(&in->train);
    gr_documents_release(&in->eval);
    memset(in, 0, sizeof *in);
}
