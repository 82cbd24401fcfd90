/* Tokenized documents: what the readers make, the packer orders and the loader batches.  The arrays
 * are those of the token store (/tokens, /labels, /documents), in memory here. */
#ifndef GR_DATA_DOCUMENTS_H
#define GR_DATA_DOCUMENTS_H

#include "data/sources.h"

#include <stdint.h>

struct gr_document {
    int64_t offset; /* first token in tokens[] */
    int32_t length; /* tokens, >= 1 */
    int32_t source; /* number of the file it came from */
    float weight;   /* 1 for now */
};

struct gr_documents {
    uint32_t *tokens; /* [token_count] */
    uint8_t *labels; /* [token_count] 1: this token is supervised, as the target of the token before
                        it; a document's first token is 0 always */
    int64_t token_count;
    struct gr_document *document; /* [count] in file and line order */
    int64_t count;
    int64_t supervised_count; /* sum of labels */
    int64_t truncated_count;  /* documents cut to max_length */
    int64_t dropped_count;    /* documents left out: too long, or without a label */
};

/* Copies one document in; labels[0] is stored as 0. */
void gr_documents_add(struct gr_documents *d, const uint32_t *tokens, const uint8_t *labels,
                      int32_t length, int32_t source);
/* Room for more at the end: tokens and labels from token_count, documents from count. */
void gr_documents_reserve(struct gr_documents *d, int64_t tokens, int64_t documents);
/* Adds what a source cut and dropped to the counts. */
void gr_documents_count(struct gr_documents *d, const struct gr_source *source);
/* Moves a part of the documents, chosen at random but always the same, to the end of `held`, which
 * keeps their order: round(fraction * count) of them, at least one, and one at least stays.  It
 * depends on nothing but fraction and count, so that runs with other seeds, and the trials of a
 * sweep, are measured on the same documents.  0 <= fraction < 1; 0 moves none. */
void gr_documents_hold_out(struct gr_documents *held, struct gr_documents *d, double fraction);
/* Cuts every document to max_length tokens and leaves out those without a label then, as reading
 * with data.too_long: truncate does.  Tokens and the counts of the reading stay as they are. */
void gr_documents_cut(struct gr_documents *d, int64_t max_length);
/* [count] the lengths of all documents, ascending; the caller frees it. */
int32_t *gr_documents_lengths(const struct gr_documents *d);
void gr_documents_release(struct gr_documents *d);

#endif
