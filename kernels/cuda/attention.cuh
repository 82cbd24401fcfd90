/* What the kernels of attention share: who sees whom, the workspace, and, for the ones on tensor
 * cores, tiles of bf16 in shared memory and products of them.
 *
 * attention.cu and attention_backward.cu are those on tensor cores; attention_plain.cu has what
 * they leave: f32, odd head dimensions, rows that are not aligned. */
#ifndef GR_CUDA_ATTENTION_CUH
#define GR_CUDA_ATTENTION_CUH

#include "kernels/cuda/cuda.h"

enum {
    GR_ATTENTION_THREADS = 128,  /* of a block: four warps */
    GR_ATTENTION_ROWS = 64,      /* queries or keys a block owns, or twice that; see segments */
    GR_ATTENTION_MULTIPLE = 128, /* of rows that the workspace knows about */
    GR_ATTENTION_HEAD_DIM = 256, /* the most */
    GR_ATTENTION_PAD = 8         /* elements after a row of a tile: eight rows, eight banks */
};

/* The workspace.  Query i sees the keys [first_key[i], i]; key i is seen by the queries
 * [i, end_query[i]).  Rows outside documents see nothing and are not seen.  Both never fall from a
 * row to the next: so the first row of a tile says where its keys begin, and the last where its
 * queries end. */
struct gr_attention_memory {
    int *first_key, *end_query; /* [rows] */
    float *lse2, *delta;        /* (NH, rows), backward: lse / ln 2, and rowsum(d_o * o) */
    int rows;                   /* n, a multiple of GR_ATTENTION_MULTIPLE */
};

/* False: the heads are too large and the device failed. */
bool gr_cuda_attention_fits(struct gr_device *dev, const char *op, gr_tensor q);
/* Carves it and queues the kernel that fills first_key and end_query.  room: what is left of the
 * workspace. */
struct gr_attention_memory gr_cuda_attention_begin(struct gr_device *dev, const char *op,
                                                   const struct gr_attention *a,
                                                   struct gr_arena *room);
/* Queues the kernel that fills lse2 and delta. */
void gr_cuda_attention_delta(struct gr_device *dev, const struct gr_attention *a,
                             struct gr_attention_memory memory);
/* Both directions without tensor cores. */
void gr_cuda_attention_plain_forward(struct gr_device *dev, const struct gr_attention *a,
                                     struct gr_attention_memory memory);
void gr_cuda_attention_plain_backward(struct gr_device *dev, const struct gr_attention *a,
                                      struct gr_attention_memory memory);

/* Whether 16 bytes of a row can be moved at once. */
static inline bool gr_attention_aligned(gr_tensor t)
{
    return (uintptr_t)t.data % 16 == 0 && t.stride * gr_dtype_bytes(t.dtype) % 16 == 0;
}

template <class T>
static __device__ __forceinline__ T *gr_head_row(const gr_tensor &t, int64_t row, int head)
{
    return (T *)t.data + row * t.stride + head * t.dim[2];
}

static __device__ __forceinline__ int gr_kv_head(const struct gr_attention &a, int head)
{
    return head / (int)(a.q.dim[1] / a.k.dim[1]);
}

/* ---- on tensor cores ---- */

/* log2(e): exp(x) is exp2(x * GR_LOG2_E), which is what the hardware has. */
static constexpr float GR_LOG2_E = 1.4426950408889634f;
static constexpr float GR_LN_2 = 0.6931471805599453f;

/* Results of m16n8k16: lane has rows lane / 4 and lane / 4 + 8 and columns 2 (lane % 4) and the
 * next; element e lies in the second row if e / 2, in the second column if e % 2. */
static __device__ __forceinline__ int gr_lane()
{
    return (int)threadIdx.x % 32;
}

static __device__ __forceinline__ int gr_fragment_row(int e)
{
    return gr_lane() / 4 + e / 2 * 8;
}

static __device__ __forceinline__ int gr_fragment_column(int e)
{
    return gr_lane() % 4 * 2 + e % 2;
}

static __device__ __forceinline__ unsigned gr_pack_bf16(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);

    return *reinterpret_cast<unsigned *>(&pair);
}

/* Elements from one row of a tile to the next. */
template <int head_dim> static constexpr int gr_tile_stride = head_dim + GR_ATTENTION_PAD;

/* Rows [row, row + rows) of a head on their way into shared memory; zeros from row n on. */
template <int rows, int head_dim>
static __device__ __forceinline__ void gr_tile_fetch(__nv_bfloat16 *tile, const gr_tensor &t,
                                                     int row, int head)
{
    constexpr int pieces = head_dim / 8; /* of 16 bytes, in a row */
    int r = (int)threadIdx.x / pieces, column = (int)threadIdx.x % pieces * 8;
    int n = (int)t.dim[0];

#pragma unroll 2
    for (; r < rows; r += GR_ATTENTION_THREADS / pieces) {
        bool is_inside = row + r < n;

        gr_cp_async16(tile + r * gr_tile_stride<head_dim> + column,
                      gr_head_row<__nv_bfloat16>(t, is_inside ? row + r : 0, head) + column,
                      is_inside ? 16 : 0);
    }
}

/* c (16 m, columns) += a (16 m, head_dim) b^T, of tiles with a row per row and per column of c. */
template <int m, int columns, int head_dim>
static __device__ __forceinline__ void
gr_tile_product(float (&c)[m][columns / 8][4], const __nv_bfloat16 *a, const __nv_bfloat16 *b)
{
    constexpr int stride = gr_tile_stride<head_dim>;
    int lane = gr_lane();

#pragma unroll 2
    for (int k = 0; k < head_dim; k += 16) {
        unsigned left[m][4];

#pragma unroll
        for (int i = 0; i < m; i++)
            gr_ldmatrix_x4(left[i], a + (i * 16 + lane % 16) * stride + k + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < columns / 8; j += 2) {
            unsigned right[4];

            gr_ldmatrix_x4(right,
                           b + (j * 8 + lane / 16 * 8 + lane % 8) * stride + k + lane / 8 % 2 * 8);
#pragma unroll
            for (int i = 0; i < m; i++) {
                gr_mma_bf16(c[i][j], left[i], right[0], right[1]);
                gr_mma_bf16(c[i][j + 1], left[i], right[2], right[3]);
            }
        }
    }
}

/* Factors made of the results of gr_tile_product: pairs of bf16, that of element 0 first. */
template <int m, int columns> struct gr_weights {
    unsigned pair[m][columns / 8][2];
};

/* c (16 m, head_dim) += w (16 m, rows) b for a tile b of `rows` rows.  The pairs of results lie as
 * those of left operands do. */
template <int m, int rows, int head_dim>
static __device__ __forceinline__ void gr_weight_product(float (&c)[m][head_dim / 8][4],
                                                         const struct gr_weights<m, rows> &w,
                                                         const __nv_bfloat16 *b)
{
    constexpr int stride = gr_tile_stride<head_dim>;
    int lane = gr_lane();

#pragma unroll
    for (int k = 0; k < rows / 8; k += 2) {
        unsigned left[m][4];

#pragma unroll
        for (int i = 0; i < m; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                left[i][e] = w.pair[i][k + e / 2][e % 2];
#pragma unroll
        for (int j = 0; j < head_dim / 8; j += 2) {
            unsigned right[4];

            gr_ldmatrix_x4_transposed(right,
                                      b + (k * 8 + lane % 16) * stride + j * 8 + lane / 16 * 8);
#pragma unroll
            for (int i = 0; i < m; i++) {
                gr_mma_bf16(c[i][j], left[i], right[0], right[1]);
                gr_mma_bf16(c[i][j + 1], left[i], right[2], right[3]);
            }
        }
    }
}

/* Rows [row, row + 16 m) of a head of t <- c, each row by its scale, through a piece of a tile that
 * this warp alone still reads: then 16 bytes are stored at once. */
template <int m, int head_dim>
static __device__ __forceinline__ void
gr_tile_store(const gr_tensor &t, int row, int head, __nv_bfloat16 *tile,
              const float (&c)[m][head_dim / 8][4], const float (&scale)[m][2])
{
    constexpr int stride = gr_tile_stride<head_dim>, pieces = head_dim / 8;
    int n = (int)t.dim[0];

    __syncwarp();
#pragma unroll
    for (int i = 0; i < m; i++)
#pragma unroll
        for (int j = 0; j < head_dim / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e += 2)
                *reinterpret_cast<unsigned *>(tile + (i * 16 + gr_fragment_row(e)) * stride +
                                              j * 8 + gr_fragment_column(e)) =
                    gr_pack_bf16(c[i][j][e] * scale[i][e / 2], c[i][j][e + 1] * scale[i][e / 2]);
    __syncwarp();
    for (int i = gr_lane(); i < 16 * m * pieces; i += 32) {
        int r = i / pieces, column = i % pieces * 8;

        if (row + r < n)
            *reinterpret_cast<int4 *>(gr_head_row<__nv_bfloat16>(t, row + r, head) + column) =
                *reinterpret_cast<const int4 *>(tile + r * stride + column);
    }
}

#endif
