/* The table of the CUDA backend. */
#include "kernels/cuda/cuda.h"

const struct gr_ops gr_cuda_ops = {
#define X(type, name, parameters) gr_cuda_##name,
    GR_BACKEND_LIST(X)
#undef X
};
