/* A linear group and its adapter as one matrix, which struct gr_lora_group may be given (ops.h):
 *     [[W, B], [A, 0]]
 * The rows of W are those of y, the columns of W and A those of x; A's rows and B's columns are the
 * columns of s.  B is zero outside the rows and columns of its own linear: whoever makes the matrix
 * begins with zeros (arenas do) and fills the parts. */
#ifndef GR_JOINED_H
#define GR_JOINED_H

#include "kernels/ops.h"

struct gr_joined_shape {
    int linears;
    int64_t in;
    int64_t out[GR_LINEARS_MOST];
    int64_t r[GR_LINEARS_MOST]; /* 0: not adapted */
};

int64_t gr_joined_rows(const struct gr_joined_shape *shape);    /* sum of out and r */
int64_t gr_joined_columns(const struct gr_joined_shape *shape); /* in and sum of r */
/* The distance of rows of so many elements, here and where a row has room behind it: they begin at
 * multiples of 16 bytes, since products of others are slow on a GPU. */
int64_t gr_joined_stride(int64_t columns);

/* What of the matrix is one linear's; a and b are none where r is 0. */
struct gr_joined_parts {
    gr_tensor weight; /* (out, in) */
    gr_tensor a;      /* (r, in) */
    gr_tensor b;      /* (out, r) */
};
struct gr_joined_parts gr_joined_parts(gr_tensor joined, const struct gr_joined_shape *shape,
                                       int linear);

/* The r columns behind the rows of t, where it has room for them: those of dS behind dy. */
gr_tensor gr_joined_behind(gr_tensor t, int64_t r);

/* For ops.c: what of a joined group is not as ops.h says; NULL: nothing. */
const char *gr_joined_misfit(const struct gr_lora_group *g);
/* Whether the rows of `room` begin where those of t end. */
bool gr_joined_is_behind(gr_tensor room, gr_tensor t);

#endif
