/* What micro-batches count, and the order in which several are added: that of the gradients' tree.
 * On the host, in f64 and int64. */
#ifndef GR_TRAINER_SUMS_H
#define GR_TRAINER_SUMS_H

#include <stdint.h>

struct gr_sums {
    double loss;        /* sum of row losses */
    double squares;     /* of the gradient's elements: not finite where one of them is not */
    int64_t supervised; /* labels */
    int64_t tokens;     /* tokens inside documents */
};

/* What several micro-batches have together. */
static inline struct gr_sums gr_sums_add(struct gr_sums a, struct gr_sums b)
{
    return (struct gr_sums){a.loss + b.loss, a.squares + b.squares, a.supervised + b.supervised,
                            a.tokens + b.tokens};
}

/* T(low, high) over leaf[low * stride], leaf[(low + 1) * stride], ...; low < high. */
struct gr_sums gr_sums_tree(const struct gr_sums *leaf, int64_t stride, int64_t low, int64_t high);

#endif
