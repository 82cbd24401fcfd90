/* The fragments of mma and ldmatrix, element by element, against the formulas of the PTX ISA
 * (sections "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix").  The
 * formulas are written down here once more, apart from the emulator's. */
#include "self.h"

enum { M = 16, N = 8, K = 16 };

static __device__ unsigned pair(const unsigned short *p, int step)
{
    return p[0] | (unsigned)p[step] << 16;
}

/* a (16, 16) and b (16, 8) bf16, row-major; c (16, 8). */
static __global__ void product(float *c, const unsigned short *a, const unsigned short *b,
                               int wrong)
{
    const int group = (int)threadIdx.x >> 2, in_group = (int)threadIdx.x & 3;
    unsigned fragment_a[4], fragment_b[2];
    float d[4];

    /* a_i: row = groupID for i < 2 and 4 <= i < 6, else groupID + 8;
     *      column = threadID_in_group * 2 + (i & 1), + 8 for i >= 4 */
    for (int i = 0; i < 8; i += 2) {
        const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
        const int column = in_group * 2 + (i >= 4 ? 8 : 0);

        fragment_a[i / 2] = pair(a + row * K + column, 1);
    }
    /* b_i: row = threadID_in_group * 2 + (i & 1), + 8 for i >= 2;  column = groupID */
    for (int i = 0; i < 4; i += 2) {
        const int row = in_group * 2 + (i >= 2 ? 8 : 0);

        fragment_b[i / 2] = pair(b + row * N + group, N);
    }
    /* c_i: row = groupID for i < 2, else groupID + 8;  column = threadID_in_group * 2 + (i & 1) */
    for (int i = 0; i < 4; i++)
        d[i] = c[(i < 2 ? group : group + 8) * N + in_group * 2 + (i & 1)];
    if (wrong == 1) { /* the two middle registers of a are easily taken for each other */
        const unsigned other = fragment_a[1];

        fragment_a[1] = fragment_a[2];
        fragment_a[2] = other;
    }
    gr_mma_bf16(d, fragment_a, fragment_b[0], fragment_b[1]);
    for (int i = 0; i < 4; i++)
        c[(i < 2 ? group : group + 8) * N + in_group * 2 + (i & 1)] = d[i];
}

/* matrix (32, 8) of 16 bits, which is four of (8, 8); out [4 forms][32 lanes][4]. */
static __global__ void load(unsigned *out, const uint4 *matrix, int wrong)
{
    GR_SHARED(uint4, rows, [32]);
    const int lane = (int)threadIdx.x;
    unsigned four[4], two[2];

    rows[lane] = matrix[lane];
    __syncthreads();
    gr_ldmatrix_x4(four, rows + lane);
    if (wrong == 1)
        gr_ldmatrix_x4_transposed(four, rows + lane);
    for (int i = 0; i < 4; i++)
        out[lane * 4 + i] = four[i];
    gr_ldmatrix_x4_transposed(four, rows + lane);
    for (int i = 0; i < 4; i++)
        out[(32 + lane) * 4 + i] = four[i];
    gr_ldmatrix_x2(two, rows + lane);
    for (int i = 0; i < 4; i++)
        out[(64 + lane) * 4 + i] = i < 2 ? two[i] : 0;
    gr_ldmatrix_x2_transposed(two, rows + lane);
    for (int i = 0; i < 4; i++)
        out[(96 + lane) * 4 + i] = i < 2 ? two[i] : 0;
}

/* bf16 of small integers: 3 k - 40, exactly, and the products' sums are exact too */
static unsigned short bf16_of(int value)
{
    return (unsigned short)(__float_as_uint((float)value) >> 16);
}

static int small(int i)
{
    return i * 37 % 23 - 11;
}

static void *upload(cudaStream_t s, const void *from, size_t size)
{
    void *host = NULL, *device = NULL;

    cudaMallocHost(&host, size);
    cudaMalloc(&device, size);
    memcpy(host, from, size);
    cudaMemcpyAsync(device, host, size, cudaMemcpyHostToDevice, s);
    cudaStreamSynchronize(s);
    return device;
}

static bool product_is_right(cudaStream_t s, int wrong)
{
    unsigned short a[M * K], b[K * N];
    float c[M * N], *found;

    for (int i = 0; i < M * K; i++)
        a[i] = bf16_of(small(i));
    for (int i = 0; i < K * N; i++)
        b[i] = bf16_of(small(5 * i + 2));
    for (int i = 0; i < M * N; i++)
        c[i] = (float)i;
    float *device = (float *)upload(s, c, sizeof c);
    GR_LAUNCH(product, 1, 32, 0, s, device, (unsigned short *)upload(s, a, sizeof a),
              (unsigned short *)upload(s, b, sizeof b), wrong);
    found = self_fetch(s, device, M * N);
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            int sum = i * N + j;

            for (int k = 0; k < K; k++)
                sum += small(i * K + k) * small(5 * (k * N + j) + 2);
            if (found[i * N + j] != (float)sum)
                return false;
        }
    }
    return true;
}

/* Each row of each matrix is 8 elements that say matrix, row and column. */
static unsigned element(int matrix, int row, int column)
{
    return (unsigned)(matrix << 8 | row << 4 | column);
}

/* "row i / 4, elements 2 (i % 4) and the next, of lane i"; .trans: of columns in place of rows */
static unsigned expected(int form, int lane, int matrix)
{
    const int row = lane / 4, column = 2 * (lane % 4);

    if (form >= 2 && matrix >= 2)
        return 0; /* .x2 */
    if (form % 2 == 0)
        return element(matrix, row, column) | element(matrix, row, column + 1) << 16;
    return element(matrix, column, row) | element(matrix, column + 1, row) << 16;
}

static bool load_is_right(cudaStream_t s, int wrong)
{
    unsigned short rows[32][8];
    unsigned *out = (unsigned *)self_memory(4 * 32 * 4);
    const float *found;

    for (int i = 0; i < 32; i++) {
        for (int j = 0; j < 8; j++)
            rows[i][j] = (unsigned short)element(i / 8, i % 8, j);
    }
    GR_LAUNCH(load, 1, 32, 0, s, out, (uint4 *)upload(s, rows, sizeof rows), wrong);
    found = self_fetch(s, out, 4 * 32 * 4);
    for (int i = 0; i < 4 * 32 * 4; i++) {
        if (__float_as_uint(found[i]) != expected(i / 128, i / 4 % 32, i % 4))
            return false;
    }
    return true;
}

static bool right_product(cudaStream_t s)
{
    return product_is_right(s, 0);
}

static bool wrong_product(cudaStream_t s)
{
    return product_is_right(s, 1);
}

static bool right_load(cudaStream_t s)
{
    return load_is_right(s, 0);
}

static bool wrong_load(cudaStream_t s)
{
    return load_is_right(s, 1);
}

const struct self_case fragments[] = {{"mma as in the PTX ISA", SILENT, NULL, right_product},
                                      {"mma with registers exchanged", WRONG, NULL, wrong_product},
                                      {"ldmatrix as in the PTX ISA", SILENT, NULL, right_load},
                                      {"ldmatrix transposed by mistake", WRONG, NULL, wrong_load},
                                      END_OF_CASES};
