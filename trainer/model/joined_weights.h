/* The linear groups of a model that are one matrix with their adapter (kernels/joined.h): on a
 * device that has memory of its own, where the weights are copied to anyway, base and adapter are
 * then one product.  Which groups these are and where their parts lie; the op does the rest. */
#ifndef GR_TRAINER_JOINED_WEIGHTS_H
#define GR_TRAINER_JOINED_WEIGHTS_H

#include "kernels/joined.h"
#include "trainer/model/lora.h"

struct gr_joined_group {
    struct gr_joined_shape shape;
    gr_tensor matrix; /* none: no adapter is on the group, or there is no memory yet */
};

struct gr_joined_weights {
    int64_t layers;
    struct gr_joined_group *group; /* [L][GR_GROUP_COUNT]; NULL: nothing is joined */
    struct gr_copy_pair *pair;     /* [pairs] A and B there, and in the adapter's param */
    int64_t pairs;
};

/* Joins every group that the adapter is on.  Several adapters, or one with dropout, stay apart from
 * the weights: then nothing is joined. */
void gr_joined_weights_init(struct gr_joined_weights *joined, const struct gr_model_config *config,
                            struct gr_adapter *const *adapter, int adapters);
void gr_joined_weights_release(struct gr_joined_weights *joined);

/* Whether these are such adapters, and A and B have their places there. */
bool gr_joined_weights_fit(const struct gr_joined_weights *joined,
                           struct gr_adapter *const *adapter, int adapters);
/* What the matrices take besides the weights in them. */
int64_t gr_joined_weights_bytes(const struct gr_joined_weights *joined, enum gr_dtype dtype);

/* The matrices, from an arena that measures, then one of zeros; gr_weights_layout puts the weights
 * into them. */
void gr_joined_weights_layout(struct gr_joined_weights *joined, enum gr_dtype dtype,
                              struct gr_arena *arena);
/* What of a layer's matrix is one linear's; none where its group is not joined. */
struct gr_joined_parts gr_joined_weights_parts(const struct gr_joined_weights *joined,
                                               int64_t layer, enum gr_module module);
gr_tensor gr_joined_weights_matrix(const struct gr_joined_weights *joined, int64_t layer,
                                   enum gr_group group);

/* Whose A and B go there: an adapter that fits, whose param is set and which has no copy. */
void gr_joined_weights_bind(struct gr_joined_weights *joined, const struct gr_adapter *adapter);
/* A and B <- that adapter's param, rounded. */
void gr_joined_weights_refresh(const struct gr_joined_weights *joined, struct gr_device *dev);

#endif
