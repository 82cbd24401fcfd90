/* Growing lists of tokenized documents.  See documents.h. */
#include "data/documents.h"

#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"

#include <stdlib.h>
#include <string.h>

/* Room for one power of two more than is used: capacity is derived, not stored. */
static int64_t grown_capacity(int64_t count)
{
    int64_t capacity = 1024;

    while (capacity < count)
        capacity *= 2;
    return capacity;
}

void gr_documents_reserve(struct gr_documents *d, int64_t tokens, int64_t documents)
{
    int64_t need = d->token_count + tokens;

    if (d->tokens == NULL || grown_capacity(need) != grown_capacity(d->token_count)) {
        d->tokens = gr_realloc(d->tokens, grown_capacity(need), sizeof *d->tokens);
        d->labels = gr_realloc(d->labels, grown_capacity(need), sizeof *d->labels);
    }
    need = d->count + documents;
    if (d->document == NULL || grown_capacity(need) != grown_capacity(d->count))
        d->document = gr_realloc(d->document, grown_capacity(need), sizeof *d->document);
}

void gr_documents_add(struct gr_documents *d, const uint32_t *tokens, const uint8_t *labels,
                      int32_t length, int32_t source)
{
    gr_documents_reserve(d, length, 1);
    memcpy(d->tokens + d->token_count, tokens, (size_t)length * sizeof *tokens);
    memcpy(d->labels + d->token_count, labels, (size_t)length);
    if (length > 0)
        d->labels[d->token_count] = 0;
    for (int32_t i = 0; i < length; i++)
        d->supervised_count += d->labels[d->token_count + i];
    d->document[d->count] = (struct gr_document){
        .offset = d->token_count, .length = length, .source = source, .weight = 1.0f};
    d->count++;
    d->token_count += length;
}

void gr_documents_count(struct gr_documents *d, const struct gr_source *source)
{
    d->truncated_count += source->cut;
    d->dropped_count += source->dropped_long + source->dropped_bare;
}

/* The key by which documents are drawn for evaluation: the lowest are held out. */
static uint64_t draw_key(int64_t number)
{
    struct gr_philox_block b = gr_philox(0, (uint32_t)number, gr_rng_stream(GR_RNG_SPLIT, 0, 0),
                                         (uint32_t)((uint64_t)number >> 32), 0);

    return (uint64_t)b.word[1] << 32 | b.word[0];
}

struct draw {
    uint64_t key;
    int64_t number;
};

static int by_key(const void *a, const void *b)
{
    const struct draw *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

/* is_held[i] <- whether document i is one of the `held` drawn. */
static bool *draw_documents(int64_t count, int64_t held)
{
    bool *is_held = GR_NEW_ARRAY(bool, count);
    struct draw *draws = GR_NEW_ARRAY(struct draw, count);

    for (int64_t i = 0; i < count; i++)
        draws[i] = (struct draw){.key = draw_key(i), .number = i};
    qsort(draws, (size_t)count, sizeof *draws, by_key);
    for (int64_t i = 0; i < held; i++)
        is_held[draws[i].number] = true;
    gr_free(draws);
    return is_held;
}

/* What stays moves down over the gaps. */
void gr_documents_hold_out(struct gr_documents *held, struct gr_documents *d, double fraction)
{
    int64_t count = (int64_t)(fraction * (double)d->count + 0.5), all = d->count;
    bool *is_held = NULL;

    if (fraction <= 0 || d->count < 2)
        return;
    count = count < 1 ? 1 : count > all - 1 ? all - 1 : count;
    is_held = draw_documents(all, count);
    d->count = d->token_count = d->supervised_count = 0;
    for (int64_t i = 0; i < all; i++) {
        struct gr_document document = d->document[i];
        uint32_t *tokens = d->tokens + document.offset;
        uint8_t *labels = d->labels + document.offset;

        if (is_held[i]) {
            gr_documents_add(held, tokens, labels, document.length, document.source);
            continue;
        }
        memmove(d->tokens + d->token_count, tokens, (size_t)document.length * sizeof *tokens);
        memmove(d->labels + d->token_count, labels, (size_t)document.length);
        document.offset = d->token_count;
        for (int32_t t = 0; t < document.length; t++)
            d->supervised_count += d->labels[d->token_count + t];
        d->document[d->count++] = document;
        d->token_count += document.length;
    }
    gr_free(is_held);
}

void gr_documents_cut(struct gr_documents *d, int64_t max_length)
{
    int64_t kept = 0;

    d->supervised_count = 0;
    for (int64_t i = 0; i < d->count; i++) {
        struct gr_document document = d->document[i];
        int64_t labels = 0;

        if (document.length > max_length)
            document.length = (int32_t)max_length;
        for (int64_t t = document.offset; t < document.offset + document.length; t++)
            labels += d->labels[t];
        d->supervised_count += labels;
        if (labels > 0)
            d->document[kept++] = document;
    }
    d->count = kept;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

    return (x > y) - (x < y);
}

int32_t *gr_documents_lengths(const struct gr_documents *d)
{
    int32_t *length = GR_NEW_ARRAY(int32_t, d->count);

    for (int64_t i = 0; i < d->count; i++)
        length[i] = d->document[i].length;
    if (d->count > 0)
        qsort(length, (size_t)d->count, sizeof *length, ascending);
    return length;
}

void gr_documents_release(struct gr_documents *d)
{
    gr_free(d->tokens);
    gr_free(d->labels);
    gr_free(d->document);
    memset(d, 0, sizeof *d);
}
