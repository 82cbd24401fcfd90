/* Attention without tensor cores, for what attention.cu and attention_backward.cu leave: f32, odd
 * head dimensions, rows that are not aligned, and the one query of attention_last.  Also delta,
 * which both backwards read.
 *
 * A warp owns one row of one head: one query and the keys it sees, or one key and the queries that
 * see it.  It looks at 32 of those at once: first a lane has one of them, then its elements
 * lane, lane + 32 ... of the sums.  Only in attention_last do several warps share a query. */
#include "kernels/cuda/attention.cuh"

enum {
    WARPS = GR_ATTENTION_THREADS / 32,
    LAST_WARPS = 8,                        /* of attention_last */
    ELEMENTS = GR_ATTENTION_HEAD_DIM / 32, /* of a sum, in a lane */
    DELTA_LANES = 8                        /* that share a row of delta */
};

/* A warp's part of shared memory. */
struct room {
    float own[2][GR_ATTENTION_HEAD_DIM];
    float weight[2][32];
};

static __device__ __forceinline__ float load(const float *p)
{
    return *p;
}

static __device__ __forceinline__ float load(const __nv_bfloat16 *p)
{
    return __bfloat162float(*p);
}

static __device__ __forceinline__ void store(float *p, float x)
{
    *p = x;
}

static __device__ __forceinline__ void store(__nv_bfloat16 *p, float x)
{
    const __nv_bfloat16 narrow = __float2bfloat16_rn(x);

    *p = narrow; /* apart, as gr_narrow does */
}

/* This warp's task among all of the grid. */
static __device__ __forceinline__ int64_t task_of_warp()
{
    return (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
}

template <class T>
static __device__ void load_own(float *own, const gr_tensor &t, int64_t row, int head)
{
    for (int j = gr_lane(); j < t.dim[2]; j += 32)
        own[j] = load(gr_head_row<const T>(t, row, head) + j);
}

template <class T>
static __device__ float dot(const float *own, const gr_tensor &t, int64_t row, int head)
{
    const T *x = gr_head_row<const T>(t, row, head);
    float sum = 0.0f;

    for (int j = 0; j < t.dim[2]; j++)
        sum = fmaf(own[j], load(x + j), sum);
    return sum;
}

/* sum += weight[i] * row begin + i of t */
template <class T>
static __device__ void add_rows(float (&sum)[ELEMENTS], const float *weight, const gr_tensor &t,
                                int begin, int end, int head)
{
    for (int row = begin; row < end; row++) {
        const T *x = gr_head_row<const T>(t, row, head);

#pragma unroll
        for (int j = 0; j < ELEMENTS; j++)
            if (gr_lane() + 32 * j < t.dim[2])
                sum[j] = fmaf(weight[row - begin], load(x + gr_lane() + 32 * j), sum[j]);
    }
}

template <class T>
static __device__ void store_own(const gr_tensor &t, int64_t row, int head,
                                 const float (&sum)[ELEMENTS], float scale)
{
#pragma unroll
    for (int j = 0; j < ELEMENTS; j++)
        if (gr_lane() + 32 * j < t.dim[2])
            store(gr_head_row<T>(t, row, head) + gr_lane() + 32 * j, sum[j] * scale);
}

static __device__ float largest_of_warp(float x)
{
    for (int lane = 16; lane > 0; lane /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, lane));
    return x;
}

static __device__ float sum_of_warp(float x)
{
    for (int lane = 16; lane > 0; lane /= 2)
        x += __shfl_xor_sync(~0u, x, lane);
    return x;
}

/* ---- forward ---- */

/* The online softmax of a query: weights so far are exp(score - most). */
struct softmax {
    float most, sum;
    float o[ELEMENTS]; /* this lane's of the weighted sum of values */
};

/* Of the query in room->own[0], over keys begin to begin + 32, those `step` further on, and so on
 * up to `end`. */
template <class T>
static __device__ struct softmax attend(struct room *room, const struct gr_attention &a, int head,
                                        int begin, int end, int step)
{
    int kv_head = gr_kv_head(a, head);
    struct softmax state = {-INFINITY, 0.0f, {}};

    for (int key = begin; key < end; key += step) {
        int own = key + gr_lane(), after = min(key + 32, end);
        float score = own < end ? a.scale * dot<T>(room->own[0], a.k, own, kv_head) : -INFINITY;
        float most = fmaxf(state.most, largest_of_warp(score));
        float correction = expf(state.most - most), weight = expf(score - most);

        room->weight[0][gr_lane()] = weight;
        state.sum = state.sum * correction + weight; /* of this lane's keys */
        state.most = most;
#pragma unroll
        for (int j = 0; j < ELEMENTS; j++)
            state.o[j] *= correction;
        __syncwarp();
        add_rows<T>(state.o, room->weight[0], a.v, key, after, kv_head);
        __syncwarp();
    }
    state.sum = sum_of_warp(state.sum);
    return state;
}

template <class T>
static __global__ void forward(struct gr_attention a, struct gr_attention_memory memory)
{
    GR_SHARED(struct room, rooms, [WARPS]);
    struct room *room = &rooms[threadIdx.x / 32];
    int row = (int)(task_of_warp() / a.q.dim[1]), head = (int)(task_of_warp() % a.q.dim[1]);
    bool is_seeing;
    struct softmax state;

    if (row >= a.q.dim[0])
        return;
    is_seeing = memory.first_key[row] <= row;
    load_own<T>(room->own[0], a.q, row, head);
    __syncwarp();
    state = attend<T>(room, a, head, memory.first_key[row], row + 1, 32);
    store_own<T>(a.o, row, head, state.o, is_seeing ? 1.0f / state.sum : 0.0f);
    if (gr_lane() == 0)
        ((float *)a.lse.data)[row * a.lse.stride + head] =
            is_seeing ? state.most + logf(state.sum) : 0.0f;
}

/* A block has one head, and its warps the keys in turn; the first adds up what they found. */
template <class T> static __global__ void last(struct gr_attention a)
{
    GR_SHARED(struct room, rooms, [LAST_WARPS]);
    GR_SHARED(struct softmax, parts, [LAST_WARPS][32]);
    int head = (int)blockIdx.x, warp = (int)threadIdx.x / 32;
    struct softmax all = {-INFINITY, 0.0f, {}};

    load_own<T>(rooms[warp].own[0], a.q, 0, head);
    __syncwarp();
    parts[warp][gr_lane()] =
        attend<T>(&rooms[warp], a, head, 32 * warp, (int)a.k.dim[0], 32 * LAST_WARPS);
    __syncthreads();
    if (warp > 0)
        return;
    for (int i = 0; i < LAST_WARPS; i++)
        all.most = fmaxf(all.most, parts[i][gr_lane()].most);
    for (int i = 0; i < LAST_WARPS; i++) {
        const struct softmax *part = &parts[i][gr_lane()];
        float weight = expf(part->most - all.most);

        all.sum += weight * part->sum;
#pragma unroll
        for (int j = 0; j < ELEMENTS; j++)
            all.o[j] = fmaf(weight, part->o[j], all.o[j]);
    }
    store_own<T>(a.o, 0, head, all.o, 1.0f / all.sum);
}

/* ---- backward ---- */

template <class T>
static __global__ void find_delta(struct gr_attention a, struct gr_attention_memory memory)
{
    int64_t task = ((int64_t)blockIdx.x * GR_ATTENTION_THREADS + threadIdx.x) / DELTA_LANES;
    int64_t row = task / a.q.dim[1];
    int head = (int)(task % a.q.dim[1]), lane = (int)threadIdx.x % DELTA_LANES;
    float sum = 0.0f, lse = 0.0f;

    if (row < a.q.dim[0]) {
        const T *o = gr_head_row<const T>(a.o, row, head);
        const T *d_o = gr_head_row<const T>(a.d_o, row, head);

        for (int j = lane; j < a.q.dim[2]; j += DELTA_LANES)
            sum = fmaf(load(o + j), load(d_o + j), sum);
        lse = ((const float *)a.lse.data)[row * a.lse.stride + head];
    }
    for (int other = DELTA_LANES / 2; other > 0; other /= 2)
        sum += __shfl_xor_sync(~0u, sum, other);
    if (lane == 0) {
        memory.delta[(int64_t)head * memory.rows + row] = sum;
        memory.lse2[(int64_t)head * memory.rows + row] = lse * GR_LOG2_E;
    }
}

/* p and ds of a query and a key, from their two products. */
struct weights {
    float p, ds;
};

static __device__ struct weights weigh(const struct gr_attention &a,
                                       const struct gr_attention_memory &memory, int64_t query,
                                       int head, float score, float dp)
{
    float lse = ((const float *)a.lse.data)[query * a.lse.stride + head];
    float p = expf(a.scale * score - lse);

    return {p, p * (dp - memory.delta[(int64_t)head * memory.rows + query])};
}

template <class T>
static __global__ void query_gradients(struct gr_attention a, struct gr_attention_memory memory)
{
    GR_SHARED(struct room, rooms, [WARPS]);
    struct room *room = &rooms[threadIdx.x / 32];
    int row = (int)(task_of_warp() / a.q.dim[1]), head = (int)(task_of_warp() % a.q.dim[1]);
    int kv_head = gr_kv_head(a, head);
    float dq[ELEMENTS] = {};

    if (row >= a.q.dim[0])
        return;
    load_own<T>(room->own[0], a.q, row, head);
    load_own<T>(room->own[1], a.d_o, row, head);
    __syncwarp();
    for (int key = memory.first_key[row]; key <= row; key += 32) {
        int own = key + gr_lane(), after = min(key + 32, row + 1);

        if (own < after)
            room->weight[0][gr_lane()] =
                weigh(a, memory, row, head, dot<T>(room->own[0], a.k, own, kv_head),
                      dot<T>(room->own[1], a.v, own, kv_head))
                    .ds;
        __syncwarp();
        add_rows<T>(dq, room->weight[0], a.k, key, after, kv_head);
        __syncwarp();
    }
    store_own<T>(a.dq, row, head, dq, a.scale);
}

template <class T>
static __global__ void key_gradients(struct gr_attention a, struct gr_attention_memory memory)
{
    GR_SHARED(struct room, rooms, [WARPS]);
    struct room *room = &rooms[threadIdx.x / 32];
    int row = (int)(task_of_warp() / a.k.dim[1]), kv_head = (int)(task_of_warp() % a.k.dim[1]);
    int group = (int)(a.q.dim[1] / a.k.dim[1]);
    float dk[ELEMENTS] = {}, dv[ELEMENTS] = {};

    if (row >= a.k.dim[0])
        return;
    load_own<T>(room->own[0], a.k, row, kv_head);
    load_own<T>(room->own[1], a.v, row, kv_head);
    __syncwarp();
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (int query = row; query < memory.end_query[row]; query += 32) {
            int own = query + gr_lane(), after = min(query + 32, memory.end_query[row]);

            if (own < after) {
                struct weights w = weigh(a, memory, own, head, dot<T>(room->own[0], a.q, own, head),
                                         dot<T>(room->own[1], a.d_o, own, head));

                room->weight[0][gr_lane()] = w.p;
                room->weight[1][gr_lane()] = w.ds;
            }
            __syncwarp();
            add_rows<T>(dv, room->weight[0], a.d_o, query, after, head);
            add_rows<T>(dk, room->weight[1], a.q, query, after, head);
            __syncwarp();
        }
    store_own<T>(a.dk, row, kv_head, dk, a.scale);
    store_own<T>(a.dv, row, kv_head, dv, 1.0f);
}

/* ---- what is called ---- */

typedef void kernel(struct gr_attention, struct gr_attention_memory);

/* Queues the kernel of the dtype, with so many lanes for each of the tasks. */
static void run(struct gr_device *dev, const char *op, const struct gr_attention *a,
                struct gr_attention_memory memory, kernel *f32, kernel *bf16, int64_t tasks,
                int lanes)
{
    kernel *chosen = a->q.dtype == GR_BF16 ? bf16 : f32;
    int64_t blocks = (tasks * lanes + GR_ATTENTION_THREADS - 1) / GR_ATTENTION_THREADS;

    gr_cuda_ok(dev, op,
               GR_LAUNCH(chosen, dim3((unsigned)blocks), dim3(GR_ATTENTION_THREADS), 0,
                         gr_cuda_of(dev)->stream, *a, memory));
}

void gr_cuda_attention_plain_forward(struct gr_device *dev, const struct gr_attention *a,
                                     struct gr_attention_memory memory)
{
    run(dev, "attention_forward", a, memory, forward<float>, forward<__nv_bfloat16>,
        a->q.dim[0] * a->q.dim[1], 32);
}

void gr_cuda_attention_delta(struct gr_device *dev, const struct gr_attention *a,
                             struct gr_attention_memory memory)
{
    run(dev, "attention_backward", a, memory, find_delta<float>, find_delta<__nv_bfloat16>,
        memory.rows * a->q.dim[1], DELTA_LANES);
}

void gr_cuda_attention_plain_backward(struct gr_device *dev, const struct gr_attention *a,
                                      struct gr_attention_memory memory)
{
    run(dev, "attention_backward", a, memory, query_gradients<float>,
        query_gradients<__nv_bfloat16>, a->q.dim[0] * a->q.dim[1], 32);
    run(dev, "attention_backward", a, memory, key_gradients<float>, key_gradients<__nv_bfloat16>,
        a->k.dim[0] * a->k.dim[1], 32);
}

void gr_cuda_attention_last(struct gr_device *dev, gr_tensor o, gr_tensor q, gr_tensor k,
                            gr_tensor v, float scale)
{
    static const char op[] = "attention_last";
    struct gr_attention a = {};

    a.o = o;
    a.q = q;
    a.k = k;
    a.v = v;
    a.scale = scale;
    if (!gr_cuda_attention_fits(dev, op, q))
        return;
    gr_cuda_ok(dev, op,
               GR_LAUNCH(q.dtype == GR_BF16 ? last<__nv_bfloat16> : last<float>,
                         dim3((unsigned)q.dim[1]), dim3(32 * LAST_WARPS), 0,
                         gr_cuda_of(dev)->stream, a));
}
