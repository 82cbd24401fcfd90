/* What a backend is: the struct behind gr_device and the table of its ops.  Included by device.c,
 * ops.c and the backends only.  Arguments have been checked by ops.c when a table entry is called.
 */
#ifndef GR_BACKEND_H
#define GR_BACKEND_H

#include "kernels/ops.h"

/* Every entry of the table: return type, name, parameters.  The table, the declarations and the
 * tables of the backends, and the test that none is missing come from this list. */
#define GR_BACKEND_LIST(X)                                                                         \
    X(void, embedding_forward,                                                                     \
      (struct gr_device * dev, gr_tensor y, gr_tensor table, gr_tensor ids))                       \
    X(void, rmsnorm_forward,                                                                       \
      (struct gr_device * dev, gr_tensor y, gr_tensor rstd, gr_tensor x, gr_tensor w, double eps)) \
    X(void, rmsnorm_backward,                                                                      \
      (struct gr_device * dev, gr_tensor dx, enum gr_write write, gr_tensor dy, gr_tensor x,       \
       gr_tensor w, gr_tensor rstd))                                                               \
    X(void, rope,                                                                                  \
      (struct gr_device * dev, gr_tensor x, gr_tensor cos, gr_tensor sin, gr_tensor positions,     \
       int direction))                                                                             \
    X(void, attention_forward, (struct gr_device * dev, const struct gr_attention *a))             \
    X(void, attention_backward, (struct gr_device * dev, const struct gr_attention *a))            \
    X(int64_t, attention_workspace_bytes,                                                          \
      (struct gr_device * dev, int64_t n, int64_t heads, int64_t head_dim))                        \
    X(void, attention_last,                                                                        \
      (struct gr_device * dev, gr_tensor o, gr_tensor q, gr_tensor k, gr_tensor v, float scale))   \
    X(void, swiglu_forward, (struct gr_device * dev, gr_tensor h, gr_tensor gate, gr_tensor up))   \
    X(void, swiglu_backward,                                                                       \
      (struct gr_device * dev, gr_tensor dgate, gr_tensor dup, gr_tensor dh, gr_tensor gate,       \
       gr_tensor up))                                                                              \
    X(void, lora_group_forward, (struct gr_device * dev, const struct gr_lora_group *g))           \
    X(void, lora_group_backward, (struct gr_device * dev, const struct gr_lora_group *g))          \
    X(int64_t, lora_group_workspace_bytes,                                                         \
      (struct gr_device * dev, int64_t n, int64_t in, int64_t out, int64_t r))                     \
    X(void, head_loss, (struct gr_device * dev, const struct gr_head_loss *a))                     \
    X(int64_t, head_loss_workspace_bytes, (struct gr_device * dev, int64_t hidden, int64_t vocab)) \
    X(void, head_logits,                                                                           \
      (struct gr_device * dev, gr_tensor logits, gr_tensor h, gr_tensor weight, gr_tensor rows))   \
    X(void, sum_spans, (struct gr_device * dev, gr_tensor sum, gr_tensor x, gr_tensor spans))      \
    X(void, sum_squares, (struct gr_device * dev, gr_tensor out, gr_tensor x))                     \
    X(void, scale, (struct gr_device * dev, gr_tensor x, float factor))                            \
    X(void, add, (struct gr_device * dev, gr_tensor y, gr_tensor a, gr_tensor b))                  \
    X(void, zero, (struct gr_device * dev, gr_tensor x))                                           \
    X(void, copy, (struct gr_device * dev, gr_tensor y, gr_tensor x))                              \
    X(void, adamw, (struct gr_device * dev, const struct gr_adamw *a))                             \
    /* memory and the stream; memory_create zeroes, and leaves the message to its caller */        \
    X(gr_status, memory_create, (struct gr_device * dev, void **memory, int64_t bytes))            \
    X(void, memory_destroy, (struct gr_device * dev, void *memory, int64_t bytes))                 \
    X(void, upload, (struct gr_device * dev, gr_tensor destination, const void *source))           \
    X(void, download, (struct gr_device * dev, void *destination, gr_tensor source))               \
    X(gr_status, sync, (struct gr_device * dev))

struct gr_ops {
    const char *isa;
#define X(type, name, parameters) type(*name) parameters;
    GR_BACKEND_LIST(X)
#undef X
};

struct gr_device {
    const struct gr_ops *ops;
    const char *name;
    int threads;
    void *workspace;
    int64_t workspace_bytes;
    struct gr_error failure; /* the sticky one; status OK while there is none */
};

/* Columns of s that linear `linear` has: the largest R of its adapters. */
int64_t gr_lora_group_r(const struct gr_lora_group *g, int linear);

/* Makes a failure stick (the first wins). */
void gr_device_fail(struct gr_device *dev, gr_status status, const char *op, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));

#endif
