/* Records to documents: encode, mask, cut, count.  See records.h. */
#include "data/records.h"

#include "data/chat.h"
#include "data/record_formats.h"
#include "data/record_reader.h"
#include "kernels/base/alloc.h"

#include <string.h>

#define TOO_LONG_LIST(X)                                                                           \
    X(TRUNCATE, "truncate")                                                                        \
    X(DROP, "drop")                                                                                \
    X(ERROR, "error")

enum too_long {
#define X(name, words) TOO_LONG_##name,
    TOO_LONG_LIST(X)
#undef X
};

static const char *const too_long_names[] = {
#define X(name, words) words,
    TOO_LONG_LIST(X)
#undef X
};
static const char *const loss_on_names[] = {
#define X(name, words) words,
    GR_LOSS_ON_LIST(X)
#undef X
};

/* One reading of a list of files. */
struct reading {
    const struct gr_tokenizer *tokenizer;
    const struct gr_records_options *options;
    const struct gr_document_sink *sink;
    const struct gr_record_format *asked; /* data.format; NULL: auto */
    enum too_long too_long;
    enum gr_loss_on loss_on;
    int64_t eos; /* -1: none */
    struct gr_record_context context;
    struct gr_encoding encoding;
    uint32_t *tokens; /* [capacity] of the record at hand */
    uint8_t *labels;
    int64_t capacity;
    struct gr_source *source; /* counts of the file at hand */
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
    r->too_long = (enum too_long)index;
    GR_TRY(choose(&index, "data.loss_on", o->loss_on, loss_on_names, GR_COUNT(loss_on_names)));
    r->loss_on = (enum gr_loss_on)index;
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
static gr_status begin_file(struct reading *r, const struct gr_record_format **format,
                            const json_t *record)
{
    gr_status status = GR_OK;

    *format = r->asked;
    if (*format == NULL)
        GR_TRY(gr_record_format_detect(format, record, r->context.place));
    if ((*format)->chat && r->context.chat.format == NULL)
        GR_TRY(gr_chat_choose(&r->context.chat, r->options->chat_format, r->tokenizer));
    if (!(*format)->chat && r->eos < 0)
        status =
            gr_fail(GR_ERR_DATA, "tokenizer_config.json",
                    "give eos_token there, or eos_token_id in config.json",
                    "the model has no EOS, which ends a document of format %s", (*format)->name);
out:
    return status;
}

static gr_status check_bos(const struct reading *r, int64_t count)
{
    int64_t bos = gr_tokenizer_bos(r->tokenizer);

    for (int64_t i = 0; i + 1 < count; i++)
        if (bos >= 0 && r->tokens[i] == bos && r->tokens[i + 1] == bos)
            return gr_fail(GR_ERR_DATA, r->context.place,
                           "take the BOS out of the data: the template or the tokenizer adds it",
                           "two BOS tokens in a row (found %s twice at token %lld)",
                           gr_tokenizer_bos_text(r->tokenizer), (long long)i);
    return GR_OK;
}

/* tokens, labels <- the rendered record; *count of them. */
static gr_status encode(struct reading *r, const struct gr_record_format *format, int64_t *count)
{
    const struct gr_chat_text *text = &r->context.text;
    enum gr_loss_on loss_on = format->all_supervised ? GR_LOSS_ON_ALL : r->loss_on;
    gr_status status = GR_OK;
    int64_t n;

    GR_TRY(gr_tokenizer_encode(r->tokenizer, &r->encoding,
                               text->text.data == NULL ? "" : text->text.data, text->text.length,
                               !format->chat));
    n = r->encoding.count;
    if (n + 1 > r->capacity) {
        r->capacity = 2 * (n + 1);
        r->tokens = gr_realloc(r->tokens, r->capacity, sizeof *r->tokens);
        r->labels = gr_realloc(r->labels, r->capacity, sizeof *r->labels);
    }
    memcpy(r->tokens, r->encoding.ids, (size_t)n * sizeof *r->tokens);
    gr_chat_label(r->labels, &r->encoding, text, loss_on);
    GR_TRY(check_bos(r, n));
    if (!format->chat) {
        if (n == 0 || r->tokens[n - 1] != r->eos)
            r->tokens[n++] = (uint32_t)r->eos;
        r->labels[n - 1] = 1;
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

static gr_status add_record(struct reading *r, const struct gr_record_format *format,
                            const json_t *record, int32_t number)
{
    int64_t limit = r->options->max_length, count = 0;
    gr_status status = GR_OK;
    bool too_long;

    r->source->records++;
    GR_TRY(gr_record_format_read(format, &r->context, record));
    GR_TRY(encode(r, format, &count));
    too_long = count > limit;
    if (too_long && r->too_long == TOO_LONG_ERROR)
        return gr_fail(GR_ERR_DATA, r->context.place,
                       "raise data.max_length, or set data.too_long to truncate or drop",
                       "the record is too long (found %lld tokens, expected at most %lld)",
                       (long long)count, (long long)limit);
    if (too_long && r->too_long == TOO_LONG_DROP) {
        r->source->dropped_long++;
        goto out;
    }
    if (too_long)
        count = limit;
    if (!has_label(r->labels, count)) {
        r->source->dropped_bare++;
        goto out;
    }
    r->labels[0] = 0;
    r->source->cut += too_long;
    r->source->documents++;
    r->source->tokens += count;
    for (int64_t i = 0; i < count; i++)
        r->source->supervised += r->labels[i];
    status = r->sink->add(r->sink->context, r->tokens, r->labels, (int32_t)count, number);
out:
    return status;
}

static void end_file(struct reading *r, const struct gr_record_format *format)
{
    gr_source_set(&r->source->format, format->name);
    if (format->chat)
        gr_source_set(&r->source->chat_format, gr_chat_name(&r->context.chat));
    if (r->context.ignored.length > 0)
        gr_source_set(&r->source->ignored, r->context.ignored.data);
    gr_buffer_clear(&r->context.ignored);
}

static gr_status read_file(struct reading *r, const char *path, int32_t number)
{
    const struct gr_record_format *format = NULL;
    struct gr_record_reader reader = {0};
    json_t *record = NULL;
    gr_status status = GR_OK;

    GR_TRY(gr_record_reader_open(&reader, path));
    for (;;) {
        json_decref(record);
        GR_TRY(gr_record_reader_next(&reader, &record));
        if (record == NULL)
            break;
        r->context.place = reader.place;
        if (format == NULL)
            GR_TRY(begin_file(r, &format, record));
        GR_TRY(add_record(r, format, record, number));
    }
    end_file(r, format);
out:
    json_decref(record);
    gr_record_reader_close(&reader);
    return status;
}

static void release(struct reading *r)
{
    gr_record_context_release(&r->context);
    gr_encoding_release(&r->encoding);
    gr_free(r->tokens);
    gr_free(r->labels);
}

gr_status gr_records_stream(const struct gr_document_sink *sink, struct gr_sources *sources,
                            const struct gr_tokenizer *tokenizer, const char *const *files,
                            int64_t count, const struct gr_records_options *options)
{
    struct reading r = {.tokenizer = tokenizer,
                        .options = options,
                        .sink = sink,
                        .eos = gr_records_eos(tokenizer, options)};
    gr_status status = GR_OK;

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

static gr_status keep(void *context, const uint32_t *tokens, const uint8_t *labels, int32_t length,
                      int32_t source)
{
    gr_documents_add(context, tokens, labels, length, source);
    return GR_OK;
}

gr_status gr_records_read(struct gr_documents *documents, const struct gr_tokenizer *tokenizer,
                          const char *const *files, int64_t count,
                          const struct gr_records_options *options)
{
    const struct gr_document_sink sink = {.context = documents, .add = keep};
    struct gr_sources sources = {0};
    gr_status status = GR_OK;

    status = gr_records_stream(&sink, &sources, tokenizer, files, count, options);
    for (int64_t i = 0; i < sources.count; i++)
        gr_documents_count(documents, &sources.item[i]);
    GR_TRY(status);
    for (int64_t i = 0; i < sources.count; i++)
        gr_source_note(&sources.item[i], options->max_length);
    GR_TRY(gr_sources_check_learned(&sources, options->max_length));
out:
    gr_sources_release(&sources);
    return status;
}
