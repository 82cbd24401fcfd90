/* Packs: which documents of an epoch lie together, and in which order.  A pure function of
 * (lengths, options, epoch), the same on every machine and for any number of ranks.
 * The loader calls it; it knows no batches and no steps. */
#ifndef GR_DATA_PACK_H
#define GR_DATA_PACK_H

#include "data/documents.h"

#include <stdbool.h>

/* Packs never reach over a window of this many documents of the epoch's order, so that packing
 * costs O(n) and a document stays near the place the shuffle gave it. */
enum { GR_PACK_WINDOW = 4096 };

struct gr_pack_options {
    int64_t max_length; /* T: tokens of a pack; no document is longer */
    uint64_t seed;
    bool packing; /* false: one document per pack */
    bool shuffle; /* false: file and line order in every epoch */
};

/* The packs of one epoch, in the order they were begun:
 *   pack p holds the documents member[first[p]] .. member[first[p + 1] - 1], in that order. */
struct gr_packs {
    int64_t count;
    int64_t *first;  /* [document count + 1], of which count + 1 are in use */
    int64_t *member; /* [document count] numbers of documents, each once */
};

void gr_packs_init(struct gr_packs *packs, int64_t document_count);
void gr_packs_release(struct gr_packs *packs);

/* Makes the packs of epoch e (from 0), over those that were there; allocates nothing.
 *   Order: Fisher-Yates over documents 0, 1, 2, ... in file and line order.
 *   Packs: best fit, each document in turn into the pack with the least space it fits into, the
 *   older one of two with the same space, a new one where it fits into none. */
void gr_packs_fill(struct gr_packs *packs, const struct gr_documents *documents,
                   const struct gr_pack_options *options, int64_t epoch);

#endif
