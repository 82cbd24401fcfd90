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

/* Over what the files hold, not over where they are. */
static gr_status hash_data(char hash[65], const struct gr_text_list *files,
                           const struct gr_hash_options *options)
{
    gr_status status = GR_OK;
    struct gr_buffer list = {0};

    for (int64_t i = 0; i < files->count; i++)
        GR_TRY(gr_hash_list_add_file(&list, "", files->item[i], options));
    gr_sha256_hex(hash, list.data, (int64_t)list.length);
out:
    gr_buffer_release(&list);
    return status;
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

static gr_status read_documents(struct gr_documents *documents, char hash[65],
                                const struct gr_inputs *inputs, const struct gr_config *c,
                                const struct gr_text_list *files, const struct gr_model_config *m,
                                const struct gr_hash_options *hashing)
{
    gr_status status = GR_OK;
    const char *const *names = (const char *const *)files->item;
    struct gr_records_options options = {.format = c->data.format,
                                         .chat_format = c->data.chat_format,
                                         .too_long = c->data.too_long,
                                         .loss_on = c->data.loss_on,
                                         .max_length = c->data.max_length,
                                         .fallback_eos = m->eos_count > 0 ? m->eos[0] : -1};

    if (files->count == 0)
        goto out;
    GR_TRY(gr_records_read(documents, inputs->tokenizer, names, files->count, &options));
    GR_TRY(gr_check_vocabulary(documents->tokens, documents->token_count, m, c->model));
    GR_TRY(hash_data(hash, files, hashing));
out:
    return status;
}

gr_status gr_inputs_load(struct gr_inputs *in, const struct gr_config *c,
                         const struct gr_model_config *model, int threads)
{
    gr_status status = GR_OK;
    char *cache_dir = gr_cache_dir(c);
    struct gr_hash_options hashing = {.cache_dir = cache_dir, .threads = threads};

    memset(in, 0, sizeof *in);
    GR_TRY(gr_tokenizer_create(&in->tokenizer, c->model));
    GR_TRY(hash_tokenizer(in->tokenizer_hash, c->model, &hashing));
    GR_TRY(read_documents(&in->train, in->train_hash, in, c, &c->data.train, model, &hashing));
    GR_TRY(read_documents(&in->eval, in->eval_hash, in, c, &c->data.eval, model, &hashing));
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
