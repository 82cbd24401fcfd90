/* Where the time of a device goes: per op, per phase of a step, and per thread in matrix products.
 * Off until asked for; the trainer makes a table of it (trainer/run/profile.h).
 *
 * Times are those of the device: on a GPU between events of its stream, which wait for nothing and
 * are read when the host has waited anyway. */
#ifndef GR_PROFILE_H
#define GR_PROFILE_H

#include "kernels/ops.h"

/* The ops that are timed. */
#define GR_PROFILED_OPS(X)                                                                         \
    X(embedding_forward)                                                                           \
    X(rmsnorm_forward)                                                                             \
    X(rmsnorm_backward)                                                                            \
    X(rope)                                                                                        \
    X(attention_forward)                                                                           \
    X(attention_last)                                                                              \
    X(attention_backward)                                                                          \
    X(swiglu_forward)                                                                              \
    X(swiglu_backward)                                                                             \
    X(lora_group_forward)                                                                          \
    X(lora_group_backward)                                                                         \
    X(head_loss)                                                                                   \
    X(head_logits)                                                                                 \
    X(sum_spans)                                                                                   \
    X(sum_squares)                                                                                 \
    X(add)                                                                                         \
    X(zero)                                                                                        \
    X(copy)                                                                                        \
    X(copy_pairs)                                                                                  \
    X(adamw)

#define X(name) GR_PROFILE_##name,
enum gr_profiled_op { GR_PROFILED_OPS(X) GR_PROFILED_OP_COUNT };
#undef X

enum { GR_PROFILED_PHASES = 8 };

/* Written by one thread only: cache lines of their own. */
struct gr_thread_profile {
    int64_t product_ns; /* in matrix products, with the packing of right operands */
    char gap[128 - sizeof(int64_t)];
};

struct gr_profile_span; /* profile.c: measured, but not read yet */

struct gr_profile {
    int64_t op_ns[GR_PROFILED_OP_COUNT];
    /* Of the ops that pass over memory: each operand once, each time it is read or written. */
    double op_bytes[GR_PROFILED_OP_COUNT];
    int64_t phase_ns[GR_PROFILED_PHASES];
    int threads;
    struct gr_thread_profile *thread; /* [threads]; 0 where products are not the CPU's */
    int64_t phase_began;
    struct gr_profile_span *span;
    int64_t spans, room;
};

/* From now on the device's ops are timed; the device owns it.  What is queued has its time after
 * the next gr_device_sync. */
struct gr_profile *gr_device_profile_start(struct gr_device *dev);
/* What the device did since the last call, start or clear was that phase. */
void gr_device_profile_phase(struct gr_device *dev, int phase);
/* Waits; then all counters are 0 again. */
void gr_device_profile_clear(struct gr_device *dev);

#endif
