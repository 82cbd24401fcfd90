/* Dropout on the GPU: the masks of kernels/cpu/dropout.c to the bit, made where they are needed. */
#ifndef GR_CUDA_DROPOUT_CUH
#define GR_CUDA_DROPOUT_CUH

#include "kernels/cuda/cuda.h"

/* The mask of one module in one micro-batch. */
struct gr_dropout {
    uint64_t key;    /* the trial's seed */
    uint32_t stream; /* gr_rng_stream(GR_RNG_DROPOUT, layer, module) */
    uint32_t micro_batch, step;
    float p;     /* elements are zeroed with probability p, the others divided by 1 - p */
    int64_t row; /* of the micro-batch, that the first row of the matrix is */
};

/* y <- mask * x;  x and y of one dtype and shape, with all columns of the module's input */
void gr_cuda_drop(struct gr_device *dev, const char *op, gr_tensor y, gr_tensor x,
                  const struct gr_dropout *dropout);

/* What one linear's adapter gives to dx: mask * (dS A). */
struct gr_dropped {
    gr_tensor ds; /* (rows, R) */
    gr_tensor a;  /* (R, columns) */
    struct gr_dropout dropout;
};

/* dx <- dx + the sum over `count` (at most GR_LINEARS_MOST) linears, in f32, rounded once */
void gr_cuda_add_dropped(struct gr_device *dev, const char *op, gr_tensor dx,
                         const struct gr_dropped *dropped, int count);

#endif
