/* Whether attention is cuDNN's on this device, and its plans: one for each shape and number of
 * documents, kept between runs as text.
 *
 * The record of this machine says whose attention it uses; `graft doctor --device cuda` writes it.
 * Without one, or where cuDNN is missing or makes no plan, attention is that of attention.cu.
 * Plans are made when somebody asks for the workspace, before the first step: a shape that cuDNN
 * refuses is known then, and keeps to our attention. */
#ifndef GR_CUDA_CUDNN_PLANS_H
#define GR_CUDA_CUDNN_PLANS_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cudnn_attention.h"

enum {
    GR_CUDNN_PLANS = 256,          /* remembered */
    GR_CUDNN_DOCUMENTS_MOST = 64,  /* of a plan; more, short ones, are left to our attention */
    GR_CUDNN_RECORDED_LEAST = 256, /* rows: for fewer a plan takes longer than it saves */
    GR_CUDNN_WORKSPACE_MOST = 5,   /* times dq in f32, of a plan: see drop_large */
    GR_CUDNN_HEAD_DIM_MOST = 128,  /* both directions have kernels up to here */
};

struct gr_cudnn_plan {
    struct gr_cudnn_attention key;
    void *plan; /* NULL: cuDNN makes none */
    int64_t workspace_bytes;
    int64_t ids, id[GR_CUDNN_BOUND]; /* what is bound */
};

/* The plan for such tensors (their data may be missing) and up to that many documents.  NULL: our
 * attention computes it. */
const struct gr_cudnn_plan *gr_cuda_cudnn_plan(struct gr_device *dev, const struct gr_attention *a,
                                               bool is_backward, int64_t documents);
/* Whose attention this device computes, in words: "own", "cudnn 91900", or "cudnn 91900 all" where
 * somebody wants it for few rows too. */
enum { GR_CUDA_ATTENTION_WORDS = 48 };
void gr_cuda_attention_name(struct gr_device *dev, char words[GR_CUDA_ATTENTION_WORDS]);
/* Computes as these words of another device say.  Errors: ERR_DATA (no such words), ERR_DEVICE (no
 * such cuDNN), ERR_USAGE (GRAFT_ATTENTION here says otherwise). */
gr_status gr_cuda_set_attention(struct gr_device *dev, const char *words);
/* The library with its handle; only after a plan was had. */
const struct gr_cudnn *gr_cuda_cudnn(struct gr_device *dev);
void gr_cuda_cudnn_close(struct gr_cuda *c);

/* ---- cudnn_run.cu ---- */

/* What a direction of such tensors takes besides gr_attention_memory, for any documents; 0: our
 * attention computes it. */
int64_t gr_cuda_cudnn_bytes(struct gr_device *dev, const struct gr_attention *a, bool is_backward);
/* Queues it.  False: nothing was done, our attention computes it.  room: what is left of the
 * workspace. */
bool gr_cuda_cudnn_attention(struct gr_device *dev, const struct gr_attention *a, bool is_backward,
                             const int *first_key, struct gr_arena *room);

#endif
