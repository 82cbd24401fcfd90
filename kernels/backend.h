/* What a backend is: the struct behind gr_device and the table of its ops.  Included by device.c,
 * ops.c and the backends only.  Arguments have been checked by ops.c when a table entry is called.
 */
#ifndef GR_BACKEND_H
#define GR_BACKEND_H

#include "kernels/base/buffer.h"
#include "kernels/ops.h"
#include "kernels/peers.h"
#include "kernels/profile.h"

/* Every entry of the table: return type, name, parameters.  The table, the declarations and the
 * tables of the backends, and the test that none is missing come from this list. */
#define GR_BACKEND_LIST(X)                                                                         \
    X(void, embedding_forward,                                                                     \
      (struct gr_device * dev, gr_tensor y, gr_tensor table, gr_tensor ids))                       \
    X(void, rmsnorm_forward,                                                                       \
      (struct gr_device * dev, gr_tensor y, gr_tensor rstd, gr_tensor x, gr_tensor w, double eps)) \
    X(void, rmsnorm_backward,                                                                      \
      (struct gr_device * dev, gr_tensor dx, enum gr_write write, gr_tensor y, gr_tensor dy,       \
       gr_tensor x, gr_tensor w, gr_tensor rstd))                                                  \
    X(void, rope,                                                                                  \
      (struct gr_device * dev, gr_tensor x, gr_tensor cos, gr_tensor sin, gr_tensor positions,     \
       int direction))                                                                             \
    X(void, attention_forward, (struct gr_device * dev, const struct gr_attention *a))             \
    X(void, attention_backward, (struct gr_device * dev, const struct gr_attention *a))            \
    X(int64_t, attention_workspace_bytes, (struct gr_device * dev, const struct gr_attention *a))  \
    X(void, attention_last,                                                                        \
      (struct gr_device * dev, gr_tensor o, gr_tensor q, gr_tensor k, gr_tensor v, float scale))   \
    X(void, swiglu_forward, (struct gr_device * dev, gr_tensor h, gr_tensor gate, gr_tensor up))   \
    X(void, swiglu_backward,                                                                       \
      (struct gr_device * dev, gr_tensor dgate, gr_tensor dup, gr_tensor h, gr_tensor dh,          \
       gr_tensor gate, gr_tensor up))                                                              \
    X(void, lora_group_forward, (struct gr_device * dev, const struct gr_lora_group *g))           \
    X(void, lora_group_backward, (struct gr_device * dev, const struct gr_lora_group *g))          \
    X(int64_t, lora_group_workspace_bytes,                                                         \
      (struct gr_device * dev, int64_t n, int64_t in, int64_t out, int64_t r))                     \
    X(void, head_loss, (struct gr_device * dev, const struct gr_head_loss *a))                     \
    X(int64_t, head_loss_workspace_bytes, (struct gr_device * dev, int64_t hidden, int64_t vocab)) \
    X(void, head_logits,                                                                           \
      (struct gr_device * dev, gr_tensor logits, gr_tensor h, gr_tensor weight, gr_tensor rows))   \
    X(void, sum_spans, (struct gr_device * dev, gr_tensor sum, gr_tensor x, gr_tensor spans))      \
    X(void, sum_squares, (struct gr_device * dev, gr_tensor out, gr_tensor x, float scale))        \
    X(void, add, (struct gr_device * dev, gr_tensor y, gr_tensor a, gr_tensor b))                  \
    X(void, zero, (struct gr_device * dev, gr_tensor x))                                           \
    X(void, copy, (struct gr_device * dev, gr_tensor y, gr_tensor x))                              \
    X(void, copy_pairs, (struct gr_device * dev, const struct gr_copy_pair *pair, int64_t pairs))  \
    X(void, adamw, (struct gr_device * dev, const struct gr_adamw *a))                             \
    /* memory and the stream; memory_create zeroes, and leaves the message to its caller */        \
    X(gr_status, memory_create, (struct gr_device * dev, void **memory, int64_t bytes))            \
    X(int64_t, memory_available, (struct gr_device * dev)) /* -1: the host's is used */            \
    X(void, memory_destroy, (struct gr_device * dev, void *memory, int64_t bytes))                 \
    X(void, upload, (struct gr_device * dev, gr_tensor destination, const void *source))           \
    X(void, download, (struct gr_device * dev, void *destination, gr_tensor source))               \
    X(gr_status, sync, (struct gr_device * dev))                                                   \
    /* device.h; a stash's create leaves the message to its caller */                              \
    X(gr_status, stash_create, (struct gr_device * dev, void **memory, int64_t bytes))             \
    X(void, stash_destroy, (struct gr_device * dev, void *memory, int64_t bytes))                  \
    X(void, stash_out, (struct gr_device * dev, gr_tensor stashed, gr_tensor t, int lane))         \
    X(void, stash_in, (struct gr_device * dev, gr_tensor t, gr_tensor stashed, int lane))          \
    X(void, stash_wait, (struct gr_device * dev, int lane))                                        \
    /* the profile's: a moment of the stream; ns between two, once sync has waited for both */     \
    X(int64_t, moment, (struct gr_device * dev))                                                   \
    X(int64_t, moments_apart, (struct gr_device * dev, int64_t begin, int64_t end))                \
    /* all other moments are forgotten; returns the new name of this one */                        \
    X(int64_t, moment_keep, (struct gr_device * dev, int64_t kept))                                \
    X(void, range_begin, (struct gr_device * dev, const char *name)) /* device.h */                \
    X(void, range_end, (struct gr_device * dev))                                                   \
    /* device.h; attention_is_cudnn: `why` says why not */                                         \
    X(gr_status, choose_attention, (struct gr_device * dev, enum gr_attention_kind kind))          \
    X(gr_status, record_attention,                                                                 \
      (struct gr_device * dev, enum gr_attention_kind kind, const char *figures))                  \
    X(bool, attention_is_cudnn,                                                                    \
      (struct gr_device * dev, const struct gr_attention *a, char *why, int64_t why_size))         \
    X(void, describe, (struct gr_device * dev, char *text, int64_t size))                          \
    X(void, get_choices, (struct gr_device * dev, struct gr_buffer * text)) /* device.h */         \
    X(gr_status, set_choices, (struct gr_device * dev, const char *text))                          \
    X(void, close, (struct gr_device * dev)) /* what the backend holds besides memory */

struct gr_ops {
#define X(type, name, parameters) type(*name) parameters;
    GR_BACKEND_LIST(X)
#undef X
};

/* The functions of peers.h, after their checks; wait also gives up. */
struct gr_peers_ops {
    gr_status (*open)(struct gr_device *dev);
    gr_status (*name)(struct gr_device *dev, struct gr_peers_id *id);
    gr_status (*join)(struct gr_device *dev, const struct gr_peers_id *id, int size, int rank,
                      double timeout_seconds);
    void (*exchange)(struct gr_device *dev, int peer, gr_tensor received, gr_tensor sent);
    void (*broadcast)(struct gr_device *dev, int root, gr_tensor data);
    void (*sum)(struct gr_device *dev, gr_tensor data);
    gr_status (*wait)(struct gr_device *dev, int *lost, double timeout_seconds);
    gr_status (*leave)(struct gr_device *dev);
};

struct gr_device {
    const struct gr_ops *ops;
    const char *name;      /* "cpu", "cuda" */
    bool prefers_bf16;     /* products of bf16 are its fast ones */
    bool widens_bf16;      /* frozen matrices may be bf16 beside f32 activations */
    const char *isa;       /* "v4", "sm_90 NVIDIA H100": part of the device kind */
    const char *isa_text;  /* in words; the CPU's only */
    const char *software;  /* "CUDA driver 13.0, ...": likewise; NULL: nothing but the program */
    char *plugin;          /* path of the file that the backend is from; NULL: the program itself */
    int64_t head_dim_most; /* of attention; 0: any */
    struct gr_device_peak peak;
    struct gr_device_id id;
    int count;                        /* of GPUs to choose from */
    int processes;                    /* gr_device_set_share */
    int64_t share_bytes;              /* likewise */
    void *backend;                    /* the backend's own */
    char *cache_folder;               /* gr_device_set_cache; NULL: nothing is kept between runs */
    bool is_settled;                  /* gr_device_settle_choices */
    const struct gr_peers_ops *peers; /* NULL: the host carries what goes between processes */
    bool peers_are_joined;
    int threads;
    void *workspace;
    int64_t workspace_bytes;
    struct gr_profile *profile; /* NULL: nothing is timed */
    struct gr_error failure;    /* the sticky one; status OK while there is none */
};

/* What the CUDA plug-in exports: gives dev its table, name, isa and backend.  local_rank: number of
 * this process on its host.  Errors: ERR_DEVICE without a GPU that does. */
typedef gr_status gr_cuda_open_function(struct gr_device *dev, int local_rank);

/* Columns of s that linear `linear` has: the largest R of its adapters. */
int64_t gr_lora_group_r(const struct gr_lora_group *g, int linear);

/* Around an op; bytes: what it passes over.  Nothing where the device is not profiled. */
int64_t gr_profile_begin(struct gr_device *dev);
void gr_profile_end(struct gr_device *dev, enum gr_profiled_op op, int64_t begin, double bytes);
/* After a wait. */
void gr_profile_collect(struct gr_device *dev);
void gr_profile_destroy(struct gr_profile *profile); /* NULL is fine */

/* Makes a failure stick (the first wins). */
void gr_device_fail(struct gr_device *dev, gr_status status, const char *op, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));

#endif
