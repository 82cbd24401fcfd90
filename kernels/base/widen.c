/* Runs of elements widened to f32 and narrowed from it.  See widen.h. */
#include "kernels/base/widen.h"

bool gr_widen(float *to, const void *from, enum gr_dtype dtype, int64_t count)
{
    const unsigned char *bytes = from;
    uint16_t half = 0;

    switch (dtype) {
    case GR_F32:
        memcpy(to, from, (size_t)count * sizeof *to);
        return true;
    case GR_F16:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&half, bytes + i * (int64_t)sizeof half, sizeof half);
            to[i] = gr_float_from_f16(half);
        }
        return true;
    case GR_BF16:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&half, bytes + i * (int64_t)sizeof half, sizeof half);
            to[i] = gr_float_from_bf16(half);
        }
        return true;
    default:
        return false;
    }
}

bool gr_narrow(void *to, const float *from, enum gr_dtype dtype, int64_t count)
{
    unsigned char *bytes = to;
    uint16_t half = 0;

    switch (dtype) {
    case GR_F32:
        memcpy(to, from, (size_t)count * sizeof *from);
        return true;
    case GR_F16:
        for (int64_t i = 0; i < count; i++) {
            half = gr_float_to_f16(from[i]);
            memcpy(bytes + i * (int64_t)sizeof half, &half, sizeof half);
        }
        return true;
    case GR_BF16:
        for (int64_t i = 0; i < count; i++) {
            half = gr_float_to_bf16(from[i]);
            memcpy(bytes + i * (int64_t)sizeof half, &half, sizeof half);
        }
        return true;
    default:
        return false;
    }
}
