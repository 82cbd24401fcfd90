/* Records to documents: batches of records from the reader, shared out among threads, counted and
 * given to the sink in the order of the file.  See records.h; what one record becomes is in
 * record_encoder.c. */
#include "data/records.h"

#include "data/chat.h"
#include "data/record_encoder.h"
#include "data/record_formats.h"
#include "data/record_reader.h"
#include "data/threads.h"
#include "kernels/base/alloc.h"

#include <stdatomic.h>
#include <string.h>

/* A batch ends with the record that fills it: that is what memory holds beside one long record. */
enum { BATCH_RECORDS_PER_THREAD = 256, BATCH_BYTES_PER_THREAD = 1 << 18 };

static const char *const too_long_names[] = {
#define X(name, words) words,
    GR_TOO_LONG_LIST(X)
#undef X
};
static const char *const loss_on_names[] = {
#define X(name, words) words,
    GR_LOSS_ON_LIST(X)
#undef X
};

/* One reading of a list of files. */
struct reading {
    const struct gr_records_options *options;
    const struct gr_document_sink *sink;
    const struct gr_record_format *asked; /* data.format; NULL: auto */
    struct gr_record_settings settings;   /* of the file at hand */
    struct gr_record_reader reader;
    struct gr_source *source; /* its counts */
    struct gr_buffer ignored; /* keys no reader looked at, in all of it */
    /* the batch */
    struct gr_record_text *text; /* [most] */
    struct gr_encoded_record *encoded;
    int64_t count, most;
    struct gr_record_encoder *encoder; /* [threads] */
    int threads;
    atomic_int encoders_taken;
    _Atomic int64_t next; /* record that no thread has taken yet */
};

static gr_status choose(int *index, const char *key, const char *value, const char *const *names,
                        int64_t count)
{
    struct gr_buffer expected = {0};

    for (*index = 0; *index < count; ++*index)
        if (strcmp(names[*index], value) == 0)
            return GR_OK;
    for (int64_t i = 0; i < count; i++)
        gr_buffer_add_format(&expected, "%s%s", i > 0 ? ", " : "", names[i]);
    gr_fail(GR_ERR_USAGE, key, NULL, "unknown value (found %s, expected one of %s)", value,
            expected.data);
    gr_buffer_release(&expected);
    return GR_ERR_USAGE;
}

static gr_status check_options(struct reading *r)
{
    const struct gr_records_options *o = r->options;
    gr_status status = GR_OK;
    int index = 0;

    GR_CHECK(o->max_length >= 1 && o->max_length <= INT32_MAX, "max_length %lld",
             (long long)o->max_length);
    GR_TRY(choose(&index, "data.too_long", o->too_long, too_long_names, GR_COUNT(too_long_names)));
    r->settings.too_long = (enum gr_too_long)index;
    GR_TRY(choose(&index, "data.loss_on", o->loss_on, loss_on_names, GR_COUNT(loss_on_names)));
    r->settings.loss_on = (enum gr_loss_on)index;
    r->asked = gr_record_format_find(o->format);
    if (r->asked == NULL && strcmp(o->format, "auto") != 0) {
        status = gr_fail(GR_ERR_USAGE, "data.format", NULL, "no such format (found %s)", o->format);
        gr_record_format_hint("one of");
    }
out:
    return status;
}

/* The format of a file, from its first record; a chat format is chosen when the first conversation
 * needs one. */
static gr_status choose_format(struct reading *r, const json_t *record, const char *place)
{
    struct gr_record_settings *s = &r->settings;
    gr_status status = GR_OK;

    s->format = r->asked;
    if (s->format == NULL)
        GR_TRY(gr_record_format_detect(&s->format, record, place));
    if (s->format->chat && s->chat.format == NULL)
        GR_TRY(gr_chat_choose(&s->chat, r->options->chat_format, s->tokenizer));
    if (!s->format->chat && s->eos < 0)
        status =
            gr_fail(GR_ERR_DATA, "tokenizer_config.json",
                    "give eos_token there, or eos_token_id in config.json",
                    "the model has no EOS, which ends a document of format %s", s->format->name);
out:
    return status;
}

static gr_status begin_file(struct reading *r, const struct gr_record_text *first)
{
    char *place = gr_format("%s:%lld", r->reader.path, (long long)first->line);
    json_t *record = NULL;
    gr_status status;

    GR_TRY(gr_record_parse(&record, &r->reader, first, place));
    GR_TRY(choose_format(r, record, place));
out:
    json_decref(record);
    gr_free(place);
    return status;
}

static void end_file(struct reading *r)
{
    gr_source_set(&r->source->format, r->settings.format->name);
    if (r->settings.format->chat)
        gr_source_set(&r->source->chat_format, gr_chat_name(&r->settings.chat));
    if (r->ignored.length > 0)
        gr_source_set(&r->source->ignored, r->ignored.data);
}

/* The next records of the file; none at its end.  A failure comes behind those that were read. */
static gr_status fill(struct reading *r)
{
    int64_t bytes = 0;
    gr_status status = GR_OK;

    for (r->count = 0; r->count < r->most && bytes < r->threads * BATCH_BYTES_PER_THREAD;) {
        struct gr_record_text *text = &r->text[r->count];

        GR_TRY(gr_record_reader_next(&r->reader, text));
        if (text->length == 0)
            break;
        bytes += text->length;
        r->count++;
    }
out:
    return status;
}

static void encode_some(void *context)
{
    struct reading *r = context;
    struct gr_record_encoder *encoder = &r->encoder[atomic_fetch_add(&r->encoders_taken, 1)];
    int64_t i;

    gr_record_encoder_clear(encoder);
    while ((i = atomic_fetch_add(&r->next, 1)) < r->count)
        gr_record_encode(&r->encoded[i], encoder, &r->settings, &r->reader, &r->text[i]);
}

static gr_status give(struct reading *r, const struct gr_encoded_record *e, int32_t number)
{
    const struct gr_record_encoder *encoder = e->encoder;
    struct gr_source *source = r->source;

    if (e->status != GR_OK) {
        gr_error_put(e->error);
        return e->status;
    }
    source->records++;
    gr_record_ignored_add(&r->ignored, e->ignored.data);
    source->dropped_long += e->dropped_long;
    source->dropped_bare += e->dropped_bare;
    if (e->count == 0)
        return GR_OK;
    source->cut += e->cut;
    source->documents++;
    source->tokens += e->count;
    for (int64_t i = 0; i < e->count; i++)
        source->supervised += encoder->labels[e->offset + i];
    return r->sink->add(r->sink->context, encoder->tokens + e->offset, encoder->labels + e->offset,
                        (int32_t)e->count, number);
}

static gr_status run_batch(struct reading *r, int32_t number)
{
    int threads = r->count < r->threads ? (int)r->count : r->threads;
    gr_status status = GR_OK;

    if (r->count == 0)
        return GR_OK;
    if (r->settings.format == NULL)
        GR_TRY(begin_file(r, &r->text[0]));
    atomic_store(&r->next, 0);
    atomic_store(&r->encoders_taken, 0);
    gr_run_threads(threads, encode_some, r);
    for (int64_t i = 0; i < r->count; i++)
        GR_TRY(give(r, &r->encoded[i], number));
    gr_record_reader_forget(&r->reader);
out:
    return status;
}

static gr_status read_file(struct reading *r, const char *path, int32_t number)
{
    gr_status status = GR_OK;

    r->settings.format = NULL;
    gr_buffer_clear(&r->ignored);
    GR_TRY(gr_record_reader_open(&r->reader, path));
    do {
        gr_status reading = fill(r);
        struct gr_error error = gr_error_take();

        GR_TRY(run_batch(r, number));
        status = reading;
        if (status != GR_OK)
            gr_error_put(&error);
    } while (status == GR_OK && r->count > 0);
    if (status == GR_OK)
        end_file(r);
out:
    gr_record_reader_close(&r->reader);
    return status;
}

static void release(struct reading *r)
{
    for (int64_t i = 0; i < r->most; i++)
        gr_encoded_record_release(&r->encoded[i]);
    for (int i = 0; i < r->threads; i++)
        gr_record_encoder_release(&r->encoder[i]);
    gr_free(r->text);
    gr_free(r->encoded);
    gr_free(r->encoder);
    gr_buffer_release(&r->ignored);
}

gr_status gr_records_stream(const struct gr_document_sink *sink, struct gr_sources *sources,
                            const struct gr_tokenizer *tokenizer, const char *const *files,
                            int64_t count, const struct gr_records_options *options)
{
    struct reading r = {.options = options,
                        .sink = sink,
                        .threads = options->threads < 1 ? 1 : options->threads,
                        .settings = {.tokenizer = tokenizer,
                                     .max_length = options->max_length,
                                     .eos = gr_records_eos(tokenizer, options)}};
    gr_status status = GR_OK;

    r.most = (int64_t)r.threads * BATCH_RECORDS_PER_THREAD;
    r.text = GR_NEW_ARRAY(struct gr_record_text, r.most);
    r.encoded = GR_NEW_ARRAY(struct gr_encoded_record, r.most);
    r.encoder = GR_NEW_ARRAY(struct gr_record_encoder, r.threads);
    GR_TRY(check_options(&r));
    for (int64_t i = 0; i < count; i++) {
        r.source = gr_sources_add(sources, files[i]);
        GR_TRY(read_file(&r, files[i], (int32_t)i));
    }
out:
    release(&r);
    return status;
}

int64_t gr_records_eos(const struct gr_tokenizer *tokenizer,
                       const struct gr_records_options *options)
{
    int64_t eos = gr_tokenizer_eos(tokenizer);

    return eos < 0 ? options->fallback_eos : eos;
}

struct keeping {
    struct gr_documents *documents;
    int32_t first_source;
};

static gr_status keep(void *context, const uint32_t *tokens, const uint8_t *labels, int32_t length,
                      int32_t source)
{
    const struct keeping *k = context;

    gr_documents_add(k->documents, tokens, labels, length, k->first_source + source);
    return GR_OK;
}

gr_status gr_records_read(struct gr_documents *documents, struct gr_sources *sources,
                          const struct gr_tokenizer *tokenizer, const char *const *files,
                          int64_t count, const struct gr_records_options *options)
{
    struct keeping keeping = {.documents = documents, .first_source = (int32_t)sources->count};
    const struct gr_document_sink sink = {.context = &keeping, .add = keep};

    return gr_records_stream(&sink, sources, tokenizer, files, count, options);
}
