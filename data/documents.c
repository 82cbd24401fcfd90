/* Growing lists of tokenized documents.  See documents.h. */
#include "data/documents.h"

#include "kernels/base/alloc.h"

#include <string.h>

/* Room for one power of two more than is used: capacity is derived, not stored. */
static int64_t grown_capacity(int64_t count)
{
    int64_t capacity = 1024;

    while (capacity < count)
        capacity *= 2;
    return capacity;
}

void gr_documents_add(struct gr_documents *d, const uint32_t *tokens, const uint8_t *labels,
                      int32_t length, int32_t source)
{
    int64_t need = d->token_count + length;

    if (d->tokens == NULL || grown_capacity(need) != grown_capacity(d->token_count)) {
        d->tokens = gr_realloc(d->tokens, grown_capacity(need), sizeof *d->tokens);
        d->labels = gr_realloc(d->labels, grown_capacity(need), sizeof *d->labels);
    }
    if (d->document == NULL || grown_capacity(d->count + 1) != grown_capacity(d->count))
        d->document = gr_realloc(d->document, grown_capacity(d->count + 1), sizeof *d->document);
    memcpy(d->tokens + d->token_count, tokens, (size_t)length * sizeof *tokens);
    memcpy(d->labels + d->token_count, labels, (size_t)length);
    if (length > 0)
        d->labels[d->token_count] = 0;
    for (int32_t i = 0; i < length; i++)
        d->supervised_count += d->labels[d->token_count + i];
    d->document[d->count] = (struct gr_document){
        .offset = d->token_count, .length = length, .source = source, .weight = 1.0f};
    d->count++;
    d->token_count = need;
}

void gr_documents_release(struct gr_documents *d)
{
    gr_free(d->tokens);
    gr_free(d->labels);
    gr_free(d->document);
    memset(d, 0, sizeof *d);
}
