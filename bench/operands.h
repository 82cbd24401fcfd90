/* Operands for the programs of bench/ that multiply and pass over them: numbers of [-0.5, 0.5).
 * What lies on a GPU is made by the host and uploaded, a block of a prime number of elements over
 * and over: rows differ. */
#ifndef GR_BENCH_OPERANDS_H
#define GR_BENCH_OPERANDS_H

#include "kernels/base/alloc.h"
#include "kernels/base/arena.h"
#include "kernels/base/philox.h"
#include "kernels/base/widen.h"
#include "kernels/device.h"

static inline void gr_bench_fill(void *values, enum gr_dtype dtype, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float value = gr_uniform((uint32_t)i * 2654435761u) - 0.5f;

        gr_narrow((char *)values + i * gr_dtype_bytes(dtype), &value, dtype, 1);
    }
}

/* On the CPU. */
static inline gr_tensor gr_bench_values(struct gr_arena *arena, enum gr_dtype dtype, int64_t rows,
                                        int64_t columns)
{
    gr_tensor t = gr_arena_tensor_2d(arena, dtype, rows, columns);

    gr_bench_fill(t.data, dtype, rows * columns);
    return t;
}

/* On any device; nothing is filled while the arena measures. */
static inline gr_tensor gr_bench_operand(struct gr_device *dev, struct gr_arena *arena,
                                         enum gr_dtype dtype, int64_t rows, int64_t columns)
{
    enum { BLOCK = 1048573 };
    gr_tensor t = gr_arena_tensor_2d(arena, dtype, rows, columns);
    int64_t count = rows * columns, block = count < BLOCK ? count : BLOCK;
    int64_t size = gr_dtype_bytes(dtype);
    void *values;

    if (gr_arena_measures(arena))
        return t;
    if (gr_device_uses_host_memory(dev)) {
        gr_bench_fill(t.data, dtype, count);
        return t;
    }
    values = gr_alloc(block, (size_t)size);
    gr_bench_fill(values, dtype, block);
    for (int64_t done = 0; done < count; done += block) {
        int64_t piece = count - done < block ? count - done : block;

        gr_device_upload(dev, gr_tensor_1d((char *)t.data + done * size, dtype, piece), values);
    }
    gr_free(values);
    return t;
}

#endif
