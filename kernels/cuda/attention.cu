/* Causal attention inside documents, forward, on tensor cores.
 *
 * A block owns 64 or 128 queries of one head, a warp 16 or 32 of them; it walks over the keys that
 * they see in tiles of 64 with an online softmax.  Keys and values come by cp.async: values while
 * the scores are computed, the next keys while the values are added.
 *
 * Tiles are counted from row 0, and segments begin at multiples of 64, so a tile of keys belongs to
 * one segment; a warp passes over tiles that none of its queries sees, so what another segment
 * holds (NaN too) does not reach it, and its bits do not depend on where the tiles of a block
 * begin.
 *
 * Where this machine's record says so, cuDNN computes it instead (cudnn_plans.h).
 *
 * Source: Dao 2023, arXiv:2307.08691. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cudnn_plans.h"

enum { KEYS = 64 /* of a tile */ };

/* ---- who sees whom ---- */

static __global__ void find_reach(gr_tensor docs, int n, int64_t window,
                                  struct gr_attention_memory memory)
{
    const int *doc = (const int *)docs.data;
    int row = (int)(blockIdx.x * blockDim.x + threadIdx.x), begin = 0, end = 0;
    int64_t low = 0, high = docs.dim[0]; /* documents before `low` begin at the row or before */

    if (row >= memory.rows)
        return;
    while (low < high) {
        int64_t middle = (low + high) / 2;

        if (doc[middle * docs.stride] <= row)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0) { /* nobody has looked at the documents: out of range, they must do no harm */
        begin = max(doc[(low - 1) * docs.stride], 0);
        end = min(doc[(low - 1) * docs.stride + 1], n);
    }
    memory.first_key[row] = row + 1;
    memory.end_query[row] = row;
    if (row < end) {
        bool is_wide = window == 0 || window > n;

        memory.first_key[row] = is_wide ? begin : max(begin, row - (int)window + 1);
        memory.end_query[row] = is_wide ? end : min(end, row + (int)window);
    }
}

static void layout(struct gr_attention_memory *memory, struct gr_arena *arena, int64_t n,
                   int64_t heads)
{
    int64_t rows = (n + GR_ATTENTION_MULTIPLE - 1) / GR_ATTENTION_MULTIPLE * GR_ATTENTION_MULTIPLE;

    memory->rows = (int)rows;
    memory->first_key = (int *)gr_arena_take(arena, rows * (int64_t)sizeof(int));
    memory->end_query = (int *)gr_arena_take(arena, rows * (int64_t)sizeof(int));
    memory->lse2 = (float *)gr_arena_take(arena, heads * rows * (int64_t)sizeof(float));
    memory->delta = (float *)gr_arena_take(arena, heads * rows * (int64_t)sizeof(float));
}

int64_t gr_cuda_attention_workspace_bytes(struct gr_device *dev, const struct gr_attention *a)
{
    struct gr_attention_memory memory;
    struct gr_arena measure = {};
    int64_t forward, backward = 0;

    measure.name = "workspace";
    layout(&memory, &measure, a->q.dim[0], a->q.dim[1]);
    forward = gr_cuda_cudnn_bytes(dev, a, false);
    if (a->d_o.ndim != 0)
        backward = gr_cuda_cudnn_bytes(dev, a, true);
    return measure.used + (forward > backward ? forward : backward);
}

bool gr_cuda_attention_fits(struct gr_device *dev, const char *op, gr_tensor q)
{
    if (q.dim[2] <= GR_ATTENTION_HEAD_DIM)
        return true;
    gr_device_fail(dev, GR_ERR_BUG, op,
                   "the head dimension is too large (found %lld, expected at most %d)",
                   (long long)q.dim[2], GR_ATTENTION_HEAD_DIM);
    return false;
}

struct gr_attention_memory gr_cuda_attention_begin(struct gr_device *dev, const char *op,
                                                   const struct gr_attention *a,
                                                   struct gr_arena *room)
{
    struct gr_attention_memory memory;

    *room = {};
    room->name = "workspace";
    room->base = (unsigned char *)dev->workspace;
    room->capacity = dev->workspace_bytes;
    layout(&memory, room, a->q.dim[0], a->q.dim[1]);
    if (gr_cuda_attention_fits(dev, op, a->q))
        gr_cuda_ok(dev, op,
                   GR_LAUNCH(find_reach, dim3((unsigned)memory.rows / GR_ATTENTION_MULTIPLE),
                             dim3(GR_ATTENTION_MULTIPLE), 0, gr_cuda_of(dev)->stream, a->docs,
                             (int)a->q.dim[0], a->window, memory));
    return memory;
}

/* ---- the online softmax ---- */

/* Of the 16 m queries of a warp; a lane has two of every 16.  Weights so far are
 * exp2(factor (score - most)). */
template <int m> struct softmax {
    float most[m][2];
    float sum[m][2]; /* of this lane's weights only */
};

/* What is subtracted before exp2. */
static __device__ __forceinline__ float base_of(float most, float factor)
{
    return most == -INFINITY ? 0.0f : most * factor; /* nothing seen: all weights 0 */
}

/* Scores of keys that a query does not see. */
template <int m>
static __device__ __forceinline__ void hide(float (&score)[m][KEYS / 8][4], int row, int key,
                                            const int *first_key)
{
#pragma unroll
    for (int i = 0; i < m; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int query = row + i * 16 + gr_fragment_row(2 * r), first = first_key[query];

#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    int at = key + j * 8 + gr_fragment_column(e);

                    if (at < first || query < at)
                        score[i][j][e] = -INFINITY;
                }
        }
}

/* The weights of one of a lane's queries, number r of 16, from its scores; returns what its earlier
 * weights are to be multiplied by. */
static __device__ __forceinline__ float soften_row(unsigned (&weight)[KEYS / 8][2],
                                                   const float (&score)[KEYS / 8][4], int r,
                                                   float factor, float *most, float *sum)
{
    float largest = *most, base, correction;

#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
        largest = fmaxf(largest, fmaxf(score[j][2 * r], score[j][2 * r + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    base = base_of(largest, factor);
    correction = gr_exp2(*most * factor - base);
    *most = largest;
    *sum *= correction;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++) {
        float low = gr_exp2(score[j][2 * r] * factor - base);
        float high = gr_exp2(score[j][2 * r + 1] * factor - base);

        *sum += low + high;
        weight[j][r] = gr_pack_bf16(low, high);
    }
    return correction;
}

/* The weights of a tile of keys; brings o, the weighted sums so far, to the new most. */
template <int m, int head_dim>
static __device__ __forceinline__ void
soften(struct softmax<m> &state, struct gr_weights<m, KEYS> &weights,
       const float (&score)[m][KEYS / 8][4], float (&o)[m][head_dim / 8][4], float factor)
{
#pragma unroll
    for (int i = 0; i < m; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float correction = soften_row(weights.pair[i], score[i], r, factor, &state.most[i][r],
                                          &state.sum[i][r]);

#pragma unroll
            for (int j = 0; j < head_dim / 8; j++) {
                o[i][j][2 * r] *= correction;
                o[i][j][2 * r + 1] *= correction;
            }
        }
}

/* lse, and what o is still to be multiplied by: 1 / the sum of the weights. */
template <int m>
static __device__ __forceinline__ void finish(const struct softmax<m> &state, gr_tensor lse,
                                              int row, int head, float factor, float (&scale)[m][2])
{
#pragma unroll
    for (int i = 0; i < m; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float sum = state.sum[i][r];
            int query = row + i * 16 + gr_fragment_row(2 * r);

            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            scale[i][r] = sum > 0.0f ? 1.0f / sum : 0.0f;
            if (gr_lane() % 4 == 0 && query < lse.dim[0])
                ((float *)lse.data)[query * lse.stride + head] =
                    sum > 0.0f ? (base_of(state.most[i][r], factor) + log2f(sum)) * GR_LN_2 : 0.0f;
        }
}

/* ---- the kernel ---- */

template <int m, int head_dim> static constexpr int forward_bytes()
{
    return 2 *
           (m * GR_ATTENTION_ROWS * gr_tile_stride<head_dim> + 2 * KEYS * gr_tile_stride<head_dim>);
}

template <int m, int head_dim>
static __global__ void __launch_bounds__(GR_ATTENTION_THREADS)
    forward(struct gr_attention a, struct gr_attention_memory memory)
{
    constexpr int rows = m * GR_ATTENTION_ROWS;
    GR_DYNAMIC_SHARED(__nv_bfloat16, queries);
    __nv_bfloat16 *keys = queries + rows * gr_tile_stride<head_dim>;
    __nv_bfloat16 *values = keys + KEYS * gr_tile_stride<head_dim>;
    int head = (int)blockIdx.y, kv_head = gr_kv_head(a, head);
    int tile = (int)(gridDim.x - 1 - blockIdx.x) * rows; /* late queries see most keys: first */
    int part = (int)threadIdx.x / 32 * 16 * m, row = tile + part;
    int key = memory.first_key[tile] / KEYS * KEYS, end = min(tile + rows, (int)a.q.dim[0]);
    __nv_bfloat16 *own = queries + part * gr_tile_stride<head_dim>;
    int first = memory.first_key[row], last = memory.first_key[row + 16 * m - 1];
    float factor = a.scale * GR_LOG2_E, o[m][head_dim / 8][4] = {}, scale[m][2];
    struct softmax<m> state;

#pragma unroll
    for (int i = 0; i < 2 * m; i++) {
        state.most[i / 2][i % 2] = -INFINITY;
        state.sum[i / 2][i % 2] = 0.0f;
    }
    gr_tile_fetch<rows, head_dim>(queries, a.q, tile, head);
    gr_tile_fetch<KEYS, head_dim>(keys, a.k, key, kv_head);
    gr_cp_async_commit();
    for (; key < end; key += KEYS) {
        bool is_seen = first < key + KEYS && key < row + 16 * m;
        struct gr_weights<m, KEYS> weights;

        gr_cp_async_wait<0>();
        __syncthreads(); /* the keys are there, and nobody reads the last values any more */
        gr_tile_fetch<KEYS, head_dim>(values, a.v, key, kv_head);
        gr_cp_async_commit();
        if (is_seen) {
            float score[m][KEYS / 8][4] = {};

            gr_tile_product<m, KEYS, head_dim>(score, own, keys);
            if (last > key || key + KEYS - 1 > row)
                hide<m>(score, row, key, memory.first_key);
            soften<m, head_dim>(state, weights, score, o, factor);
        }
        gr_cp_async_wait<0>();
        __syncthreads();
        if (key + KEYS < end)
            gr_tile_fetch<KEYS, head_dim>(keys, a.k, key + KEYS, kv_head);
        gr_cp_async_commit();
        if (is_seen)
            gr_weight_product<m, KEYS, head_dim>(o, weights, values);
    }
    finish<m>(state, a.lse, row, head, factor, scale);
    gr_tile_store<m, head_dim>(a.o, row, head, own, o, scale);
}

/* ---- the op ---- */

/* m: 32 queries of a warp read a tile of keys from shared memory half as often as 16 do. */
static const struct kernel {
    int head_dim, rows, bytes;
    void (*run)(struct gr_attention, struct gr_attention_memory);
} kernels[] = {
#define X(m, head_dim)                                                                             \
    {head_dim, m * GR_ATTENTION_ROWS, forward_bytes<m, head_dim>(), forward<m, head_dim>},
    X(2, 16) X(2, 32) X(2, 64) X(2, 128)
#undef X
};

/* NULL: none does. */
static const struct kernel *find_kernel(const struct gr_attention *a)
{
    if (a->q.dtype == GR_BF16 && a->scale > 0.0f && gr_attention_aligned(a->q) &&
        gr_attention_aligned(a->k) && gr_attention_aligned(a->v) && gr_attention_aligned(a->o))
        for (const struct kernel &k : kernels)
            if (k.head_dim == a->q.dim[2])
                return &k;
    return NULL;
}

void gr_cuda_attention_forward(struct gr_device *dev, const struct gr_attention *a)
{
    static const char op[] = "attention_forward";
    struct gr_arena room;
    struct gr_attention_memory memory = gr_cuda_attention_begin(dev, op, a, &room);
    const struct kernel *k = find_kernel(a);
    int64_t n = a->q.dim[0];

    if (gr_cuda_cudnn_attention(dev, a, false, memory.first_key, &room) ||
        dev->failure.status != GR_OK)
        return;
    if (k == NULL) {
        gr_cuda_attention_plain_forward(dev, a, memory);
        return;
    }
    gr_cuda_ok(dev, op,
               cudaFuncSetAttribute((const void *)k->run,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, k->bytes));
    gr_cuda_ok(dev, op,
               GR_LAUNCH(k->run,
                         dim3((unsigned)((n + k->rows - 1) / k->rows), (unsigned)a->q.dim[1]),
                         dim3(GR_ATTENTION_THREADS), (size_t)k->bytes, gr_cuda_of(dev)->stream, *a,
                         memory));
}
