/* Tensors by value: a pointer, an element type and up to four dimensions.
 *
 * Rows are contiguous; only the distance between indices of the leading dimension may be larger
 * than a row (so a column block of a wider buffer is a tensor too).  A tensor owns nothing.
 * data == NULL means "none" where an op says a tensor is optional, and "not carved yet" while an
 * arena measures. */
#ifndef GR_TENSOR_H
#define GR_TENSOR_H

#include "kernels/base/arena.h"
#include "kernels/base/dtype.h"

enum { GR_MAX_DIMS = 4 };

typedef struct gr_tensor {
    void *data; /* device memory: host code reads it only through gr_device_download */
    enum gr_dtype dtype;
    int ndim;                 /* 0: none */
    int64_t dim[GR_MAX_DIMS]; /* unused ones are 1 */
    int64_t stride;           /* elements between two indices of dim[0]; >= product of dim[1..] */
} gr_tensor;

gr_tensor gr_tensor_1d(void *data, enum gr_dtype dtype, int64_t n);
gr_tensor gr_tensor_2d(void *data, enum gr_dtype dtype, int64_t rows, int64_t columns);
gr_tensor gr_tensor_3d(void *data, enum gr_dtype dtype, int64_t n, int64_t heads, int64_t head_dim);

/* Carves a contiguous tensor out of an arena (data NULL while it measures). */
gr_tensor gr_arena_tensor_1d(struct gr_arena *arena, enum gr_dtype dtype, int64_t n);
gr_tensor gr_arena_tensor_2d(struct gr_arena *arena, enum gr_dtype dtype, int64_t rows,
                             int64_t columns);

/* Views.  Out of range is a bug. */
gr_tensor gr_tensor_rows(gr_tensor t, int64_t begin, int64_t end);    /* any ndim */
gr_tensor gr_tensor_columns(gr_tensor t, int64_t begin, int64_t end); /* 2-D */
gr_tensor gr_tensor_heads(gr_tensor t, int64_t heads);                /* (N, H*HD) -> (N, H, HD) */

int64_t gr_tensor_row_size(gr_tensor t); /* elements of one row: product of dim[1..] */
int64_t gr_tensor_count(gr_tensor t);    /* elements: product of dim */
bool gr_tensor_is_none(gr_tensor t);
bool gr_tensor_is_contiguous(gr_tensor t);
/* "(640, 576)" into text; returns text.  Any number of dimensions. */
const char *gr_shape_describe(const int64_t *dim, int ndim, char *text, size_t size);
/* "f32 (640, 576)" into text; returns text. */
const char *gr_tensor_describe(gr_tensor t, char *text, size_t size);

#endif
