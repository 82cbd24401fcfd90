/* Making tensors and looking at parts of them.  See tensor.h. */
#include "kernels/tensor.h"

#include "kernels/base/alloc.h"
#include "kernels/base/status.h"

#include <stdio.h>

static gr_tensor make(void *data, enum gr_dtype dtype, int ndim, int64_t d0, int64_t d1, int64_t d2)
{
    gr_tensor t = {.data = data, .dtype = dtype, .ndim = ndim, .dim = {d0, d1, d2, 1}};

    t.stride = gr_mul(d1, d2);
    gr_mul(gr_mul(d0, t.stride), gr_dtype_bytes(dtype));
    return t;
}

gr_tensor gr_tensor_1d(void *data, enum gr_dtype dtype, int64_t n)
{
    return make(data, dtype, 1, n, 1, 1);
}

gr_tensor gr_tensor_2d(void *data, enum gr_dtype dtype, int64_t rows, int64_t columns)
{
    return make(data, dtype, 2, rows, columns, 1);
}

gr_tensor gr_tensor_3d(void *data, enum gr_dtype dtype, int64_t n, int64_t heads, int64_t head_dim)
{
    return make(data, dtype, 3, n, heads, head_dim);
}

gr_tensor gr_arena_tensor_1d(struct gr_arena *arena, enum gr_dtype dtype, int64_t n)
{
    gr_tensor t = gr_tensor_1d(NULL, dtype, n);

    t.data = gr_arena_take(arena, n * gr_dtype_bytes(dtype));
    return t;
}

gr_tensor gr_arena_tensor_2d(struct gr_arena *arena, enum gr_dtype dtype, int64_t rows,
                             int64_t columns)
{
    gr_tensor t = gr_tensor_2d(NULL, dtype, rows, columns);

    t.data = gr_arena_take(arena, gr_tensor_count(t) * gr_dtype_bytes(dtype));
    return t;
}

static void *element(gr_tensor t, int64_t index)
{
    return t.data == NULL ? NULL : (unsigned char *)t.data + index * gr_dtype_bytes(t.dtype);
}

gr_tensor gr_tensor_rows(gr_tensor t, int64_t begin, int64_t end)
{
    GR_CHECK(t.ndim >= 1 && begin >= 0 && begin <= end && end <= t.dim[0],
             "rows %lld..%lld of %lld", (long long)begin, (long long)end, (long long)t.dim[0]);
    t.data = element(t, begin * t.stride);
    t.dim[0] = end - begin;
    return t;
}

gr_tensor gr_tensor_columns(gr_tensor t, int64_t begin, int64_t end)
{
    GR_CHECK(t.ndim == 2 && begin >= 0 && begin <= end && end <= t.dim[1],
             "columns %lld..%lld of %lld", (long long)begin, (long long)end, (long long)t.dim[1]);
    t.data = element(t, begin);
    t.dim[1] = end - begin;
    return t;
}

gr_tensor gr_tensor_heads(gr_tensor t, int64_t heads)
{
    GR_CHECK(t.ndim == 2 && heads > 0 && t.dim[1] % heads == 0, "%lld columns in %lld heads",
             (long long)t.dim[1], (long long)heads);
    t.ndim = 3;
    t.dim[2] = t.dim[1] / heads;
    t.dim[1] = heads;
    return t;
}

int64_t gr_tensor_row_size(gr_tensor t)
{
    return t.dim[1] * t.dim[2] * t.dim[3];
}

int64_t gr_tensor_count(gr_tensor t)
{
    return t.ndim == 0 ? 0 : t.dim[0] * gr_tensor_row_size(t);
}

bool gr_tensor_is_none(gr_tensor t)
{
    return t.data == NULL;
}

bool gr_tensor_is_contiguous(gr_tensor t)
{
    return t.dim[0] <= 1 || t.stride == gr_tensor_row_size(t);
}

const char *gr_shape_describe(const int64_t *dim, int ndim, char *text, size_t size)
{
    int used = snprintf(text, size, "(");

    for (int i = 0; i < ndim && used >= 0 && (size_t)used < size; i++)
        used += snprintf(text + used, size - (size_t)used, "%s%lld", i == 0 ? "" : ", ",
                         (long long)dim[i]);
    if (used >= 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, ")");
    return text;
}

const char *gr_tensor_describe(gr_tensor t, char *text, size_t size)
{
    int used = snprintf(text, size, "%s ", t.ndim == 0 ? "none" : gr_dtype_name(t.dtype));

    if (used >= 0 && (size_t)used < size)
        gr_shape_describe(t.dim, t.ndim, text + used, size - (size_t)used);
    return text;
}
