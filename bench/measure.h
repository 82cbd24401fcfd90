/* An op timed beside its ceiling: a plain matrix product, or a copy of as many bytes.  Both take
 * turns, so that they meet the same machine.  bench_ops.c says what is measured.
 *
 * On the CPU the best time counts, and the processor time of all threads beside it.  On a GPU calls
 * are queued one behind the other until they take milliseconds, and the median of such batches
 * counts: what the device keeps up, and no time between a call and its start. */
#ifndef GR_BENCH_MEASURE_H
#define GR_BENCH_MEASURE_H

#include "kernels/ops.h"

/* What the operands are like; short_document: of packs with many documents; long_document: of an
 * attention alone; state: elements of an adapter; edge: of the square product that is a GPU's
 * ceiling. */
#define GR_BENCH_SHAPE(X)                                                                          \
    X(rows)                                                                                        \
    X(hidden)                                                                                      \
    X(ffn)                                                                                         \
    X(heads)                                                                                       \
    X(kv_heads)                                                                                    \
    X(head_dim)                                                                                    \
    X(vocab)                                                                                       \
    X(r)                                                                                           \
    X(short_document)                                                                              \
    X(long_document)                                                                               \
    X(state)                                                                                       \
    X(edge)

struct gr_bench_shape {
#define X(name) int64_t name;
    GR_BENCH_SHAPE(X)
#undef X
};

typedef void gr_bench_body(struct gr_device *dev, const void *arguments);

struct gr_bench_product; /* measure.c */

struct gr_bench {
    struct gr_device *dev;
    enum gr_dtype dtype;
    struct gr_bench_shape shape;
    const char *only; /* words of the name; "": all cases */
    double seconds;   /* of each case */
    /* Operands.  The cases are gone through twice: while it measures nothing runs. */
    struct gr_arena arena;
    struct gr_bench_product *product; /* [2]: by a weight as it lies, and transposed */
    gr_tensor copy_to, copy_from;     /* flat, f32 */
    double copied_most;               /* the most bytes an op passes over */
    int64_t most;                     /* bytes that any case takes, without what all share */
    int64_t workspace_most;           /* bytes */
};

/* What an op does: the operations of its products, or (for the others) the bytes it must read and
 * write. */
enum gr_bench_kind { GR_BENCH_OPERATIONS, GR_BENCH_BYTES };

/* The device's workspace will have so many bytes, or more. */
void gr_bench_need_workspace(struct gr_bench *b, int64_t bytes);
/* What was taken after `mark` is given back. */
void gr_bench_end_case(struct gr_bench *b, int64_t mark);
/* Operands of both ceilings; the copies' are as large as what was measured so far. */
void gr_bench_make_ceilings(struct gr_bench *b);
/* Prints one JSON object; exits when the device has failed.  Nothing while the arena measures, but
 * for copied_most, nor for a name without `only`. */
void gr_bench_measure(struct gr_bench *b, const char *name, enum gr_bench_kind kind, double amount,
                      gr_bench_body *body, const void *arguments);

#endif
