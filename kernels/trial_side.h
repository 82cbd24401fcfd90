/* Between trial_ops.c and the cases of ops, trial_cases.c and trial_groups.c: a case is written
 * once, and computed by both sides, the CPU first.  It takes its tensors from the side and says
 * which are results; nothing else. */
#ifndef GR_TRIAL_SIDE_H
#define GR_TRIAL_SIDE_H

#include "kernels/trial_ops.h"

/* Shapes of one trial of all ops. */
struct gr_trial_sizes {
    int64_t rows, hidden, heads, kv_heads, ffn, vocab, r;
    int64_t flat; /* elements of state */
};

enum { GR_TRIAL_RESULTS = 32 };

struct gr_trial_side {
    struct gr_device *dev;
    const struct gr_trial_side *cpu; /* NULL: this is the CPU's side */
    const struct gr_trial_sizes *sizes;
    enum gr_dtype dtype; /* of activations and weights */
    double rounding;     /* gr_device_factor_rounding of both devices together */
    const char *of;      /* in the names of results from here on; NULL: nothing */
    struct gr_arena arena, workspace;
    uint32_t fills;
    int results;
    struct {
        const char *name, *of;
        gr_tensor tensor;
        double apart;  /* most, relative to the largest element */
        bool is_exact; /* else one rounding of each device to the stored type besides */
    } result[GR_TRIAL_RESULTS];
};

/* The case of each op, gr_try_rope. */
#define X(name) void gr_try_##name(struct gr_trial_side *s);
GR_PROFILED_OPS(X)
#undef X

/* Shapes, without memory: of activations and weights, and of anything. */
static inline gr_tensor gr_trial_matrix(const struct gr_trial_side *s, int64_t rows,
                                        int64_t columns)
{
    return gr_tensor_2d(NULL, s->dtype, rows, columns);
}

static inline gr_tensor gr_trial_flat(enum gr_dtype dtype, int64_t n)
{
    return gr_tensor_1d(NULL, dtype, n);
}

/* shape: made with data NULL; contiguous.  Random numbers, or NaN for what an op writes. */
gr_tensor gr_trial_given_between(struct gr_trial_side *s, gr_tensor shape, double low, double high);
gr_tensor gr_trial_room(struct gr_trial_side *s, gr_tensor shape);
gr_tensor gr_trial_given(struct gr_trial_side *s, gr_tensor shape); /* -1 to 1 */
/* Activations, (rows, columns) in rows that are wider. */
enum { GR_TRIAL_BEHIND = 8 /* columns */ };
gr_tensor gr_trial_given_rows(struct gr_trial_side *s, int64_t columns);
gr_tensor gr_trial_room_for_rows(struct gr_trial_side *s, int64_t columns);
void gr_trial_need_workspace(struct gr_trial_side *s, int64_t bytes);
/* t is what an op before the one under trial left: the CPU computes that op, the other side takes
 * over what it found, so that a backward is not blamed for its forward. */
bool gr_trial_prepares(const struct gr_trial_side *s);
void gr_trial_take_over(struct gr_trial_side *s, gr_tensor t);

/* A result of the op under trial, to be compared when it has run: the same values; or both within
 * `tolerance` of the exact result, relative to its largest element, and rounded once when stored;
 * a product of rounded factors besides. */
void gr_trial_same(struct gr_trial_side *s, const char *name, gr_tensor t);
void gr_trial_near(struct gr_trial_side *s, const char *name, gr_tensor t, double tolerance);
void gr_trial_product(struct gr_trial_side *s, const char *name, gr_tensor t, double tolerance);

#endif
