/* Prompts from documents, and what follows them.  See samples.h. */
#include "trainer/report/samples.h"

#include "data/chat.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "trainer/run/generate.h"

#include <string.h>

/* Tokens: of a prompt at most, of what is made, of the beginning of a text taken as prompt. */
enum { PROMPT_MOST = 384, NEW_MOST = 64, OPENING_MOST = 96 };

static void drop_last(struct gr_samples *samples)
{
    struct gr_sample *last = &samples->item[--samples->count];

    for (int t = 0; t < GR_SAMPLE_TEXTS; t++)
        gr_free(last->text[t]);
}

void gr_samples_release(struct gr_samples *samples)
{
    while (samples->count > 0)
        drop_last(samples);
    gr_free(samples->item);
    gr_free(samples->why_none);
    memset(samples, 0, sizeof *samples);
}

/* ---- prompts -------------------------------------------------------------------------------- */

/* Tokens [0, prompt) of a document, and [prompt, end) that training wants there. */
struct question {
    const uint32_t *tokens;
    int64_t prompt, end;
};

/* The prompt is what stands before the first supervised token; a text that is supervised from its
 * beginning is asked to go on after its first words.  False: there is no use in this document. */
static bool ask(struct question *q, const struct gr_documents *d, int64_t number, int64_t room)
{
    const struct gr_document *document = &d->document[number];
    const uint8_t *labels = d->labels + document->offset;
    int64_t first = 1, length = document->length;

    while (first < length && labels[first] == 0)
        first++;
    q->tokens = d->tokens + document->offset;
    q->prompt = first;
    for (q->end = first; q->end < length && labels[q->end] != 0;)
        q->end++;
    if (first == 1) {
        q->prompt = length / 2 < OPENING_MOST ? length / 2 : OPENING_MOST;
        q->prompt = q->prompt > 0 ? q->prompt : 1;
    }
    return q->prompt < q->end && q->prompt <= PROMPT_MOST && q->prompt < room;
}

/* `count` of them, spread over the documents. */
static int64_t choose(struct question *q, int64_t count, const struct gr_documents *d, int64_t room)
{
    int64_t chosen = 0, next = 0;

    for (int64_t i = 0; i < count && next < d->count; i++) {
        int64_t wanted = i * d->count / count;

        next = next > wanted ? next : wanted;
        while (next < d->count && !ask(&q[chosen], d, next, room))
            next++;
        chosen += next < d->count;
        next++;
    }
    return chosen;
}

/* ---- answers -------------------------------------------------------------------------------- */

struct answer {
    int64_t until_ns;
    uint32_t ids[NEW_MOST];
    int64_t count;
    bool is_late;
};

static gr_status take_token(void *context, uint32_t id)
{
    struct answer *a = context;

    GR_CHECK(a->count < NEW_MOST, "%lld tokens", (long long)a->count);
    a->ids[a->count++] = id;
    a->is_late = gr_clock_ns() > a->until_ns;
    return a->is_late ? GR_ERR_RETRY : GR_OK;
}

static gr_status decode(char **text, const struct gr_tokenizer *tokenizer, const uint32_t *ids,
                        int64_t count, bool skip_specials)
{
    struct gr_buffer bytes = {0};
    gr_status status = gr_tokenizer_decode(tokenizer, &bytes, ids, count, skip_specials);

    if (status == GR_OK)
        *text = gr_strndup(bytes.data == NULL ? "" : bytes.data, bytes.length);
    gr_buffer_release(&bytes);
    return status;
}

static gr_status answer(struct gr_sample *sample, enum gr_sample_text which, struct gr_engine *e,
                        const struct gr_tokenizer *tokenizer, const struct question *q,
                        struct gr_generate_options *o, int64_t until_ns)
{
    struct answer a = {.until_ns = until_ns};
    gr_status status = GR_OK;

    o->base_only = which == GR_SAMPLE_BEFORE;
    status = gr_generate(e, q->tokens, q->prompt, o, take_token, &a);
    if (a.is_late)
        status = GR_OK;
    GR_TRY(status);
    sample->goes_on[which] = a.is_late || a.count == o->max_new_tokens;
    GR_TRY(decode(&sample->text[which], tokenizer, a.ids, a.count, true));
out:
    return status;
}

/* What ends an answer: the model's end of text, and the end of a turn in its chat format. */
static void set_stops(struct gr_generate_options *o, const struct gr_engine *e,
                      const struct gr_tokenizer *tokenizer)
{
    struct gr_chat chat;

    gr_generate_add_stop(o, gr_tokenizer_eos(tokenizer));
    for (int64_t i = 0; i < e->model.config.eos_count; i++)
        gr_generate_add_stop(o, e->model.config.eos[i]);
    if (gr_chat_choose(&chat, e->config->data.chat_format, tokenizer) == GR_OK)
        gr_generate_add_stop(o, chat.end_token);
    else
        gr_error_clear(); /* a model without a chat */
}

static gr_status make_sample(struct gr_sample *sample, struct gr_engine *e,
                             const struct gr_tokenizer *tokenizer, const struct question *q,
                             struct gr_generate_options *o, int64_t until_ns)
{
    gr_status status = GR_OK;
    int64_t expected = q->end - q->prompt;

    if (expected > NEW_MOST) {
        sample->goes_on[GR_SAMPLE_EXPECTED] = true;
        expected = NEW_MOST;
    }
    GR_TRY(decode(&sample->text[GR_SAMPLE_PROMPT], tokenizer, q->tokens, q->prompt, false));
    GR_TRY(decode(&sample->text[GR_SAMPLE_EXPECTED], tokenizer, q->tokens + q->prompt, expected,
                  true));
    GR_TRY(answer(sample, GR_SAMPLE_BEFORE, e, tokenizer, q, o, until_ns));
    GR_TRY(answer(sample, GR_SAMPLE_AFTER, e, tokenizer, q, o, until_ns));
out:
    return status;
}

static gr_status prepare(struct gr_engine *e, struct gr_adapter *adapter, const float *values,
                         const struct question *q, int64_t count)
{
    gr_status status = GR_OK;
    int64_t longest = 0, room = e->config->data.max_length;

    for (int64_t i = 0; i < count; i++)
        longest = q[i].prompt > longest ? q[i].prompt : longest;
    room = room < longest + NEW_MOST ? room : longest + NEW_MOST;
    GR_TRY(gr_engine_prepare_generate(e, adapter, longest, room));
    GR_TRY(gr_engine_set_adapter(e, values, 0));
out:
    return status;
}

gr_status gr_samples_make(struct gr_samples *samples, struct gr_engine *e,
                          const struct gr_inputs *inputs, struct gr_adapter *adapter,
                          const float *values, const struct gr_samples_options *options)
{
    gr_status status = GR_OK;
    const struct gr_documents *documents = inputs->eval.count > 0 ? &inputs->eval : &inputs->train;
    struct question *q = GR_NEW_ARRAY(struct question, options->count);
    struct gr_generate_options o = {.max_new_tokens = NEW_MOST,
                                    .tokens = gr_tokenizer_vocab_size(inputs->tokenizer)};
    int64_t until_ns = gr_clock_ns() + (int64_t)(options->seconds * 1e9);
    int64_t count = choose(q, options->count, documents, e->config->data.max_length);

    samples->from_eval = inputs->eval.count > 0;
    if (count == 0) {
        samples->why_none = gr_strdup("No document has a prompt of a suitable length.");
        goto out;
    }
    GR_TRY(prepare(e, adapter, values, q, count));
    set_stops(&o, e, inputs->tokenizer);
    samples->item = GR_NEW_ARRAY(struct gr_sample, count);
    while (samples->count < count && gr_clock_ns() < until_ns) {
        const struct question *next = &q[samples->count];

        GR_TRY(make_sample(&samples->item[samples->count++], e, inputs->tokenizer, next, &o,
                           until_ns));
        if (samples->count > 1 && gr_clock_ns() >= until_ns)
            drop_last(samples); /* the first words of an answer tell nothing */
    }
out:
    gr_free(q);
    return status;
}
