/* Running a plan of cuDNN's attention: where the documents are, what it is bound to, and what cuDNN
 * leaves to others: rows outside documents are zero, and lse is (N, NH).
 *
 * cuDNN reads and writes rows of documents only.  What another document holds must be finite: it
 * may be multiplied by a weight of 0.  Called by attention.cu and attention_backward.cu. */
#include "kernels/cuda/cudnn_plans.h"

#include <math.h>

enum {
    THREADS = 128,
    FIRST_OFFSETS = GR_CUDNN_Q_OFFSETS,
    OFFSETS = GR_CUDNN_HEADS_OFFSETS - GR_CUDNN_Q_OFFSETS + 1,
};

/* Where documents are, for a plan of that many. */
struct tables {
    int documents;
    int *lengths;          /* [documents] */
    int *offsets[OFFSETS]; /* [documents + 1] elements */
    int64_t stride[OFFSETS];
};

struct memory {
    struct tables tables;
    float *lse, *row_sum; /* padded; row_sum may be dense */
    float *dq_sum;
    __nv_bfloat16 *dk_heads, *dv_heads;
    unsigned char *workspace;
};

/* Documents behind those there are have no rows, and lie at the end. */
static __global__ void fill_tables(struct tables t, gr_tensor docs, int n)
{
    const int *doc = (const int *)docs.data;
    const int d = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    int begin = n, end = n;

    if (d > t.documents)
        return;
    if (d < docs.dim[0]) { /* nobody has looked at the documents: they must do no harm */
        begin = min(max(doc[d * docs.stride], 0), n);
        end = min(max(doc[d * docs.stride + 1], begin), n);
    }
    if (d < t.documents)
        t.lengths[d] = end - begin;
    for (int i = 0; i < OFFSETS; i++)
        t.offsets[i][d] = (int)(begin * t.stride[i]);
}

/* Between lse as it is padded, (D, NH, rows), and as everybody else has it, (N, NH). */
static __global__ void exchange_lse(float *padded, float *packed, struct tables t, int heads,
                                    int rows, bool pads)
{
    const int d = (int)blockIdx.y, begin = t.offsets[GR_CUDNN_LSE_OFFSETS - FIRST_OFFSETS][d];
    const int at = (int)(blockIdx.x * blockDim.x + threadIdx.x), head = at % heads;
    float *there = padded + ((int64_t)d * heads + head) * rows + at / heads;

    if (at / heads >= t.lengths[d])
        return;
    if (pads)
        *there = packed[begin + at];
    else
        packed[begin + at] = *there;
}

/* Rows in no document; a warp for each. */
static __global__ void clear_outside(unsigned *data, int64_t words, int64_t stride, int n,
                                     const int *first_key)
{
    const int row = (int)(blockIdx.x * (THREADS / 32) + threadIdx.x / 32);

    if (row >= n || first_key[row] <= row)
        return;
    for (int64_t i = threadIdx.x % 32; i < words; i += 32)
        data[row * stride + i] = 0;
}

/* ---- memory ---- */

static void layout(struct memory *m, struct gr_arena *arena, const struct gr_cudnn_plan *p,
                   int64_t n)
{
    const struct gr_cudnn_attention *k = &p->key;
    const int64_t numbers = k->lse_is_padded ? k->documents * k->heads * k->rows : k->heads * n;
    const int64_t wide = n * k->heads * k->head_dim, bf16 = (int64_t)sizeof(__nv_bfloat16);
    const int64_t f32 = (int64_t)sizeof(float), i32 = (int64_t)sizeof(int);

    *m = {};
    m->tables.documents = (int)k->documents;
    m->tables.lengths = (int *)gr_arena_take(arena, k->documents * i32);
    for (int *&offsets : m->tables.offsets)
        offsets = (int *)gr_arena_take(arena, (k->documents + 1) * i32);
    if (k->lse_is_padded)
        m->lse = (float *)gr_arena_take(arena, numbers * f32);
    if (k->is_backward) {
        m->row_sum = (float *)gr_arena_take(arena, numbers * f32);
        m->dq_sum = (float *)gr_arena_take(arena, wide * f32);
    }
    if (k->is_backward && k->heads > k->kv_heads) {
        m->dk_heads = (__nv_bfloat16 *)gr_arena_take(arena, wide * bf16);
        m->dv_heads = (__nv_bfloat16 *)gr_arena_take(arena, wide * bf16);
    }
    m->workspace = (unsigned char *)gr_arena_take(arena, p->workspace_bytes);
}

int64_t gr_cuda_cudnn_bytes(struct gr_device *dev, const struct gr_attention *a, bool is_backward)
{
    int64_t most = 0;

    for (int64_t documents = 1; documents <= GR_CUDNN_DOCUMENTS_MOST; documents *= 4) {
        const struct gr_cudnn_plan *p = gr_cuda_cudnn_plan(dev, a, is_backward, documents);
        struct gr_arena measure = {};
        struct memory memory;

        measure.name = "workspace";
        if (p != NULL)
            layout(&memory, &measure, p, a->q.dim[0]);
        most = measure.used > most ? measure.used : most;
    }
    return most;
}

/* ---- running ---- */

static void set_strides(struct tables *t, const struct gr_cudnn_attention *k)
{
    const struct {
        int id;
        int64_t stride;
    } all[] = {
        {GR_CUDNN_Q_OFFSETS, k->q_stride},   {GR_CUDNN_K_OFFSETS, k->k_stride},
        {GR_CUDNN_V_OFFSETS, k->v_stride},   {GR_CUDNN_O_OFFSETS, k->o_stride},
        {GR_CUDNN_DQ_OFFSETS, k->dq_stride}, {GR_CUDNN_DK_OFFSETS, k->dk_stride},
        {GR_CUDNN_DV_OFFSETS, k->dv_stride}, {GR_CUDNN_D_O_OFFSETS, k->d_o_stride},
        {GR_CUDNN_LSE_OFFSETS, k->heads},    {GR_CUDNN_HEADS_OFFSETS, k->heads * k->head_dim},
    };

    for (const auto &one : all)
        t->stride[one.id - FIRST_OFFSETS] = one.stride;
}

/* Queues the plan, bound to the tensors. */
static void run_plan(struct gr_device *dev, const char *op, const struct gr_attention *a,
                     const struct gr_cudnn_plan *p, const struct memory *m)
{
    const struct gr_cudnn *cudnn = gr_cuda_cudnn(dev);
    float scale = a->scale, hidden = -INFINITY, one = 1;
    void *all[GR_CUDNN_ATTENTION_IDS] = {}, *bound[GR_CUDNN_BOUND];
    char words[256] = "";

    all[GR_CUDNN_Q] = a->q.data;
    all[GR_CUDNN_K] = a->k.data;
    all[GR_CUDNN_V] = a->v.data;
    all[GR_CUDNN_O] = a->o.data;
    all[GR_CUDNN_LSE] = p->key.lse_is_padded ? (void *)m->lse : a->lse.data;
    all[GR_CUDNN_D_O] = a->d_o.data;
    all[GR_CUDNN_DQ] = a->dq.data;
    all[GR_CUDNN_DK] = a->dk.data;
    all[GR_CUDNN_DV] = a->dv.data;
    all[GR_CUDNN_DQ_SUM] = m->dq_sum;
    all[GR_CUDNN_DK_HEADS] = m->dk_heads;
    all[GR_CUDNN_DV_HEADS] = m->dv_heads;
    all[GR_CUDNN_ROW_SUM] = m->row_sum;
    all[GR_CUDNN_Q_LENGTHS] = all[GR_CUDNN_KV_LENGTHS] = m->tables.lengths;
    for (int i = 0; i < OFFSETS; i++)
        all[FIRST_OFFSETS + i] = m->tables.offsets[i];
    all[GR_CUDNN_SCALE] = &scale;
    all[GR_CUDNN_MASKED] = all[GR_CUDNN_BEYOND] = &hidden;
    all[GR_CUDNN_ONE] = &one;
    for (int64_t i = 0; i < p->ids; i++)
        bound[i] = all[p->id[i]];
    if (gr_cudnn_plan_run(cudnn, p->plan, p->ids, p->id, bound, m->workspace) ==
        GR_CUDNN_STATUS_SUCCESS)
        return;
    cudnn->cudnnGetLastErrorString(words, sizeof words);
    gr_device_fail(dev, GR_ERR_DEVICE, op, "cuDNN: %s", words);
}

static void clear(struct gr_device *dev, const char *op, gr_tensor t, const int *first_key)
{
    const int64_t words = gr_tensor_row_size(t) * gr_dtype_bytes(t.dtype) / 4;
    const int64_t stride = t.stride * gr_dtype_bytes(t.dtype) / 4, n = t.dim[0];

    gr_cuda_ok(dev, op,
               GR_LAUNCH(clear_outside, dim3((unsigned)((n + THREADS / 32 - 1) / (THREADS / 32))),
                         dim3(THREADS), 0, gr_cuda_of(dev)->stream, (unsigned *)t.data, words,
                         stride, (int)n, first_key));
}

/* Rows behind a document's end have an lse too, and the backward reads it: whatever it made of one
 * that is not finite would reach dK and dV. */
static void clear_lse(struct gr_device *dev, const char *op, const struct gr_cudnn_plan *p,
                      const struct memory *m)
{
    const int64_t numbers = p->key.documents * p->key.heads * p->key.rows;

    if (p->key.lse_is_padded)
        gr_cuda_ok(
            dev, op,
            cudaMemsetAsync(m->lse, 0, (size_t)numbers * sizeof(float), gr_cuda_of(dev)->stream));
}

static void move_lse(struct gr_device *dev, const char *op, const struct gr_attention *a,
                     const struct gr_cudnn_plan *p, const struct memory *m, bool pads)
{
    const int64_t count = a->q.dim[0] * p->key.heads;

    if (p->key.lse_is_padded)
        gr_cuda_ok(
            dev, op,
            GR_LAUNCH(exchange_lse,
                      dim3((unsigned)((count + THREADS - 1) / THREADS), (unsigned)p->key.documents),
                      dim3(THREADS), 0, gr_cuda_of(dev)->stream, m->lse, (float *)a->lse.data,
                      m->tables, (int)p->key.heads, (int)p->key.rows, pads));
}

bool gr_cuda_cudnn_attention(struct gr_device *dev, const struct gr_attention *a, bool is_backward,
                             const int *first_key, struct gr_arena *room)
{
    const char *op = is_backward ? "attention_backward" : "attention_forward";
    const struct gr_cudnn_plan *p = gr_cuda_cudnn_plan(dev, a, is_backward, a->docs.dim[0]);
    const int64_t n = a->q.dim[0];
    struct gr_cuda *c = gr_cuda_of(dev);
    struct memory m;

    if (p == NULL || dev->failure.status != GR_OK)
        return false;
    layout(&m, room, p, n);
    set_strides(&m.tables, &p->key);
    gr_cuda_ok(dev, op,
               GR_LAUNCH(fill_tables, dim3((unsigned)(p->key.documents / THREADS + 1)),
                         dim3(THREADS), 0, c->stream, m.tables, a->docs, (int)n));
    if (is_backward) {
        clear_lse(dev, op, p, &m);
        move_lse(dev, op, a, p, &m, true);
        gr_cuda_ok(dev, op,
                   cudaMemsetAsync(m.dq_sum, 0,
                                   (size_t)(n * p->key.heads * p->key.head_dim) * sizeof(float),
                                   c->stream));
    }
    run_plan(dev, op, a, p, &m);
    if (is_backward) {
        clear(dev, op, a->dq, first_key);
        clear(dev, op, a->dk, first_key);
        clear(dev, op, a->dv, first_key);
    } else {
        move_lse(dev, op, a, p, &m, false);
        clear(dev, op, a->o, first_key);
        clear(dev, op, a->lse, first_key);
    }
    return true;
}
