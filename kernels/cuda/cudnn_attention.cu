/* The graphs of attention for cuDNN.  See cudnn_attention.h.  S, P and their gradients are (D, NH,
 * rows, rows), and never in memory. */
#include "kernels/cuda/cudnn_attention.h"

typedef struct gr_cudnn_tensor tensor;

static const int F32 = GR_CUDNN_DATA_FLOAT, BF16 = GR_CUDNN_DATA_BFLOAT16,
                 I32 = GR_CUDNN_DATA_INT32, YES_OR_NO = GR_CUDNN_DATA_BOOLEAN;

/* What both graphs are given. */
struct given {
    const struct gr_cudnn_attention *a;
    tensor q_offsets, k_offsets, v_offsets, o_offsets, lse_offsets, q_lengths, kv_lengths;
    tensor scale, masked, beyond; /* the last two: minus infinity */
    tensor q, k_transposed, o, lse;
};

/* (D + extra) numbers of 32 bits */
static tensor integers(struct gr_cudnn_graph *g, int64_t id, int64_t count)
{
    const int64_t dim[4] = {count, 1, 1, 1}, stride[4] = {1, 1, 1, 1};

    return gr_cudnn_given(g, id, I32, dim, stride, NULL);
}

/* (D, heads, rows, HD) in a buffer of rows */
static tensor heads(struct gr_cudnn_graph *g, const struct gr_cudnn_attention *a, int64_t id,
                    int64_t count, int64_t stride, const tensor *offsets)
{
    const int64_t dim[4] = {a->documents, count, a->rows, a->head_dim};
    const int64_t strides[4] = {stride * a->rows, a->head_dim, stride, 1};

    return gr_cudnn_given(g, id, BF16, dim, strides, offsets);
}

/* Keys or values with the last two dimensions exchanged. */
static tensor heads_transposed(struct gr_cudnn_graph *g, const struct gr_cudnn_attention *a,
                               int64_t id, int64_t stride, const tensor *offsets)
{
    const int64_t dim[4] = {a->documents, a->kv_heads, a->head_dim, a->rows};
    const int64_t strides[4] = {stride * a->rows, a->head_dim, 1, stride};

    return gr_cudnn_given(g, id, BF16, dim, strides, offsets);
}

/* A gradient, or d_o: where its documents lie is known from the tensor whose rows are as far apart,
 * or it has offsets of its own. */
static tensor gradient(struct gr_cudnn_graph *g, const struct gr_cudnn_attention *a, int64_t id,
                       int64_t count, int64_t stride, int64_t other_stride,
                       const tensor *other_offsets, int64_t own_id)
{
    tensor own;

    if (stride == other_stride)
        return heads(g, a, id, count, stride, other_offsets);
    own = integers(g, own_id, a->documents + 1);
    return heads(g, a, id, count, stride, &own);
}

/* (D, NH, rows, 1): a number for each row and head */
static tensor row_numbers(struct gr_cudnn_graph *g, const struct given *in, int64_t id)
{
    const struct gr_cudnn_attention *a = in->a;
    const int64_t dim[4] = {a->documents, a->heads, a->rows, 1};
    const int64_t padded[4] = {a->heads * a->rows, a->rows, 1, 1};
    const int64_t packed[4] = {a->heads * a->rows, 1, a->heads, 1};

    return gr_cudnn_given(g, id, F32, dim, a->lse_is_padded ? padded : packed,
                          a->lse_is_padded ? NULL : &in->lse_offsets);
}

static void take(struct given *in, struct gr_cudnn_graph *g, const struct gr_cudnn_attention *a)
{
    in->a = a;
    in->q_offsets = integers(g, GR_CUDNN_Q_OFFSETS, a->documents + 1);
    in->k_offsets = integers(g, GR_CUDNN_K_OFFSETS, a->documents + 1);
    in->v_offsets = integers(g, GR_CUDNN_V_OFFSETS, a->documents + 1);
    in->o_offsets = integers(g, GR_CUDNN_O_OFFSETS, a->documents + 1);
    if (!a->lse_is_padded)
        in->lse_offsets = integers(g, GR_CUDNN_LSE_OFFSETS, a->documents + 1);
    in->q_lengths = integers(g, GR_CUDNN_Q_LENGTHS, a->documents);
    in->kv_lengths = integers(g, GR_CUDNN_KV_LENGTHS, a->documents);
    in->scale = gr_cudnn_number(g, GR_CUDNN_SCALE);
    in->masked = gr_cudnn_number(g, GR_CUDNN_MASKED);
    in->beyond = gr_cudnn_number(g, GR_CUDNN_BEYOND);
    in->q = heads(g, a, GR_CUDNN_Q, a->heads, a->q_stride, &in->q_offsets);
    in->k_transposed = heads_transposed(g, a, GR_CUDNN_K, a->k_stride, &in->k_offsets);
    in->o = heads(g, a, GR_CUDNN_O, a->heads, a->o_stride, &in->o_offsets);
    in->lse = row_numbers(g, in, GR_CUDNN_LSE);
}

/* mode(x, b), in the shape of x */
static tensor apply(struct gr_cudnn_graph *g, int type, int mode, const tensor *x, const tensor *b)
{
    tensor y = gr_cudnn_inside(g, type, x->dim, NULL);

    gr_cudnn_pointwise(g, &y, mode, x, b, NULL);
    return y;
}

/* where ? x : otherwise */
static tensor choose(struct gr_cudnn_graph *g, const tensor *where, const tensor *x,
                     const tensor *otherwise)
{
    tensor y = gr_cudnn_inside(g, F32, x->dim, NULL);

    gr_cudnn_pointwise(g, &y, GR_CUDNN_POINTWISE_BINARY_SELECT, x, otherwise, where);
    return y;
}

static tensor place(struct gr_cudnn_graph *g, int computed_in, const tensor *x, int64_t axis)
{
    tensor y = gr_cudnn_inside(g, I32, x->dim, NULL);

    gr_cudnn_place(g, &y, computed_in, x, axis);
    return y;
}

/* scale * Q Kt, and minus infinity beyond the end of the document */
static tensor scores(struct gr_cudnn_graph *g, const struct given *in)
{
    const int64_t dim[4] = {in->a->documents, in->a->heads, in->a->rows, in->a->rows};
    tensor raw = gr_cudnn_inside(g, F32, dim, NULL), s, row, column, in_q, in_k, is_inside;

    gr_cudnn_product(g, &raw, &in->q, &in->k_transposed, &in->q_lengths, &in->kv_lengths, NULL);
    s = apply(g, F32, GR_CUDNN_POINTWISE_MUL, &raw, &in->scale);
    row = place(g, I32, &s, 2);
    column = place(g, I32, &s, 3);
    in_q = apply(g, YES_OR_NO, GR_CUDNN_POINTWISE_CMP_LT, &row, &in->q_lengths);
    in_k = apply(g, YES_OR_NO, GR_CUDNN_POINTWISE_CMP_LT, &column, &in->kv_lengths);
    is_inside = apply(g, YES_OR_NO, GR_CUDNN_POINTWISE_LOGICAL_AND, &in_q, &in_k);
    return choose(g, &is_inside, &s, &in->beyond);
}

/* s where the column is not after the row, else minus infinity */
static tensor causal(struct gr_cudnn_graph *g, const struct given *in, const tensor *s)
{
    tensor row = place(g, F32, s, 2), column = place(g, F32, s, 3);
    tensor is_past = apply(g, YES_OR_NO, GR_CUDNN_POINTWISE_CMP_GE, &row, &column);

    return choose(g, &is_past, s, &in->masked);
}

static void forward(struct gr_cudnn_graph *g, const struct gr_cudnn_attention *a)
{
    const int64_t row_dim[4] = {a->documents, a->heads, a->rows, 1};
    struct given in;
    tensor v, s, most, less, e, sum, log_sum, p;

    take(&in, g, a);
    v = heads(g, a, GR_CUDNN_V, a->kv_heads, a->v_stride, &in.v_offsets);
    s = scores(g, &in);
    s = causal(g, &in, &s);
    most = gr_cudnn_inside(g, F32, row_dim, NULL);
    gr_cudnn_reduce(g, &most, GR_CUDNN_REDUCE_TENSOR_MAX, &s);
    less = apply(g, F32, GR_CUDNN_POINTWISE_SUB, &s, &most);
    e = apply(g, F32, GR_CUDNN_POINTWISE_EXP, &less, NULL);
    sum = gr_cudnn_inside(g, F32, row_dim, NULL);
    gr_cudnn_reduce(g, &sum, GR_CUDNN_REDUCE_TENSOR_ADD, &e);
    log_sum = apply(g, F32, GR_CUDNN_POINTWISE_LOG, &sum, NULL);
    gr_cudnn_pointwise(g, &in.lse, GR_CUDNN_POINTWISE_ADD, &most, &log_sum, NULL);
    p = apply(g, BF16, GR_CUDNN_POINTWISE_DIV, &e, &sum);
    gr_cudnn_product(g, &in.o, &p, &v, &in.q_lengths, NULL, &in.kv_lengths);
}

/* sum (D, NKV, rows, HD) <- xt y, for each head of q, summed over those that share one of k */
static void key_gradient(struct gr_cudnn_graph *g, const struct given *in, const tensor *sum,
                         int64_t heads_id, const tensor *heads_offsets, const tensor *x,
                         const tensor *y)
{
    const struct gr_cudnn_attention *a = in->a;
    const int64_t dim[4] = {a->documents, a->heads, a->rows, a->rows};
    const int64_t strides[4] = {a->heads * a->rows * a->rows, a->rows * a->rows, 1, a->rows};
    tensor xt = gr_cudnn_inside(g, BF16, dim, strides), each;

    gr_cudnn_reshape(g, &xt, x);
    if (a->heads == a->kv_heads) {
        gr_cudnn_product(g, sum, &xt, y, &in->kv_lengths, NULL, &in->q_lengths);
        return;
    }
    each = heads(g, a, heads_id, a->heads, a->heads * a->head_dim, heads_offsets);
    gr_cudnn_product(g, &each, &xt, y, &in->kv_lengths, NULL, &in->q_lengths);
    gr_cudnn_reduce(g, sum, GR_CUDNN_REDUCE_TENSOR_ADD, &each);
}

/* For each row: the sum of d_o * o. */
static tensor row_sum(struct gr_cudnn_graph *g, const struct given *in, const tensor *d_o)
{
    const struct gr_cudnn_attention *a = in->a;
    const int64_t width = a->heads * a->head_dim, row_dim[4] = {a->documents, a->heads, a->rows, 1};
    const int64_t strides[4] = {width * a->rows, a->rows * a->head_dim, width, 1};
    tensor both = gr_cudnn_inside(g, F32, d_o->dim, strides);
    tensor inside = gr_cudnn_inside(g, F32, row_dim, NULL), one = gr_cudnn_number(g, GR_CUDNN_ONE);
    tensor sum = row_numbers(g, in, GR_CUDNN_ROW_SUM);

    gr_cudnn_pointwise(g, &both, GR_CUDNN_POINTWISE_MUL, d_o, &in->o, NULL);
    gr_cudnn_reduce(g, &inside, GR_CUDNN_REDUCE_TENSOR_ADD, &both);
    gr_cudnn_pointwise(g, &sum, GR_CUDNN_POINTWISE_MUL, &inside, &one, NULL);
    return sum;
}

/* dq <- ds k, summed in f32 */
static void query_gradient(struct gr_cudnn_graph *g, const struct given *in,
                           const tensor *heads_offsets, const tensor *ds)
{
    const struct gr_cudnn_attention *a = in->a;
    const int64_t dim[4] = {a->documents, a->kv_heads, a->rows, a->head_dim};
    const int64_t strides[4] = {a->k_stride * a->rows, a->head_dim, a->k_stride, 1};
    const int64_t width = a->heads * a->head_dim;
    const int64_t sum_strides[4] = {width * a->rows, a->head_dim, width, 1};
    tensor k = gr_cudnn_inside(g, BF16, dim, strides);
    tensor sum = gr_cudnn_given(g, GR_CUDNN_DQ_SUM, F32, in->q.dim, sum_strides, heads_offsets);
    tensor dq = gradient(g, a, GR_CUDNN_DQ, a->heads, a->dq_stride, a->q_stride, &in->q_offsets,
                         GR_CUDNN_DQ_OFFSETS);

    gr_cudnn_reshape(g, &k, &in->k_transposed);
    gr_cudnn_product(g, &sum, ds, &k, &in->q_lengths, NULL, &in->kv_lengths);
    gr_cudnn_pointwise(g, &dq, GR_CUDNN_POINTWISE_IDENTITY, &sum, NULL, NULL);
}

/* P = exp(S - lse);  dv = Pt d_o;  dS = scale * P * (d_o vt - row_sum);  dk = dSt q;  dq = dS k */
static void backward(struct gr_cudnn_graph *g, const struct gr_cudnn_attention *a)
{
    const int64_t dim[4] = {a->documents, a->heads, a->rows, a->rows};
    struct given in;
    tensor heads_offsets, v_transposed, d_o, dk, dv, sum, s, p, dp, less, ds;

    take(&in, g, a);
    heads_offsets = integers(g, GR_CUDNN_HEADS_OFFSETS, a->documents + 1);
    v_transposed = heads_transposed(g, a, GR_CUDNN_V, a->v_stride, &in.v_offsets);
    d_o = gradient(g, a, GR_CUDNN_D_O, a->heads, a->d_o_stride, a->o_stride, &in.o_offsets,
                   GR_CUDNN_D_O_OFFSETS);
    dk = gradient(g, a, GR_CUDNN_DK, a->kv_heads, a->dk_stride, a->k_stride, &in.k_offsets,
                  GR_CUDNN_DK_OFFSETS);
    dv = gradient(g, a, GR_CUDNN_DV, a->kv_heads, a->dv_stride, a->v_stride, &in.v_offsets,
                  GR_CUDNN_DV_OFFSETS);
    sum = row_sum(g, &in, &d_o);
    s = scores(g, &in);
    s = apply(g, F32, GR_CUDNN_POINTWISE_SUB, &s, &in.lse);
    s = causal(g, &in, &s);
    p = apply(g, F32, GR_CUDNN_POINTWISE_EXP, &s, NULL);
    key_gradient(g, &in, &dv, GR_CUDNN_DV_HEADS, &heads_offsets, &p, &d_o);
    dp = gr_cudnn_inside(g, F32, dim, NULL);
    gr_cudnn_product(g, &dp, &d_o, &v_transposed, &in.q_lengths, &in.kv_lengths, NULL);
    less = apply(g, F32, GR_CUDNN_POINTWISE_SUB, &dp, &sum);
    ds = apply(g, F32, GR_CUDNN_POINTWISE_MUL, &less, &p);
    ds = apply(g, F32, GR_CUDNN_POINTWISE_MUL, &ds, &in.scale);
    key_gradient(g, &in, &dk, GR_CUDNN_DK_HEADS, &heads_offsets, &ds, &in.q);
    query_gradient(g, &in, &heads_offsets, &ds);
}

void gr_cudnn_attention_graph(struct gr_cudnn_graph *g, const struct gr_cudnn_attention *a)
{
    if (a->is_backward)
        backward(g, a);
    else
        forward(g, a);
}
