/* Where the parts of a joined matrix lie.  See joined.h. */
#include "kernels/joined.h"

#include "kernels/backend.h"
#include "kernels/base/status.h"

static int64_t sum_of(const int64_t *values, int count)
{
    int64_t sum = 0;

    for (int i = 0; i < count; i++)
        sum += values[i];
    return sum;
}

int64_t gr_joined_rows(const struct gr_joined_shape *shape)
{
    return sum_of(shape->out, shape->linears) + sum_of(shape->r, shape->linears);
}

int64_t gr_joined_columns(const struct gr_joined_shape *shape)
{
    return shape->in + sum_of(shape->r, shape->linears);
}

int64_t gr_joined_stride(int64_t columns)
{
    enum { ELEMENTS = 8 }; /* 16 bytes of bf16 */

    return (columns + ELEMENTS - 1) / ELEMENTS * ELEMENTS;
}

struct gr_joined_parts gr_joined_parts(gr_tensor joined, const struct gr_joined_shape *shape,
                                       int linear)
{
    int64_t in = shape->in, r = shape->r[linear];
    int64_t top = sum_of(shape->out, linear), left = sum_of(shape->r, linear);
    int64_t bottom = sum_of(shape->out, shape->linears) + left;
    gr_tensor rows = gr_tensor_rows(joined, top, top + shape->out[linear]);
    struct gr_joined_parts parts = {.weight = gr_tensor_columns(rows, 0, in)};

    if (r > 0) {
        parts.a = gr_tensor_columns(gr_tensor_rows(joined, bottom, bottom + r), 0, in);
        parts.b = gr_tensor_columns(rows, in + left, in + left + r);
    }
    return parts;
}

gr_tensor gr_joined_behind(gr_tensor t, int64_t r)
{
    int64_t begin = t.dim[1];

    GR_CHECK(begin + r <= t.stride, "%lld columns behind %lld, rows are %lld apart", (long long)r,
             (long long)begin, (long long)t.stride);
    t.dim[1] += r;
    return gr_tensor_columns(t, begin, begin + r);
}

bool gr_joined_is_behind(gr_tensor room, gr_tensor t)
{
    return room.data == gr_tensor_columns(t, t.dim[1], t.dim[1]).data && room.stride == t.stride;
}

static bool is_same(gr_tensor a, gr_tensor b)
{
    return a.data == b.data && (gr_tensor_is_none(a) || a.stride == b.stride);
}

const char *gr_joined_misfit(const struct gr_lora_group *g)
{
    struct gr_joined_shape shape = {.linears = g->linears, .in = g->x.dim[1]};

    if (g->adapters != 1)
        return "there must be one adapter";
    for (int i = 0; i < g->linears; i++) {
        shape.out[i] = g->linear[i].weight.dim[0];
        shape.r[i] = gr_lora_group_r(g, i);
    }
    if (g->joined.dtype != g->x.dtype || g->joined.dim[0] != gr_joined_rows(&shape) ||
        g->joined.dim[1] != gr_joined_columns(&shape))
        return "the matrix has another shape";
    if (g->x.stride < gr_joined_columns(&shape))
        return "x has no room behind its rows";
    for (int i = 0; i < g->linears; i++) {
        struct gr_joined_parts parts = gr_joined_parts(g->joined, &shape, i);

        if (!is_same(g->linear[i].weight, parts.weight) || !is_same(g->lora[i].a, parts.a) ||
            !is_same(g->lora[i].b, parts.b))
            return "a weight, an A or a B is no part of the matrix";
    }
    return NULL;
}
