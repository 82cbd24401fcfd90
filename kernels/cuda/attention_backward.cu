/* The backward of attention on tensor cores, without atomics: one kernel owns queries and walks
 * over the keys that they see, one owns keys and walks over the queries that see them, of each
 * query head of the group in turn.  Both make the weights again from lse:
 *
 *   p = exp(scale q.k - lse);  dp = d_o.v;  ds = p (dp - delta),  delta = rowsum(d_o * o)
 *
 *   dq = scale ds k;  dv = pT d_o;  dk = scale dsT q
 *
 * A block owns 64 rows, a warp 16 of them.  What it walks over comes by cp.async in tiles of 32,
 * two tiles in turn.  As in the forward, no tile spans two segments, and a warp passes over what
 * its rows do not see. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cudnn_plans.h"

enum { STEP = 32 /* rows of a tile that is walked over */ };

/* Shared memory: two tiles that stay, and twice two that are walked over. */
template <int head_dim> struct tiles {
    static constexpr int own = GR_ATTENTION_ROWS * gr_tile_stride<head_dim>;
    static constexpr int step = STEP * gr_tile_stride<head_dim>;
    static constexpr int bytes = 2 * (2 * own + 4 * step);
};

/* Rows `row` on of two tensors that are walked over, to place 0 or 1. */
template <int head_dim>
static __device__ __forceinline__ void fetch_step(__nv_bfloat16 *walked, int place,
                                                  const gr_tensor &x, const gr_tensor &y, int row,
                                                  int head)
{
    __nv_bfloat16 *to = walked + 2 * place * tiles<head_dim>::step;

    gr_tile_fetch<STEP, head_dim>(to, x, row, head);
    gr_tile_fetch<STEP, head_dim>(to + tiles<head_dim>::step, y, row, head);
    gr_cp_async_commit();
}

struct weight {
    float p, ds;
};

/* Of a query and a key, from their two products; zeros where the query does not see the key. */
static __device__ __forceinline__ struct weight weigh(float score, float dp, bool sees,
                                                      float factor, float lse2, float delta)
{
    float p = sees ? gr_exp2(score * factor - lse2) : 0.0f;

    return {p, sees ? p * (dp - delta) : 0.0f};
}

/* ---- a block owns queries ---- */

/* What a lane knows about its two queries. */
struct queries {
    int row[2], first_key[2];
    float lse2[2], delta[2];
};

static __device__ __forceinline__ struct queries
load_queries(const struct gr_attention_memory &memory, int row, int head)
{
    struct queries q;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        int64_t at = row + gr_fragment_row(2 * r);

        q.row[r] = (int)at;
        q.first_key[r] = memory.first_key[at];
        q.lse2[r] = memory.lse2[(int64_t)head * memory.rows + at];
        q.delta[r] = memory.delta[(int64_t)head * memory.rows + at];
    }
    return q;
}

/* dq += of a tile of keys */
template <int head_dim>
static __device__ __forceinline__ void
add_keys(float (&dq)[1][head_dim / 8][4], const __nv_bfloat16 *q, const __nv_bfloat16 *d_o,
         const __nv_bfloat16 *k, const struct queries &own, int key, float factor)
{
    float score[1][STEP / 8][4] = {}, dp[1][STEP / 8][4] = {};
    struct gr_weights<1, STEP> ds;

    gr_tile_product<1, STEP, head_dim>(score, q, k);
    gr_tile_product<1, STEP, head_dim>(dp, d_o, k + tiles<head_dim>::step);
#pragma unroll
    for (int j = 0; j < STEP / 8; j++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            struct weight w[2];

#pragma unroll
            for (int e = 0; e < 2; e++) {
                int at = key + j * 8 + gr_fragment_column(e);

                w[e] = weigh(score[0][j][2 * r + e], dp[0][j][2 * r + e],
                             own.first_key[r] <= at && at <= own.row[r], factor, own.lse2[r],
                             own.delta[r]);
            }
            ds.pair[0][j][r] = gr_pack_bf16(w[0].ds, w[1].ds);
        }
    gr_weight_product<1, STEP, head_dim>(dq, ds, k);
}

template <int head_dim>
static __global__ void __launch_bounds__(GR_ATTENTION_THREADS)
    query_gradients(struct gr_attention a, struct gr_attention_memory memory)
{
    typedef struct tiles<head_dim> t;
    GR_DYNAMIC_SHARED(__nv_bfloat16, shared);
    __nv_bfloat16 *walked = shared + 2 * t::own;
    int head = (int)blockIdx.y, kv_head = gr_kv_head(a, head);
    int tile = (int)(gridDim.x - 1 - blockIdx.x) * GR_ATTENTION_ROWS; /* as in the forward */
    int part = (int)threadIdx.x / 32 * 16, row = tile + part;
    int key = memory.first_key[tile] / STEP * STEP;
    int end = min(tile + GR_ATTENTION_ROWS, (int)a.q.dim[0]), first = memory.first_key[row];
    __nv_bfloat16 *own_q = shared + gr_tile_stride<head_dim> * part;
    float factor = a.scale * GR_LOG2_E, dq[1][head_dim / 8][4] = {};
    float scale[1][2] = {{a.scale, a.scale}};
    struct queries own = load_queries(memory, row, head);

    gr_tile_fetch<GR_ATTENTION_ROWS, head_dim>(shared, a.q, tile, head);
    gr_tile_fetch<GR_ATTENTION_ROWS, head_dim>(shared + t::own, a.d_o, tile, head);
    fetch_step<head_dim>(walked, 0, a.k, a.v, key, kv_head);
    for (int place = 0; key < end; key += STEP, place ^= 1) {
        if (key + STEP < end) {
            fetch_step<head_dim>(walked, place ^ 1, a.k, a.v, key + STEP, kv_head);
            gr_cp_async_wait<1>();
        } else {
            gr_cp_async_wait<0>();
        }
        __syncthreads();
        if (first < key + STEP && key < row + 16)
            add_keys<head_dim>(dq, own_q, own_q + t::own, walked + 2 * place * t::step, own, key,
                               factor);
        __syncthreads(); /* the next step overwrites this place */
    }
    gr_tile_store<1, head_dim>(a.dq, row, head, own_q, dq, scale);
}

/* ---- a block owns keys ---- */

/* What a lane knows about its eight queries of a tile: of every eight, two neighbours. */
struct step_queries {
    int2 first_key[STEP / 8];
    float2 lse2[STEP / 8], delta[STEP / 8];
};

static __device__ __forceinline__ struct step_queries
load_step(const struct gr_attention_memory &memory, int query, int head)
{
    int64_t by_head = (int64_t)head * memory.rows;
    struct step_queries s;

#pragma unroll
    for (int j = 0; j < STEP / 8; j++) {
        int at = query + j * 8 + gr_fragment_column(0);

        s.first_key[j] = *reinterpret_cast<const int2 *>(memory.first_key + at);
        s.lse2[j] = *reinterpret_cast<const float2 *>(memory.lse2 + by_head + at);
        s.delta[j] = *reinterpret_cast<const float2 *>(memory.delta + by_head + at);
    }
    return s;
}

/* dk and dv += of a tile of queries; a row per key of p and ds */
template <int head_dim>
static __device__ __forceinline__ void
add_queries(float (&dk)[1][head_dim / 8][4], float (&dv)[1][head_dim / 8][4],
            const __nv_bfloat16 *k, const __nv_bfloat16 *v, const __nv_bfloat16 *q,
            const struct step_queries &s, int key, int query, float factor)
{
    const __nv_bfloat16 *d_o = q + tiles<head_dim>::step;
    float score[1][STEP / 8][4] = {}, dp[1][STEP / 8][4] = {};
    struct gr_weights<1, STEP> p, ds;

    gr_tile_product<1, STEP, head_dim>(score, k, q);
    gr_tile_product<1, STEP, head_dim>(dp, v, d_o);
#pragma unroll
    for (int j = 0; j < STEP / 8; j++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = key + gr_fragment_row(2 * r), at = query + j * 8 + gr_fragment_column(0);
            struct weight even =
                weigh(score[0][j][2 * r], dp[0][j][2 * r], s.first_key[j].x <= row && row <= at,
                      factor, s.lse2[j].x, s.delta[j].x);
            struct weight odd =
                weigh(score[0][j][2 * r + 1], dp[0][j][2 * r + 1],
                      s.first_key[j].y <= row && row <= at + 1, factor, s.lse2[j].y, s.delta[j].y);

            p.pair[0][j][r] = gr_pack_bf16(even.p, odd.p);
            ds.pair[0][j][r] = gr_pack_bf16(even.ds, odd.ds);
        }
    gr_weight_product<1, STEP, head_dim>(dv, p, d_o);
    gr_weight_product<1, STEP, head_dim>(dk, ds, q);
}

template <int head_dim>
static __global__ void __launch_bounds__(GR_ATTENTION_THREADS)
    key_gradients(struct gr_attention a, struct gr_attention_memory memory)
{
    typedef struct tiles<head_dim> t;
    GR_DYNAMIC_SHARED(__nv_bfloat16, shared);
    __nv_bfloat16 *walked = shared + 2 * t::own;
    int kv_head = (int)blockIdx.y, group = (int)(a.q.dim[1] / a.k.dim[1]);
    int tile = (int)blockIdx.x * GR_ATTENTION_ROWS; /* early keys are seen by most queries */
    int part = (int)threadIdx.x / 32 * 16, row = tile + part;
    int last = memory.end_query[tile + GR_ATTENTION_ROWS - 1];
    int steps = (last - tile + STEP - 1) / STEP, end = memory.end_query[row + 15];
    __nv_bfloat16 *own_k = shared + gr_tile_stride<head_dim> * part, *own_v = own_k + t::own;
    float factor = a.scale * GR_LOG2_E;
    float dk[1][head_dim / 8][4] = {}, dv[1][head_dim / 8][4] = {};
    float scale[1][2] = {{a.scale, a.scale}}, one[1][2] = {{1.0f, 1.0f}};

    gr_tile_fetch<GR_ATTENTION_ROWS, head_dim>(shared, a.k, tile, kv_head);
    gr_tile_fetch<GR_ATTENTION_ROWS, head_dim>(shared + t::own, a.v, tile, kv_head);
    fetch_step<head_dim>(walked, 0, a.q, a.d_o, tile, kv_head * group);
    for (int i = 0; i < steps * group; i++) {
        int head = kv_head * group + i / steps, query = tile + i % steps * STEP, place = i % 2;
        bool is_seen = row < query + STEP && query < end;
        struct step_queries s = {};

        if (is_seen)
            s = load_step(memory, query, head);
        if (i + 1 < steps * group) {
            fetch_step<head_dim>(walked, place ^ 1, a.q, a.d_o, tile + (i + 1) % steps * STEP,
                                 kv_head * group + (i + 1) / steps);
            gr_cp_async_wait<1>();
        } else {
            gr_cp_async_wait<0>();
        }
        __syncthreads();
        if (is_seen)
            add_queries<head_dim>(dk, dv, own_k, own_v, walked + 2 * place * t::step, s, row, query,
                                  factor);
        __syncthreads(); /* the next step overwrites this place */
    }
    gr_tile_store<1, head_dim>(a.dk, row, kv_head, own_k, dk, scale);
    gr_tile_store<1, head_dim>(a.dv, row, kv_head, own_v, dv, one);
}

/* ---- the op ---- */

static const struct kernels {
    int head_dim, bytes;
    void (*query_gradients)(struct gr_attention, struct gr_attention_memory);
    void (*key_gradients)(struct gr_attention, struct gr_attention_memory);
} kernels[] = {
#define X(head_dim)                                                                                \
    {head_dim, tiles<head_dim>::bytes, query_gradients<head_dim>, key_gradients<head_dim>},
    X(16) X(32) X(64) X(128)
#undef X
};

/* NULL: none do. */
static const struct kernels *find_kernels(const struct gr_attention *a)
{
    const gr_tensor tensors[] = {a->q, a->k, a->v, a->d_o, a->dq, a->dk, a->dv};

    if (a->q.dtype != GR_BF16)
        return NULL;
    for (const gr_tensor &t : tensors)
        if (!gr_attention_aligned(t))
            return NULL;
    for (const struct kernels &k : kernels)
        if (k.head_dim == a->q.dim[2])
            return &k;
    return NULL;
}

static void run(struct gr_device *dev, const char *op, const struct gr_attention *a,
                struct gr_attention_memory memory, const struct kernels *k, bool owns_keys)
{
    void (*kernel)(struct gr_attention, struct gr_attention_memory) =
        owns_keys ? k->key_gradients : k->query_gradients;
    int64_t tiles = (a->q.dim[0] + GR_ATTENTION_ROWS - 1) / GR_ATTENTION_ROWS;
    int64_t heads = owns_keys ? a->k.dim[1] : a->q.dim[1];

    gr_cuda_ok(dev, op,
               cudaFuncSetAttribute((const void *)kernel,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, k->bytes));
    gr_cuda_ok(dev, op,
               GR_LAUNCH(kernel, dim3((unsigned)tiles, (unsigned)heads), dim3(GR_ATTENTION_THREADS),
                         (size_t)k->bytes, gr_cuda_of(dev)->stream, *a, memory));
}

void gr_cuda_attention_backward(struct gr_device *dev, const struct gr_attention *a)
{
    static const char op[] = "attention_backward";
    struct gr_arena room;
    struct gr_attention_memory memory = gr_cuda_attention_begin(dev, op, a, &room);
    const struct kernels *k = find_kernels(a);

    if (gr_cuda_cudnn_attention(dev, a, true, memory.first_key, &room) ||
        dev->failure.status != GR_OK)
        return;
    gr_cuda_attention_delta(dev, a, memory);
    if (k == NULL) {
        gr_cuda_attention_plain_backward(dev, a, memory);
        return;
    }
    run(dev, op, a, memory, k, false);
    run(dev, op, a, memory, k, true);
}
