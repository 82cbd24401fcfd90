/* A record's way to tokens and labels.  See record_encoder.h. */
#include "data/record_encoder.h"

#include "kernels/base/alloc.h"

#include <string.h>

static gr_status check_bos(const struct gr_record_encoder *e,
                           const struct gr_record_settings *settings, const uint32_t *tokens,
                           int64_t count)
{
    int64_t bos = gr_tokenizer_bos(settings->tokenizer);

    for (int64_t i = 0; i + 1 < count; i++)
        if (bos >= 0 && tokens[i] == bos && tokens[i + 1] == bos)
            return gr_fail(GR_ERR_DATA, e->context.place,
                           "take the BOS out of the data: the template or the tokenizer adds it",
                           "two BOS tokens in a row (found %s twice at token %lld)",
                           gr_tokenizer_bos_text(settings->tokenizer), (long long)i);
    return GR_OK;
}

static void reserve(struct gr_record_encoder *e, int64_t count)
{
    if (e->count + count <= e->capacity)
        return;
    e->capacity = 2 * (e->count + count);
    e->tokens = gr_realloc(e->tokens, e->capacity, sizeof *e->tokens);
    e->labels = gr_realloc(e->labels, e->capacity, sizeof *e->labels);
}

/* Behind the documents that are there: tokens and labels of the rendered record, *count of them. */
static gr_status encode(struct gr_record_encoder *e, const struct gr_record_settings *settings,
                        int64_t *count)
{
    const struct gr_chat_text *text = &e->context.text;
    const struct gr_record_format *format = settings->format;
    enum gr_loss_on loss_on = format->all_supervised ? GR_LOSS_ON_ALL : settings->loss_on;
    gr_status status = GR_OK;
    uint32_t *tokens;
    uint8_t *labels;
    int64_t n;

    GR_TRY(gr_tokenizer_encode(settings->tokenizer, &e->encoding,
                               text->text.data == NULL ? "" : text->text.data, text->text.length,
                               !format->chat));
    n = e->encoding.count;
    reserve(e, n + 1);
    tokens = e->tokens + e->count;
    labels = e->labels + e->count;
    if (n > 0)
        memcpy(tokens, e->encoding.ids, (size_t)n * sizeof *tokens);
    gr_chat_label(labels, &e->encoding, text, loss_on);
    GR_TRY(check_bos(e, settings, tokens, n));
    if (!format->chat) {
        if (n == 0 || tokens[n - 1] != settings->eos)
            tokens[n++] = (uint32_t)settings->eos;
        labels[n - 1] = 1;
    }
    *count = n;
out:
    return status;
}

static bool has_label(const uint8_t *labels, int64_t count)
{
    for (int64_t i = 1; i < count; i++) /* a document's first token is never a target */
        if (labels[i] != 0)
            return true;
    return false;
}

/* Cuts or drops what was encoded, as the settings say. */
static gr_status measure(struct gr_encoded_record *out, const struct gr_record_encoder *e,
                         const struct gr_record_settings *settings, int64_t count)
{
    int64_t limit = settings->max_length;
    bool too_long = count > limit;

    if (too_long && settings->too_long == GR_TOO_LONG_ERROR)
        return gr_fail(GR_ERR_DATA, e->context.place,
                       "raise data.max_length, or set data.too_long to truncate or drop",
                       "the record is too long (found %lld tokens, expected at most %lld)",
                       (long long)count, (long long)limit);
    out->dropped_long = too_long && settings->too_long == GR_TOO_LONG_DROP;
    if (too_long)
        count = limit;
    out->dropped_bare = !out->dropped_long && !has_label(e->labels + e->count, count);
    if (out->dropped_long || out->dropped_bare)
        return GR_OK;
    out->cut = too_long;
    out->count = count;
    return GR_OK;
}

static gr_status run(struct gr_encoded_record *out, struct gr_record_encoder *e,
                     const struct gr_record_settings *settings,
                     const struct gr_record_reader *reader, const struct gr_record_text *text)
{
    int64_t count = 0;
    json_t *record = NULL;
    gr_status status;

    GR_TRY(gr_record_parse(&record, reader, text, e->context.place));
    GR_TRY(gr_record_format_read(settings->format, &e->context, record));
    GR_TRY(encode(e, settings, &count));
    GR_TRY(measure(out, e, settings, count));
    if (out->count > 0)
        e->labels[e->count] = 0;
    e->count += out->count;
out:
    json_decref(record);
    return status;
}

void gr_record_encode(struct gr_encoded_record *out, struct gr_record_encoder *e,
                      const struct gr_record_settings *settings,
                      const struct gr_record_reader *reader, const struct gr_record_text *text)
{
    char *place = gr_format("%s:%lld", reader->path, (long long)text->line);

    gr_free(out->error);
    gr_buffer_clear(&out->ignored);
    *out = (struct gr_encoded_record){
        .encoder = e, .offset = e->count, .ignored = out->ignored, .status = GR_OK};
    e->context.place = place;
    e->context.chat = settings->chat;
    gr_buffer_clear(&e->context.ignored);
    out->status = run(out, e, settings, reader, text);
    if (out->status != GR_OK) {
        out->error = GR_NEW(struct gr_error);
        *out->error = gr_error_take();
    }
    if (e->context.ignored.length > 0)
        gr_buffer_add_text(&out->ignored, e->context.ignored.data);
    e->context.place = NULL;
    gr_free(place);
}

void gr_encoded_record_release(struct gr_encoded_record *record)
{
    gr_buffer_release(&record->ignored);
    gr_free(record->error);
    memset(record, 0, sizeof *record);
}

void gr_record_encoder_clear(struct gr_record_encoder *e)
{
    e->count = 0;
}

void gr_record_encoder_release(struct gr_record_encoder *e)
{
    gr_record_context_release(&e->context);
    gr_encoding_release(&e->encoding);
    gr_free(e->tokens);
    gr_free(e->labels);
    memset(e, 0, sizeof *e);
}
