/* Records to documents: encode, mask, cut, count.  See records.h. */
#include "data/records.h"

#include "data/chat.h"
#include "data/record_formats.h"
#include "data/record_reader.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"

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
    struct gr_documents *documents;
    const struct gr_record_format *asked; /* data.format; NULL: auto */
    const struct gr_record_format *last;  /* of the file read last */
    enum too_long too_long;
    enum gr_loss_on loss_on;
    int64_t eos; /* -1: none */
    struct gr_record_context context;
    struct gr_encoding encoding;
    uint32_t *tokens; /* [capacity] of the record at hand */
    uint8_t *labels;
    int64_t capacity;
    int64_t records; /* read so far */
    /* of the file at hand */
    int64_t cut, dropped_long, dropped_bare;
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
                            const json_t *record, int64_t source)
{
    int64_t limit = r->options->max_length, count = 0;
    gr_status status = GR_OK;
    bool too_long;

    r->records++;
    GR_TRY(gr_record_format_read(format, &r->context, record));
    GR_TRY(encode(r, format, &count));
    too_long = count > limit;
    if (too_long && r->too_long == TOO_LONG_ERROR)
        return gr_fail(GR_ERR_DATA, r->context.place,
                       "raise data.max_length, or set data.too_long to truncate or drop",
                       "the record is too long (found %lld tokens, expected at most %lld)",
                       (long long)count, (long long)limit);
    if (too_long && r->too_long == TOO_LONG_DROP) {
        r->dropped_long++;
        goto out;
    }
    if (too_long)
        count = limit;
    if (!has_label(r->labels, count)) {
        r->dropped_bare++;
        goto out;
    }
    r->cut += too_long;
    gr_documents_add(r->documents, r->tokens, r->labels, (int32_t)count, (int32_t)source);
out:
    return status;
}

/* Counts of a file go into the documents and, in words, to the user. */
static void end_file(struct reading *r, const char *path, const struct gr_record_format *format,
                     const struct gr_documents *before)
{
    struct gr_documents *d = r->documents;

    d->truncated_count += r->cut;
    d->dropped_count += r->dropped_long + r->dropped_bare;
    gr_note("%s: %lld documents of format %s%s%s, %lld tokens, %lld supervised", path,
            (long long)(d->count - before->count), format->name,
            format->chat ? ", chat format " : "",
            format->chat ? gr_chat_name(&r->context.chat) : "",
            (long long)(d->token_count - before->token_count),
            (long long)(d->supervised_count - before->supervised_count));
    if (r->cut + r->dropped_long > 0)
        gr_note("%s: longer than %lld tokens: %lld cut, %lld dropped", path,
                (long long)r->options->max_length, (long long)r->cut, (long long)r->dropped_long);
    if (r->dropped_bare > 0)
        gr_note("%s: %lld dropped, because no token of theirs is supervised", path,
                (long long)r->dropped_bare);
    if (r->context.ignored.length > 0)
        gr_note("%s: keys that are not used: %s", path, r->context.ignored.data);
    r->cut = r->dropped_long = r->dropped_bare = 0;
    gr_buffer_clear(&r->context.ignored);
}

static gr_status read_file(struct reading *r, const char *path, int64_t source)
{
    const struct gr_record_format *format = NULL;
    const struct gr_documents before = *r->documents;
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
        GR_TRY(add_record(r, format, record, source));
    }
    end_file(r, path, format, &before);
    r->last = format;
out:
    json_decref(record);
    gr_record_reader_close(&reader);
    return status;
}

static gr_status fail_bare(const struct reading *r, const char *path)
{
    return gr_fail(
        GR_ERR_DATA, path, "data.format, data.loss_on and data.max_length decide what is learned",
        "nothing to learn: no token is supervised (found none in %lld records of format "
        "%s, each cut to %lld tokens; expected %s)",
        (long long)r->records, r->last->name, (long long)r->options->max_length, r->last->learned);
}

static void release(struct reading *r)
{
    gr_record_context_release(&r->context);
    gr_encoding_release(&r->encoding);
    gr_free(r->tokens);
    gr_free(r->labels);
}

gr_status gr_records_read(struct gr_documents *documents, const struct gr_tokenizer *tokenizer,
                          const char *const *files, int64_t count,
                          const struct gr_records_options *options)
{
    struct reading r = {.tokenizer = tokenizer,
                        .options = options,
                        .documents = documents,
                        .eos = gr_tokenizer_eos(tokenizer)};
    int64_t supervised = documents->supervised_count;
    gr_status status = GR_OK;

    if (r.eos < 0)
        r.eos = options->fallback_eos;
    GR_TRY(check_options(&r));
    for (int64_t i = 0; i < count; i++)
        GR_TRY(read_file(&r, files[i], i));
    if (documents->supervised_count == supervised && r.last != NULL)
        status = fail_bare(&r, files[count - 1]);
out:
    release(&r);
    return status;
}
