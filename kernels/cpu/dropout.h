/* Dropout masks, made anew wherever they are needed: they are a pure function of the element. */
#ifndef GR_CPU_DROPOUT_H
#define GR_CPU_DROPOUT_H

#include "kernels/cpu/isa.h"
#include "kernels/ops.h"

/* The mask of one module in one micro-batch. */
struct gr_dropout {
    uint64_t key;    /* the trial's seed */
    uint32_t stream; /* gr_rng_stream(GR_RNG_DROPOUT, layer, module) */
    uint32_t micro_batch, step;
    float p;       /* elements are zeroed with probability p, the others divided by 1 - p */
    int64_t width; /* columns of the whole matrix: element (i, j) is number i * width + j */
};

/* y <- or += mask * x for the tile whose first element is (row, column) of the micro-batch. */
void GR_CPU(dropout_tile)(gr_tensor y, enum gr_write write, gr_tensor x,
                          const struct gr_dropout *dropout, int64_t row, int64_t column);

#endif
