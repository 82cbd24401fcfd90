/* Faults in what threads do together: barriers, warps, cp.async, ldmatrix. */
#include "self.h"

static __global__ void leaves_before_barrier(float *p, int)
{
    if (threadIdx.x > 5)
        return;
    __syncthreads(); // found
    p[threadIdx.x] = 0;
}

static __global__ void other_barrier(float *p, int)
{
    if (threadIdx.x > 5)
        __syncthreads(); // found
    else
        __syncthreads(); // found
    p[threadIdx.x] = 0;
}

static __global__ void barrier_and_warp(float *p, int)
{
    if (threadIdx.x % 2 == 0)
        __syncthreads(); // found
    else
        __syncwarp(); // found
    p[threadIdx.x] = 0;
}

static __global__ void no_syncwarp(float *p, int)
{
    GR_SHARED(float, room, [32]);

    room[threadIdx.x] = 0;
    __syncwarp();
    room[threadIdx.x] = p[threadIdx.x];      // found
    p[threadIdx.x] = room[31 - threadIdx.x]; // found
}

/* Lanes meet in a shuffle, but only __syncwarp orders memory. */
static __global__ void shuffle_for_syncwarp(float *p, int)
{
    GR_SHARED(float, room, [1]);

    if (threadIdx.x == 0)
        room[0] = 1;
    __syncwarp();
    if (threadIdx.x == 0)
        room[0] = 2;
    p[threadIdx.x] = __shfl_sync(~0u, p[threadIdx.x], 0);
    p[threadIdx.x] += room[0]; // found
}

static __global__ void not_in_own_mask(float *p, int)
{
    p[threadIdx.x] = __shfl_sync(0xffffu, p[threadIdx.x], 0); // found
}

static __global__ void reads_outside_mask(float *p, int)
{
    if (threadIdx.x < 16)
        p[threadIdx.x] = __shfl_xor_sync(0xffffu, p[threadIdx.x], 31); // found
}

static __global__ void mask_of_those_gone(float *p, int)
{
    if (threadIdx.x >= 30)
        return;
    p[threadIdx.x] = __shfl_xor_sync(~0u, p[threadIdx.x], 1); // found
}

static __global__ void different_operations(float *p, int)
{
    if (threadIdx.x < 16)
        p[threadIdx.x] = __shfl_xor_sync(~0u, p[threadIdx.x], 1); // found
    else
        p[threadIdx.x] = (float)__ballot_sync(~0u, 1); // found
}

static __global__ void reads_copy_too_early(float *p, int)
{
    GR_SHARED(float4, room, [32]);

    gr_cp_async16(&room[threadIdx.x], p + 4 * threadIdx.x);
    gr_cp_async_commit();
    p[threadIdx.x] = room[threadIdx.x].x; // found
}

static __global__ void waits_for_wrong_group(float *p, int)
{
    GR_SHARED(float4, room, [2][32]);

    for (int i = 0; i < 2; i++) {
        gr_cp_async16(&room[i][threadIdx.x], p + 4 * threadIdx.x);
        gr_cp_async_commit();
    }
    gr_cp_async_wait<1>();
    __syncthreads();
    p[threadIdx.x] = room[1][threadIdx.x].x; // found
}

static __global__ void copy_without_barrier(float *p, int)
{
    GR_SHARED(float4, room, [32]);

    room[threadIdx.x] = make_float4(0, 0, 0, 0);
    __syncthreads();
    gr_cp_async16(&room[threadIdx.x], p + 4 * threadIdx.x); // found
    gr_cp_async_commit();
    gr_cp_async_wait<0>();                     // found
    p[threadIdx.x] = room[31 - threadIdx.x].x; // found
}

/* The next tile is fetched while others still read this one. */
static __global__ void copy_over_what_is_read(float *p, float *sums)
{
    GR_SHARED(float4, room, [32]);

    for (int i = 0; i < 2; i++) {
        gr_cp_async16(&room[threadIdx.x], p + 4 * threadIdx.x); // found
        gr_cp_async_commit();
        gr_cp_async_wait<0>();
        __syncthreads();
        sums[threadIdx.x] = room[31 - threadIdx.x].x; // found
    }
}

static __global__ void misaligned_copy(float *p, int)
{
    GR_SHARED(float4, room, [32]);

    gr_cp_async16(&room[threadIdx.x], p + threadIdx.x); // found
}

static __global__ void misaligned_matrix(float *p, int)
{
    GR_SHARED(unsigned short, room, [32 * 9]);
    unsigned r[4];

    for (int i = 0; i < 9; i++)
        room[threadIdx.x * 9 + i] = 0;
    __syncthreads();
    gr_ldmatrix_x4(r, room + threadIdx.x * 9); // found
    p[threadIdx.x] = (float)r[0];
}

static __global__ void matrix_without_barrier(float *p, int)
{
    GR_SHARED(uint4, room, [32]);
    unsigned r[4];

    room[threadIdx.x] = make_uint4(0, 0, 0, 0);
    gr_ldmatrix_x4(r, room + threadIdx.x); // found
    p[threadIdx.x] = (float)r[0];
}

/* ---- the cases: one block of 32 threads each ---- */

#define CASE(kernel)                                                                               \
    static bool kernel##_case(cudaStream_t s)                                                      \
    {                                                                                              \
        GR_LAUNCH(kernel, 1, 32, 0, s, self_numbers(s, 256), 256);                                 \
        return self_wait(s);                                                                       \
    }
CASE(leaves_before_barrier)
CASE(other_barrier)
CASE(barrier_and_warp)
CASE(no_syncwarp)
CASE(shuffle_for_syncwarp)
CASE(not_in_own_mask)
CASE(reads_outside_mask)
CASE(mask_of_those_gone)
CASE(different_operations)
CASE(reads_copy_too_early)
CASE(waits_for_wrong_group)
CASE(copy_without_barrier)
CASE(misaligned_copy)
CASE(misaligned_matrix)
CASE(matrix_without_barrier)

static bool copy_over_what_is_read_case(cudaStream_t s)
{
    GR_LAUNCH(copy_over_what_is_read, 1, 32, 0, s, self_numbers(s, 128), self_memory(32));
    return self_wait(s);
}

const struct self_case warp_faults[] = {
    {"threads leave before a barrier", FOUND_BY_BOTH, "divergence", leaves_before_barrier_case},
    {"two barriers meet", FOUND_BY_BOTH, "divergence", other_barrier_case},
    {"barrier and warp wait for each other", FOUND_BY_BOTH, "deadlock", barrier_and_warp_case},
    {"missing __syncwarp", FOUND, "race", no_syncwarp_case},
    {"shuffle in place of __syncwarp", FOUND, "race", shuffle_for_syncwarp_case},
    {"lane outside its own mask", FOUND_BY_BOTH, "warp", not_in_own_mask_case},
    {"shuffle from outside the mask", FOUND_BY_BOTH, "shuffle", reads_outside_mask_case},
    {"mask with lanes that have left", FOUND_BY_BOTH, NULL, mask_of_those_gone_case},
    {"shuffle meets ballot", FOUND_BY_BOTH, "warp", different_operations_case},
    {"cp.async read too early", FOUND, "cp.async", reads_copy_too_early_case},
    {"cp.async of a later group", FOUND, "cp.async", waits_for_wrong_group_case},
    {"cp.async without a barrier", FOUND, NULL, copy_without_barrier_case},
    {"cp.async over what is read", FOUND, NULL, copy_over_what_is_read_case},
    {"misaligned cp.async", FOUND_BY_BOTH, "misaligned", misaligned_copy_case},
    {"misaligned ldmatrix", FOUND_BY_BOTH, "misaligned", misaligned_matrix_case},
    {"ldmatrix without a barrier", FOUND, "race", matrix_without_barrier_case},
    END_OF_CASES};
