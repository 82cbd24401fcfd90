/* The arithmetic of a model with an adapter: matrix products and attention, a multiplication with
 * its addition counted as two.  What passes over memory is not counted, nor are gradients of frozen
 * weights, which nobody computes. */
#ifndef GR_TRAINER_FLOP_H
#define GR_TRAINER_FLOP_H

#include "trainer/model/transformer.h"

/* What is worked on; the zeros are nothing. */
struct gr_work {
    double rows;   /* of packs: each passes all linears, also where no document is */
    double labels; /* rows the head sees */
    double pairs;  /* of a query and a key that it sees, over all layers */
};

/* The pairs of one document. */
void gr_work_add_document(struct gr_work *work, const struct gr_model_config *model,
                          int64_t tokens);

/* How many products there are of a weight and a row, of an adapter's matrix and a row, of the two
 * rows of a pair, of the vocabulary and a label. */
struct gr_passes {
    double linear, adapter, attention, head;
};
extern const struct gr_passes gr_passes_forward, gr_passes_backward;

double gr_flop(const struct gr_passes *passes, const struct gr_work *work,
               const struct gr_model_config *model, const struct gr_adapter *adapter);
/* What the backward computes again, where so many layers do each stage again; of attention, scores
 * and their product with v.  Adapters are too small to count here. */
double gr_flop_linears_redone(const int64_t layers[GR_STAGE_COUNT], const struct gr_work *work,
                              const struct gr_model_config *model);
double gr_flop_attention_redone(const int64_t layers[GR_STAGE_COUNT], const struct gr_work *work,
                                const struct gr_model_config *model);

#endif
