/* Evaluation: the mean loss over a set of documents, exact at any number of ranks: packs are
 * numbered, each rank takes a block of them, and their sums are added in the tree's order. */
#ifndef GR_TRAINER_EVAL_H
#define GR_TRAINER_EVAL_H

#include "trainer/run/engine.h"

struct gr_evaluator {
    struct gr_loader *loader; /* one pack per step, in file order */
    struct gr_batch batch;
    int64_t packs;
    struct gr_sums *all;  /* [packs rounded up to the block size x ranks] */
    struct gr_sums *mine; /* [block size] */
};

/* Documents are borrowed.  Errors: those of the loader. */
gr_status gr_evaluator_init(struct gr_evaluator *evaluator, const struct gr_config *config,
                            const struct gr_documents *documents, int ranks);
void gr_evaluator_release(struct gr_evaluator *evaluator);

/* Asks the device once for every op of an evaluation, as gr_engine_rehearse does for training. */
gr_status gr_evaluator_rehearse(struct gr_evaluator *evaluator, struct gr_engine *engine);

/* Sums over all packs, on every rank.  Errors: those of the device, ERR_RETRY (a lost peer). */
gr_status gr_evaluate(struct gr_sums *total, struct gr_evaluator *evaluator,
                      struct gr_engine *engine, int trial);

/* Writes tokens, labels and logits of every pack to a safetensors file; one rank only.
 *   tokens (T) I32: documents one behind the other in the order of the packs
 *   docs (D, 2) I32: begin and end of each in tokens
 *   labels (T) U8: 1 where the token is supervised
 *   logits (S, V) F32: for each supervised token in that order, what the row before it predicts
 *   row_loss (S) F64: their losses
 * Errors: those of the device, and of putting the file. */
gr_status gr_evaluate_dump(struct gr_evaluator *evaluator, struct gr_engine *engine,
                           const char *path);

#endif
