/* The one CUDA header of the backend: every .cu file includes it and no other of CUDA.
 *
 * Under nvcc it is CUDA; under g++ (the emulated plug-in of the tests) emu.h takes CUDA's place.
 * Kernels are launched with GR_LAUNCH, shared memory is declared with GR_SHARED or
 * GR_DYNAMIC_SHARED, inline PTX stands here alone. */
#ifndef GR_CUDA_H
#define GR_CUDA_H

#ifndef GR_EMULATED
#include "kernels/cuda/ptx.h"
#else
#include "emu.h"
#endif

#include <cublasLt.h>

#define GR_DEVICE_FUNCTION static inline __host__ __device__
extern "C" {
#include "kernels/backend.h"
#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"
}

enum {
    GR_CUDA_SLOTS = 4,            /* of pinned memory, through which uploads go in turn */
    GR_CUDA_SLOT_BYTES = 8 << 20, /* also of the pinned memory of downloads */
    GR_CUDA_DOWNLOADS = 64        /* queued between two waits */
};

/* A download that the host gets with the next wait. */
struct gr_cuda_download {
    void *destination;
    const void *source; /* pinned */
    int64_t bytes;
};

/* What stands behind gr_device.backend. */
struct gr_cuda {
    cudaStream_t stream;
    cublasLtHandle_t blaslt;
    struct gr_cuda_plans *plans;     /* gemm.h */
    double *partial;                 /* device memory of sum_squares, [GR_PARTIALS_MOST] */
    float *clip;                     /* the same of adamw */
    struct gr_nccl *nccl;            /* nccl.cu; NULL: not opened */
    struct gr_cuda_cudnn *cudnn;     /* cudnn_plans.cu; NULL: nobody has asked for it */
    struct gr_cuda_moments *moments; /* timer.cu; NULL: nothing is timed */
    char isa[96];                    /* "sm_90 NVIDIA H100 ...": part of the device kind */
    char software[64];               /* likewise */

    unsigned char *slot[GR_CUDA_SLOTS]; /* pinned */
    cudaEvent_t slot_is_free[GR_CUDA_SLOTS];
    int slot_now;
    int64_t slot_used;

    cudaStream_t copies; /* stash.cu; NULL: nothing was ever stashed */
    cudaEvent_t stash_may_begin, stash_is_through[GR_STASH_LANES];

    unsigned char *arrivals; /* pinned: what downloads brought */
    int64_t arrivals_used;
    struct gr_cuda_download download[GR_CUDA_DOWNLOADS];
    int downloads;
};

static inline struct gr_cuda *gr_cuda_of(struct gr_device *dev)
{
    return (struct gr_cuda *)dev->backend;
}

/* Whether that went well; if not, the device fails with the error's words. */
bool gr_cuda_ok(struct gr_device *dev, const char *op, cudaError_t error);

#define X(type, name, parameters) type gr_cuda_##name parameters;
GR_BACKEND_LIST(X)
#undef X

extern const struct gr_ops gr_cuda_ops;
extern const struct gr_peers_ops gr_cuda_peers;
void gr_cuda_peers_close(struct gr_cuda *c);
void gr_cuda_timer_close(struct gr_cuda *c);
void gr_cuda_stash_close(struct gr_cuda *c);

#endif
