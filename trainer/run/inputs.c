/* Reading tokenizer and documents.  See inputs.h. */
#include "trainer/run/inputs.h"

#include "data/hash.h"
#include "data/records.h"
#include "kernels/base/alloc.h"
#include "kernels/base/env.h"

#include <string.h>

char *gr_cache_dir(const struct gr_config *config)
{
    const char *cache = gr_env(GR_ENV_XDG_CACHE_HOME), *home = gr_env(GR_ENV_HOME);

    if (strcmp(config->data.cache_dir, "auto") != 0)
        return gr_strdup(config->data.cache_dir);
    if (cache != NULL)
        return gr_format("%s/graft", cache);
    return gr_format("%s/.cache/graft", home == NULL ? "/tmp" : home);
}

/* The hash of several files: that of their hashes. */
static gr_status hash_files(char hash[65], const char *const *files, int64_t count,
                            const char *cache_dir, int threads)
{
    gr_status status = GR_OK;
    struct gr_buffer all = {0};
    struct gr_hash_options options = {.threads = threads, .cache_dir = cache_dir};
    char one[65];

    for (int64_t i = 0; i < count; i++) {
        GR_TRY(gr_hash_file(one, files[i], &options));
        gr_buffer_add(&all, one, 64);
    }
    gr_sha256_hex(hash, all.data, (int64_t)all.length);
out:
    gr_buffer_release(&all);
    return status;
}

static gr_status hash_tokenizer(char hash[65], const char *model, const char *cache_dir,
                                int threads)
{
    gr_status status = GR_OK;
    char *files[2] = {gr_format("%s/tokenizer.json", model),
                      gr_format("%s/tokenizer_config.json", model)};

    status = hash_files(hash, (const char *const *)files, 2, cache_dir, threads);
    gr_free(files[0]);
    gr_free(files[1]);
    return status;
}

/* The model's embedding must have a row for every token. */
static gr_status check_vocabulary(const struct gr_documents *d, const struct gr_model_config *model,
                                  const char *directory)
{
    for (int64_t i = 0; i < d->token_count; i++) {
        if (d->tokens[i] >= model->vocab_size)
            return gr_fail(GR_ERR_DATA, directory, "tokenizer.json belongs to another model",
                           "the tokenizer gives ids the model does not have (found %lld, expected "
                           "less than vocab_size %lld)",
                           (long long)d->tokens[i], (long long)model->vocab_size);
    }
    return GR_OK;
}

static gr_status read_documents(struct gr_documents *documents, char hash[65],
                                const struct gr_inputs *inputs, const struct gr_config *c,
                                const struct gr_text_list *files, const struct gr_model_config *m,
                                int threads)
{
    gr_status status = GR_OK;
    char *cache_dir = gr_cache_dir(c);
    const char *const *names = (const char *const *)files->item;
    struct gr_records_options options = {.format = c->data.format,
                                         .chat_format = c->data.chat_format,
                                         .too_long = c->data.too_long,
                                         .loss_on = c->data.loss_on,
                                         .max_length = c->data.max_length,
                                         .fallback_eos = m->eos};

    if (files->count == 0)
        goto out;
    GR_TRY(gr_records_read(documents, inputs->tokenizer, names, files->count, &options));
    GR_TRY(check_vocabulary(documents, m, c->model));
    GR_TRY(hash_files(hash, names, files->count, cache_dir, threads));
out:
    gr_free(cache_dir);
    return status;
}

gr_status gr_inputs_load(struct gr_inputs *in, const struct gr_config *c,
                         const struct gr_model_config *model, int threads)
{
    gr_status status = GR_OK;
    char *cache_dir = gr_cache_dir(c);

    memset(in, 0, sizeof *in);
    GR_TRY(gr_tokenizer_create(&in->tokenizer, c->model));
    GR_TRY(hash_tokenizer(in->tokenizer_hash, c->model, cache_dir, threads));
    GR_TRY(read_documents(&in->train, in->train_hash, in, c, &c->data.train, model, threads));
    GR_TRY(read_documents(&in->eval, in->eval_hash, in, c, &c->data.eval, model, threads));
out:
    gr_free(cache_dir);
    return status;
}

void gr_inputs_release(struct gr_inputs *in)
{
    gr_tokenizer_destroy(in->tokenizer);
    gr_documents_release(&in->train);
    gr_documents_release(&in->eval);
    memset(in, 0, sizeof *in);
}
