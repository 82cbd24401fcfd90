/* Batches: which documents are in which micro-batch of which step, and the arrays the model reads.
 * A pure function of (documents, options, epoch, step): there is no cursor but the step number. */
#ifndef GR_DATA_LOADER_H
#define GR_DATA_LOADER_H

#include "data/documents.h"
#include "kernels/base/status.h"

struct gr_loader_options {
    int64_t max_length;       /* T: tokens of a pack */
    int64_t micro_batch_size; /* packs per micro-batch */
    int64_t micro_batches;    /* M: micro-batches per step over all ranks */
    int64_t num_train_epochs;
    int64_t max_steps; /* > 0 replaces num_train_epochs */
    uint64_t seed;
    bool packing; /* false: one document per pack */
    bool shuffle; /* false (evaluation): file and line order */
};

/* One micro-batch: packs stacked, each padded with rows outside every document to a multiple of 64
 * (GR_ROW_MULTIPLE).  Arrays are owned by the batch and have the loader's row capacity. */
struct gr_batch {
    int64_t rows;       /* N = micro_batch_size * roundup64(T), the same for every batch */
    int32_t *ids;       /* [N] token, -1 outside documents */
    int32_t *positions; /* [N] restart at 0 per document; 0 outside */
    int32_t *docs;      /* [doc_capacity][2] {begin, end}; the rest {N, N} */
    int64_t doc_count;
    int64_t doc_capacity; /* = N */
    int32_t *label_rows;  /* [N] row whose next token is supervised, ascending; -1 pads */
    int32_t *targets;     /* [N] that next token; 0 pads */
    int64_t label_count;  /* supervised labels */
    int64_t label_padded; /* label_count rounded up to 64 */
    int64_t token_count;  /* tokens inside documents */
};

struct gr_loader;

/* Borrows `documents`, which must outlive it.  Errors: ERR_DATA when there is nothing to load. */
gr_status gr_loader_create(struct gr_loader **loader, const struct gr_documents *documents,
                           const struct gr_loader_options *options);
void gr_loader_destroy(struct gr_loader *loader);

int64_t gr_loader_rows(const struct gr_loader *loader);        /* N */
int64_t gr_loader_total_steps(const struct gr_loader *loader); /* S, known before step 1 */

/* Where a step lies.  step counts from 1. */
struct gr_loader_place {
    int64_t epoch;            /* from 0 */
    int64_t epoch_first_step; /* the epoch's first step */
    int64_t epoch_steps;      /* steps of the whole epoch */
};
/* Cheap from step to step; a jump packs the epochs on the way. */
struct gr_loader_place gr_loader_place(struct gr_loader *loader, int64_t step);

/* Room for every micro-batch of the loader.  Errors: ERR_USAGE when N does not fit in 32 bits. */
gr_status gr_batch_init(struct gr_batch *batch, const struct gr_loader *loader);
void gr_batch_release(struct gr_batch *batch);
/* Fills `batch` with micro-batch m (0 <= m < M) of a step (1 <= step <= S).  The last step of an
 * epoch may have fewer than M: the missing ones are empty (no documents, no labels). */
void gr_loader_fill(struct gr_loader *loader, struct gr_batch *batch, int64_t step, int64_t m);

#endif
