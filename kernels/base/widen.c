/* Runs of elements widened to f32.  See widen.h. */
#include "kernels/base/widen.h"

bool gr_widen(float *to, const void *from, enum gr_dtype dtype, int64_t count)
{
    const uint16_t *half = from;

    switch (dtype) {
    case GR_F32:
        memcpy(to, from, (size_t)count * sizeof *to);
        return true;
    case GR_F16:
        for (int64_t i = 0; i < count; i++)
            to[i] = gr_float_from_f16(half[i]);
        return true;
    case GR_BF16:
        for (int64_t i = 0; i < count; i++)
            to[i] = gr_float_from_bf16(half[i]);
        return true;
    default:
        return false;
    }
}
