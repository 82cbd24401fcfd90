/* Generation: the prompt in one pass, then a pass of one row per token.  See generate.h. */
#include "trainer/run/generate.h"

#include "kernels/base/alloc.h"

/* The next tokens of the document, in a pass whose last row of them is the one of interest. */
static void add_tokens(struct gr_pass *p, const int32_t *ids, int64_t count, int adapter)
{
    int32_t docs[2] = {0, (int32_t)count}, label_row = (int32_t)count - 1, target = 0;
    struct gr_batch batch = {.rows = p->rows,
                             .ids = GR_NEW_ARRAY(int32_t, p->rows),
                             .positions = GR_NEW_ARRAY(int32_t, p->rows),
                             .label_rows = &label_row,
                             .targets = &target,
                             .docs = docs,
                             .doc_count = 1,
                             .label_count = 1,
                             .label_padded = 1};

    for (int64_t i = 0; i < p->rows; i++) {
        batch.ids[i] = i < count ? ids[i] : -1;
        batch.positions[i] = i < count ? (int32_t)(p->cache->length + i) : 0;
    }
    gr_pass_begin(p);
    gr_pass_add(p, &batch, adapter, (struct gr_rng){0});
    gr_free(batch.ids);
    gr_free(batch.positions);
}

gr_status gr_generate_extend(struct gr_engine *e, float *logits, const int32_t *ids, int64_t count,
                             bool base_only)
{
    gr_status status = GR_OK;
    struct gr_pass *p = e->cache.length == 0 ? e->eval_pass : e->next_pass;

    add_tokens(p, ids, count, base_only || e->adapters == NULL ? -1 : 0);
    gr_pass_upload(p);
    GR_TRY(gr_pass_forward(p, false));
    gr_head_logits(e->dev, e->logits, p->h_final, e->model.weights.head,
                   gr_tensor_rows(p->in.label_rows, 0, 1));
    gr_device_download(e->dev, logits, e->logits);
    GR_TRY(gr_device_sync(e->dev));
out:
    return status;
}

void gr_generate_add_stop(struct gr_generate_options *o, int64_t id)
{
    if (id < 0)
        return;
    GR_CHECK(o->stops < GR_COUNT(o->stop), "%d stops", o->stops);
    o->stop[o->stops++] = id;
}

static bool is_stop(const struct gr_generate_options *o, int32_t id)
{
    for (int i = 0; i < o->stops; i++) {
        if (o->stop[i] == id)
            return true;
    }
    return false;
}

gr_status gr_generate(struct gr_engine *e, const uint32_t *prompt, int64_t length,
                      const struct gr_generate_options *o, gr_generate_sink sink, void *context)
{
    gr_status status = GR_OK;
    int64_t room = e->cache.room, vocab = e->model.config.vocab_size;
    float *logits = GR_NEW_ARRAY(float, vocab);
    struct gr_candidate *candidate = GR_NEW_ARRAY(struct gr_candidate, vocab);
    int64_t choices = o->tokens > 0 && o->tokens < vocab ? o->tokens : vocab;
    int32_t *ids = GR_NEW_ARRAY(int32_t, length), id;

    if (length < 1 || length >= room)
        GR_TRY(gr_fail(GR_ERR_USAGE, "--prompt", "shorten it, or raise data.max_length",
                       "the prompt does not fit (found %lld tokens, expected 1 to %lld)",
                       (long long)length, (long long)room - 1));
    for (int64_t i = 0; i < length; i++)
        ids[i] = (int32_t)prompt[i];
    e->cache.length = 0;
    for (int64_t n = 0; n < o->max_new_tokens && length + n < room; n++) {
        GR_TRY(n == 0 ? gr_generate_extend(e, logits, ids, length, o->base_only)
                      : gr_generate_extend(e, logits, &id, 1, o->base_only));
        id = gr_sample(candidate, logits, choices, &o->sampling, length + n);
        if (id < 0)
            GR_TRY(gr_fail(GR_ERR_DATA, "generate",
                           "the adapter has diverged in training, or a weight file is damaged",
                           "the logits of token %lld are not finite", (long long)(length + n)));
        if (is_stop(o, id))
            break;
        GR_TRY(sink(context, (uint32_t)id));
    }
out:
    gr_free(ids);
    gr_free(candidate);
    gr_free(logits);
    return status;
}
