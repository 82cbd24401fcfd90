/* What a tensor stores and what an op computes with, for the files of kernels/cpu.
 *
 * Every op computes in f32.  Memory that holds f32 is used where it lies; bf16 is widened into
 * scratch memory first (exact), and a result is rounded once, to the nearest with ties to even,
 * when it is stored.  A run is a piece of a row, a tile a piece of a matrix.  Loops that touch an
 * element once need no scratch: gr_get and gr_put. */
#ifndef GR_CPU_STORED_H
#define GR_CPU_STORED_H

#include "kernels/base/widen.h"
#include "kernels/cpu/rows.h"

enum { GR_RUN = 512 /* elements of a row an element-wise op takes at a time; of all lanes */ };

static inline void *gr_element(gr_tensor t, int64_t row, int64_t column)
{
    return (char *)t.data + (row * t.stride + column) * (t.dtype == GR_BF16 ? 2 : 4);
}

/* Where to compute elements [begin, begin + n) of a row: in place, or in the scratch. */
static inline float *gr_place_run(gr_tensor t, int64_t row, int64_t begin, float *scratch)
{
    return t.dtype == GR_BF16 ? scratch : (float *)gr_element(t, row, begin);
}

/* Those elements as f32. */
static inline float *gr_load_run(gr_tensor t, int64_t row, int64_t begin, int64_t n, float *scratch)
{
    const uint16_t *from = gr_element(t, row, begin);

    if (t.dtype != GR_BF16)
        return gr_element(t, row, begin);
    for (int64_t i = 0; i < n; i++)
        scratch[i] = gr_float_from_bf16(from[i]);
    return scratch;
}

/* Puts a run into the tensor; nothing to do where it was computed in place. */
static inline void gr_store_run(gr_tensor t, int64_t row, int64_t begin, int64_t n,
                                const float *run)
{
    uint16_t *to = gr_element(t, row, begin);

    if (t.dtype != GR_BF16) {
        if (gr_element(t, row, begin) != run)
            memcpy(to, run, (size_t)n * sizeof *run);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = gr_float_to_bf16(run[i]);
}

/* Element i of a row in memory, for loops that read and write each element once: where they are
 * inlined `dtype` is a constant, and the loop over i becomes one of vectors. */
static inline __attribute__((always_inline)) float gr_get(const void *row, int64_t i,
                                                          const enum gr_dtype dtype)
{
    return dtype == GR_BF16 ? gr_float_from_bf16(((const uint16_t *)row)[i])
                            : ((const float *)row)[i];
}

static inline __attribute__((always_inline)) void gr_put(void *row, int64_t i, float value,
                                                         const enum gr_dtype dtype)
{
    if (dtype == GR_BF16)
        ((uint16_t *)row)[i] = gr_float_to_bf16(value);
    else
        ((float *)row)[i] = value;
}

/* Elements [begin, begin + n) of a row as f32, n <= GR_RUN. */
static inline __attribute__((always_inline)) const float *gr_get_run(const void *row, int64_t begin,
                                                                     int64_t n,
                                                                     float scratch[GR_RUN],
                                                                     const enum gr_dtype dtype)
{
    if (dtype != GR_BF16)
        return (const float *)row + begin;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        scratch[i] = gr_get(row, begin + i, dtype);
    return scratch;
}

/* A function of rows whose last parameter is such a dtype. */
#define GR_ROWS static inline __attribute__((always_inline)) void
#define GR_ROWS_OF(dtype, name, ...)                                                               \
    do {                                                                                           \
        if ((dtype) == GR_BF16)                                                                    \
            name(__VA_ARGS__, GR_BF16);                                                            \
        else                                                                                       \
            name(__VA_ARGS__, GR_F32);                                                             \
    } while (0)

/* The same for matrices; tiles in the scratch have no gaps between their rows. */
static inline gr_tensor gr_place_tile(gr_tensor t, float *scratch)
{
    return t.dtype == GR_BF16 ? gr_tensor_2d(scratch, GR_F32, t.dim[0], t.dim[1]) : t;
}

static inline gr_tensor gr_load_tile(gr_tensor t, float *scratch)
{
    for (int64_t i = 0; i < t.dim[0] && t.dtype == GR_BF16; i++)
        gr_load_run(t, i, 0, t.dim[1], scratch + i * t.dim[1]);
    return gr_place_tile(t, scratch);
}

static inline void gr_store_tile(gr_tensor t, gr_tensor tile)
{
    for (int64_t i = 0; i < t.dim[0]; i++)
        gr_store_run(t, i, 0, t.dim[1], gr_row_f32(tile, i));
}

#endif
