/* The tokenizer as a whole: loads its parts, sends a text through the stages and ids back.
 * See tokenizer.h; the stages are in the files named after them. */
#include "data/tokenizer/tokenizer.h"

#include "data/model_files.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/component.h"
#include "data/tokenizer/config.h"
#include "data/tokenizer/encoding.h"
#include "kernels/base/alloc.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

/* What a thread needs to encode, with the words it knows; waits here between two texts. */
struct work {
    struct gr_bpe_work bpe;
    struct work *next;
};

struct work_pool {
    pthread_mutex_t lock;
    struct work *idle; /* at most as many as there ever were threads encoding at once */
};

struct gr_tokenizer {
    char *path; /* of tokenizer.json, for messages */
    struct gr_stage normalizer, pre_tokenizer, post_processor, decoder;
    struct gr_added_tokens added;
    struct gr_bpe model;
    struct gr_tokenizer_config config;
    struct work_pool *pool;
};

/* truncation and padding are the caller's business (transformers sets them anew for every call). */
static const char *const root_keys[] = {
    "version",       "truncation",     "padding", "added_tokens", "normalizer",
    "pre_tokenizer", "post_processor", "decoder", "model",        NULL,
};

static gr_status read_parts(struct gr_tokenizer *t)
{
    struct gr_json root = {0};
    const char *version = "";
    gr_status status;

    status = gr_json_load_vocab(&root, t->path);
    if (status == GR_ERR_NOT_FOUND)
        gr_hint("AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY) in Python "
                "makes it from older files");
    GR_TRY(status);
    GR_TRY(gr_json_text(&version, &root, "version"));
    if (strcmp(version, "1.0") != 0)
        GR_TRY(gr_json_wrong(&root, "version", json_object_get(root.value, "version"), "\"1.0\""));
    GR_TRY(gr_json_check_keys(&root, root_keys));
    GR_TRY(gr_bpe_read(&t->model, &root));
    GR_TRY(gr_stage_read(&t->normalizer, &gr_normalizer, &root));
    GR_TRY(gr_stage_read(&t->pre_tokenizer, &gr_pre_tokenizer, &root));
    if (t->model.spells)
        gr_pre_tokenizer_leave_spelling(&t->pre_tokenizer);
    GR_TRY(gr_stage_read(&t->post_processor, &gr_post_processor, &root));
    GR_TRY(gr_stage_read(&t->decoder, &gr_decoder, &root));
    GR_TRY(gr_added_tokens_read(&t->added, &root, &t->model.vocab, &t->normalizer));
out:
    gr_json_release(&root);
    return status;
}

/* Tokens that tokenizer_config.json names must be those of tokenizer.json: transformers would add
 * others to the vocabulary, silently. */
static gr_status check_config(const struct gr_tokenizer *t)
{
    const json_t *list = json_object_get(t->config.json.value, "added_tokens_decoder");
    const char *const named[] = {t->config.bos, t->config.eos};
    const char *number;
    json_t *value;

    json_object_foreach((json_t *)list, number, value)
    {
        const char *content = json_string_value(json_object_get(value, "content"));
        int64_t id = content == NULL ? -1 : gr_tokenizer_token_id(t, content);
        char *found = gr_format("%" PRId64, id);
        bool same = strcmp(found, number) == 0;

        gr_free(found);
        if (!same)
            return gr_fail(GR_ERR_DATA, t->config.json.place, "the two files are not of one model",
                           "added_tokens_decoder: \"%s\" is not token %s of tokenizer.json",
                           content == NULL ? "?" : content, number);
    }
    for (int i = 0; i < 2; i++) {
        if (named[i] != NULL && gr_tokenizer_token_id(t, named[i]) < 0)
            return gr_fail(GR_ERR_DATA, t->config.json.place, "the two files are not of one model",
                           "%s \"%s\" is not a token of tokenizer.json",
                           i == 0 ? "bos_token" : "eos_token", named[i]);
    }
    return GR_OK;
}

/* What the post-processor puts around every text, it names by ids of its own. */
static gr_status check_specials(const struct gr_tokenizer *t)
{
    gr_status status = GR_OK;
    struct gr_encoding e = {0};
    int64_t vocab = gr_tokenizer_vocab_size(t);

    GR_TRY(gr_tokenizer_encode(t, &e, "", 0, true));
    for (int64_t i = 0; i < e.count; i++) {
        if (e.ids[i] >= vocab)
            GR_TRY(gr_fail(GR_ERR_DATA, t->path, "the file is damaged: download it again",
                           "post_processor: a special token is not in the vocabulary (found id "
                           "%" PRIu32 ", expected less than %" PRId64 ")",
                           e.ids[i], vocab));
    }
out:
    gr_encoding_release(&e);
    return status;
}

static struct work_pool *pool_create(void)
{
    struct work_pool *pool = GR_NEW(struct work_pool);

    pthread_mutex_init(&pool->lock, NULL);
    return pool;
}

static struct work *pool_take(struct work_pool *pool)
{
    struct work *work;

    pthread_mutex_lock(&pool->lock);
    work = pool->idle;
    if (work != NULL)
        pool->idle = work->next;
    pthread_mutex_unlock(&pool->lock);
    return work == NULL ? GR_NEW(struct work) : work;
}

static void pool_give(struct work_pool *pool, struct work *work)
{
    pthread_mutex_lock(&pool->lock);
    work->next = pool->idle;
    pool->idle = work;
    pthread_mutex_unlock(&pool->lock);
}

static void pool_destroy(struct work_pool *pool)
{
    struct work *next;

    for (struct work *work = pool->idle; work != NULL; work = next) {
        next = work->next;
        gr_bpe_work_release(&work->bpe);
        gr_free(work);
    }
    pthread_mutex_destroy(&pool->lock);
    gr_free(pool);
}

gr_status gr_tokenizer_create(struct gr_tokenizer **tokenizer, const char *directory)
{
    struct gr_tokenizer *t = GR_NEW(struct gr_tokenizer);
    gr_status status;

    *tokenizer = NULL;
    onig_initialize((OnigEncoding[]){ONIG_ENCODING_UTF8}, 1);
    t->pool = pool_create();
    t->path = gr_format("%s/tokenizer.json", directory);
    GR_TRY(gr_model_directory_check(directory));
    GR_TRY(read_parts(t));
    if (gr_tokenizer_vocab_size(t) == 0)
        GR_TRY(gr_fail(GR_ERR_DATA, t->path, "the file is incomplete: download it again",
                       "the vocabulary is empty (found 0 tokens, expected at least 1)"));
    GR_TRY(gr_tokenizer_config_read(&t->config, directory));
    GR_TRY(check_config(t));
    GR_TRY(check_specials(t));
    *tokenizer = t;
    t = NULL; /* ownership moved to the caller */
out:
    gr_tokenizer_destroy(t);
    return status;
}

void gr_tokenizer_destroy(struct gr_tokenizer *t)
{
    if (t == NULL)
        return;
    gr_stage_release(&t->normalizer);
    gr_stage_release(&t->pre_tokenizer);
    gr_stage_release(&t->post_processor);
    gr_stage_release(&t->decoder);
    gr_added_tokens_release(&t->added);
    gr_bpe_release(&t->model);
    gr_tokenizer_config_release(&t->config);
    pool_destroy(t->pool);
    gr_free(t->path);
    gr_free(t);
}

static gr_status check_utf8(const char *text, int64_t length)
{
    int64_t invalid = gr_utf8_invalid_at(text, length);

    if (invalid >= 0)
        return gr_fail(GR_ERR_DATA, "text", "convert the data to UTF-8",
                       "is not valid UTF-8 at byte %" PRId64 " (found 0x%02X)", invalid,
                       (unsigned)(unsigned char)text[invalid]);
    return GR_OK;
}

/* Everything before the model: added tokens apart, normalized, cut into words. */
static gr_status prepare(const struct gr_tokenizer *t, struct gr_text *text)
{
    bool done;

    gr_added_tokens_split(&t->added, &t->added.plain, text);
    done = gr_stage_apply(&t->normalizer, text);
    gr_added_tokens_split(&t->added, &t->added.normalized, text);
    done = gr_stage_apply(&t->pre_tokenizer, text) && done;
    if (text->too_long)
        return gr_fail(GR_ERR_DATA, "text", "split it into several texts",
                       "is too long to be tokenized in one go (more than 2 GiB with the "
                       "tokenizer's additions)");
    if (!done)
        return gr_fail(GR_ERR_DATA, "text", "look for very long runs of one character",
                       "a regular expression of %s gave up on it", t->path);
    return GR_OK;
}

gr_status gr_tokenizer_encode(const struct gr_tokenizer *t, struct gr_encoding *encoding,
                              const char *input, size_t length, bool add_specials)
{
    struct work *work = pool_take(t->pool);
    struct gr_text text = {0};
    gr_status status;

    encoding->count = 0;
    GR_TRY(check_utf8(input, (int64_t)length));
    gr_text_init(&text, input, (int64_t)length);
    GR_TRY(prepare(t, &text));
    for (int64_t i = 0; i < text.piece_count; i++) {
        struct gr_piece piece = text.piece[i];

        if (piece.token >= 0)
            gr_encoding_add(encoding, piece.token, gr_text_source(&text, piece.begin, piece.end));
        else
            gr_bpe_encode(&t->model, encoding, &work->bpe, &text, piece);
    }
    for (int64_t i = 0; add_specials && i < t->post_processor.count; i++) {
        const struct gr_component *c = &t->post_processor.component[i];

        c->type->apply.to_encoding(c, encoding);
    }
out:
    pool_give(t->pool, work);
    gr_text_release(&text);
    return status;
}

static const char *token_text(const struct gr_tokenizer *t, int64_t id, int64_t *length)
{
    const char *text = gr_vocab_text(&t->added.vocab, id, length);

    return text != NULL ? text : gr_vocab_text(&t->model.vocab, id, length);
}

gr_status gr_tokenizer_decode(const struct gr_tokenizer *t, struct gr_buffer *text,
                              const uint32_t *ids, int64_t count, bool skip_specials)
{
    struct gr_parts parts = {0};
    gr_status status = GR_OK;

    for (int64_t i = 0; i < count; i++) {
        int64_t length;
        const char *token = token_text(t, ids[i], &length);

        if ((int64_t)ids[i] >= gr_tokenizer_vocab_size(t))
            GR_TRY(gr_fail(GR_ERR_DATA, t->path, "the ids are of another tokenizer",
                           "has no token %" PRIu32 " (%" PRId64 " tokens)", ids[i],
                           gr_tokenizer_vocab_size(t)));
        if (token == NULL || (skip_specials && gr_added_tokens_is_special(&t->added, ids[i])))
            continue; /* ids between tokens that no token has stand for nothing */
        if (t->decoder.count == 0 && parts.count > 0)
            gr_buffer_add(&parts.bytes, " ", 1);
        gr_parts_add(&parts, token, (size_t)length);
    }
    for (int64_t i = 0; i < t->decoder.count; i++)
        t->decoder.component[i].type->apply.to_parts(&t->decoder.component[i], &parts);
    gr_buffer_add(text, parts.bytes.data, parts.bytes.length);
out:
    gr_parts_release(&parts);
    return status;
}

int64_t gr_tokenizer_vocab_size(const struct gr_tokenizer *t)
{
    int64_t model = t->model.vocab.id_limit, added = t->added.vocab.id_limit;

    return model > added ? model : added;
}

int64_t gr_tokenizer_token_id(const struct gr_tokenizer *t, const char *token)
{
    int64_t length = (int64_t)strlen(token);
    int32_t id = gr_vocab_id(&t->added.vocab, token, length);

    return id >= 0 ? id : gr_vocab_id(&t->model.vocab, token, length);
}

int64_t gr_tokenizer_eos(const struct gr_tokenizer *t)
{
    return t->config.eos == NULL ? -1 : gr_tokenizer_token_id(t, t->config.eos);
}

int64_t gr_tokenizer_bos(const struct gr_tokenizer *t)
{
    return t->config.bos == NULL ? -1 : gr_tokenizer_token_id(t, t->config.bos);
}

const char *gr_tokenizer_chat_template(const struct gr_tokenizer *t)
{
    return t->config.chat_template;
}

const char *gr_tokenizer_bos_text(const struct gr_tokenizer *t)
{
    return t->config.bos == NULL ? "" : t->config.bos;
}

const char *gr_tokenizer_eos_text(const struct gr_tokenizer *t)
{
    return t->config.eos == NULL ? "" : t->config.eos;
}
