/* How the ops of ops.h check their arguments, for ops.c and ops_flat.c.
 *
 * The first check that fails makes the device fail (ERR_BUG with op, tensor and shapes) and the op
 * does nothing, as does every op on a device that has failed.  What stands in index tensors (ids,
 * positions, rows) may be on a GPU: the backends look at that. */
#ifndef GR_OPS_CHECK_H
#define GR_OPS_CHECK_H

#include "kernels/backend.h"

#include <math.h>

/* One op's checks.  `ok` goes from true to false at most once. */
struct check {
    struct gr_device *dev;
    const char *op;
    bool ok;
};

static inline struct check check_begin(struct gr_device *dev, const char *op)
{
    return (struct check){dev, op, dev->failure.status == GR_OK};
}

/* Fails the op with a text unless the condition holds or something failed before. */
#define REQUIRE(c, condition, ...)                                                                 \
    do {                                                                                           \
        if ((c)->ok && !(condition)) {                                                             \
            gr_device_fail((c)->dev, GR_ERR_BUG, (c)->op, __VA_ARGS__);                            \
            (c)->ok = false;                                                                       \
        }                                                                                          \
    } while (0)

/* Calls the backend's op, timed where the device is profiled.  bytes: of an op that passes over
 * memory, else 0. */
#define RUN(op, bytes, dev, ...)                                                                   \
    do {                                                                                           \
        int64_t begin = gr_profile_begin(dev);                                                     \
                                                                                                   \
        (dev)->ops->op(dev, __VA_ARGS__);                                                          \
        gr_profile_end(dev, GR_PROFILE_##op, begin, bytes);                                        \
    } while (0)

static inline double bytes_of(gr_tensor t)
{
    return (double)gr_tensor_count(t) * (double)gr_dtype_bytes(t.dtype);
}

static inline gr_tensor shape_1d(enum gr_dtype dtype, int64_t n)
{
    return (gr_tensor){.dtype = dtype, .ndim = 1, .dim = {n, 1, 1, 1}, .stride = 1};
}

static inline gr_tensor shape_2d(enum gr_dtype dtype, int64_t n, int64_t c)
{
    return (gr_tensor){.dtype = dtype, .ndim = 2, .dim = {n, c, 1, 1}, .stride = c};
}

static inline gr_tensor shape_3d(enum gr_dtype dtype, int64_t n, int64_t h, int64_t d)
{
    return (gr_tensor){.dtype = dtype, .ndim = 3, .dim = {n, h, d, 1}, .stride = h * d};
}

/* The tensor is in memory and laid out as tensor.h says. */
static inline void check_layout(struct check *c, const char *name, gr_tensor t)
{
    char found[96];
    bool sane = t.ndim >= 1 && t.ndim <= GR_MAX_DIMS;

    for (int i = 0; i < GR_MAX_DIMS; i++)
        sane = sane && (i < t.ndim ? t.dim[i] >= 0 : t.dim[i] == 1);
    REQUIRE(c, sane, "%s is no tensor (found %d dimensions)", name, t.ndim);
    gr_tensor_describe(t, found, sizeof found);
    REQUIRE(c, t.data != NULL || gr_tensor_count(t) == 0, "%s has no memory (found %s)", name,
            found);
    REQUIRE(c, t.dim[0] <= 1 || (t.ndim == 1 ? t.stride == 1 : t.stride >= gr_tensor_row_size(t)),
            "%s has a wrong stride (found %s with stride %lld, expected at least a row)", name,
            found, (long long)t.stride);
}

/* The tensor has the dtype and dimensions of `expected`. */
static inline void check_is(struct check *c, const char *name, gr_tensor t, gr_tensor expected)
{
    char found[96], wanted[96];
    bool same = t.dtype == expected.dtype && t.ndim == expected.ndim;

    for (int i = 0; same && i < expected.ndim; i++)
        same = t.dim[i] == expected.dim[i];
    REQUIRE(c, same, "%s does not fit (found %s, expected %s)", name,
            gr_tensor_describe(t, found, sizeof found),
            gr_tensor_describe(expected, wanted, sizeof wanted));
    check_layout(c, name, t);
}

static inline bool computes(enum gr_dtype dtype)
{
    return dtype == GR_F32 || dtype == GR_BF16;
}

/* A frozen matrix (rows, columns): of the activations' dtype, or bf16 as the file has it where the
 * device widens that. */
static inline void check_frozen(struct check *c, const char *name, gr_tensor t, enum gr_dtype dtype,
                                int64_t rows, int64_t columns)
{
    bool is_widened = t.dtype == GR_BF16 && c->dev->widens_bf16;

    check_is(c, name, t, shape_2d(is_widened ? GR_BF16 : dtype, rows, columns));
}

/* Activations: a compute dtype, `ndim` dimensions, a padded number of rows or one alone.  The
 * tensor the shapes of the op's others are measured by. */
static inline void check_rows(struct check *c, const char *name, gr_tensor t, int ndim)
{
    char found[96];

    gr_tensor_describe(t, found, sizeof found);
    REQUIRE(c, t.ndim == ndim && computes(t.dtype),
            "%s does not fit (found %s, expected F32 or BF16, %dD)", name, found, ndim);
    check_layout(c, name, t);
    REQUIRE(c, t.dim[0] % GR_ROW_MULTIPLE == 0 || t.dim[0] == 1,
            "%s needs a padded number of rows (found %s, expected a multiple of %d)", name, found,
            GR_ROW_MULTIPLE);
}

/* Any shape of this dtype and number of dimensions. */
static inline void check_kind(struct check *c, const char *name, gr_tensor t, enum gr_dtype dtype,
                              int ndim)
{
    char found[96];

    REQUIRE(c, t.ndim == ndim && t.dtype == dtype, "%s does not fit (found %s, expected %s %dD)",
            name, gr_tensor_describe(t, found, sizeof found), gr_dtype_name(dtype), ndim);
    check_layout(c, name, t);
}

static inline void check_workspace(struct check *c, int64_t bytes)
{
    REQUIRE(c, c->dev->workspace_bytes >= bytes,
            "the workspace is too small (found %lld bytes, expected %lld)",
            (long long)c->dev->workspace_bytes, (long long)bytes);
}

static inline void check_scale(struct check *c, float scale)
{
    REQUIRE(c, isfinite(scale), "scale is out of range (found %g)", (double)scale);
}

#endif
