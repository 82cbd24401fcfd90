/* What a backend is: the struct behind gr_device and the table of its ops.  Included by device.c,
 * ops.c and the backends only.  Arguments have been checked by ops.c when a table entry is called.
 */
#ifndef GR_BACKEND_H
#define GR_BACKEND_H

#include "kernels/ops.h"

/* return type, name, parameters after the device: the table and its completeness test. */
struct gr_ops {
    const char *isa;
    void (*embedding_forward)(struct gr_device *, gr_tensor y, gr_tensor table, gr_tensor ids);
    void (*rmsnorm_forward)(struct gr_device *, gr_tensor y, gr_tensor rstd, gr_tensor x,
                            gr_tensor w, double eps);
    void (*rmsnorm_backward)(struct gr_device *, gr_tensor dx, enum gr_write write, gr_tensor dy,
                             gr_tensor x, gr_tensor w, gr_tensor rstd);
    void (*rope)(struct gr_device *, gr_tensor x, gr_tensor cos, gr_tensor sin, gr_tensor positions,
                 int direction);
    void (*attention_forward)(struct gr_device *, const struct gr_attention *a);
    void (*attention_backward)(struct gr_device *, const struct gr_attention *a);
    int64_t (*attention_workspace_bytes)(struct gr_device *, int64_t n, int64_t heads,
                                         int64_t head_dim);
    void (*swiglu_forward)(struct gr_device *, gr_tensor h, gr_tensor gate, gr_tensor up);
    void (*swiglu_backward)(struct gr_device *, gr_tensor dgate, gr_tensor dup, gr_tensor dh,
                            gr_tensor gate, gr_tensor up);
    void (*lora_group_forward)(struct gr_device *, const struct gr_lora_group *g);
    void (*lora_group_backward)(struct gr_device *, const struct gr_lora_group *g);
    int64_t (*lora_group_workspace_bytes)(struct gr_device *, int64_t n, int64_t in, int64_t out,
                                          int64_t r);
    void (*head_loss)(struct gr_device *, const struct gr_head_loss *a);
    int64_t (*head_loss_workspace_bytes)(struct gr_device *, int64_t hidden, int64_t vocab);
    void (*head_logits)(struct gr_device *, gr_tensor logits, gr_tensor h, gr_tensor weight,
                        gr_tensor rows);
    void (*sum_spans)(struct gr_device *, gr_tensor sum, gr_tensor x, gr_tensor spans);
    void (*sum_squares)(struct gr_device *, gr_tensor out, gr_tensor x);
    void (*scale)(struct gr_device *, gr_tensor x, float factor);
    void (*add)(struct gr_device *, gr_tensor y, gr_tensor a, gr_tensor b);
    void (*zero)(struct gr_device *, gr_tensor x);
    void (*copy)(struct gr_device *, gr_tensor y, gr_tensor x);
    void (*adamw)(struct gr_device *, const struct gr_adamw *a);
    /* memory and the stream */
    gr_status (*memory_create)(struct gr_device *, void **memory, int64_t bytes);
    void (*memory_destroy)(struct gr_device *, void *memory, int64_t bytes);
    void (*upload)(struct gr_device *, gr_tensor destination, const void *source);
    void (*download)(struct gr_device *, void *destination, gr_tensor source);
    gr_status (*sync)(struct gr_device *);
};

struct gr_device {
    const struct gr_ops *ops;
    const char *name;
    int threads;
    void *workspace;
    int64_t workspace_bytes;
    struct gr_error failure; /* the sticky one; status OK while there is none */
};

/* Makes a failure stick (the first wins). */
void gr_device_fail(struct gr_device *dev, gr_status status, const char *op, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));

#endif
