/* Numbers into tensors and out of them, for those who compare what devices compute: the trials of
 * trial.h and trial_ops.h, and the tests.  Training does not use it: it allocates and waits. */
#ifndef GR_VALUES_H
#define GR_VALUES_H

#include "kernels/base/widen.h"
#include "kernels/device.h"

/* Element i of a host's copy: F32, BF16, I32 or F64. */
static inline double gr_value_get(const void *data, enum gr_dtype dtype, int64_t i)
{
    if (dtype == GR_F32)
        return (double)((const float *)data)[i];
    if (dtype == GR_BF16)
        return (double)gr_float_from_bf16(((const uint16_t *)data)[i]);
    return dtype == GR_I32 ? ((const int32_t *)data)[i] : ((const double *)data)[i];
}

static inline void gr_value_put(void *data, enum gr_dtype dtype, int64_t i, double value)
{
    if (dtype == GR_F32)
        ((float *)data)[i] = (float)value;
    else if (dtype == GR_BF16)
        ((uint16_t *)data)[i] = gr_float_to_bf16((float)value);
    else if (dtype == GR_I32)
        ((int32_t *)data)[i] = (int32_t)value;
    else
        ((double *)data)[i] = value;
}

/* Elements in row order.  A failure sticks in the device. */
void gr_values_write(struct gr_device *dev, gr_tensor t, const double *values);
/* Waits; the caller frees.  Zeros where the device has failed. */
double *gr_values_read(struct gr_device *dev, gr_tensor t);
/* low <= element < high, I32 rounded down: the same numbers wherever `number` is the same. */
void gr_values_random(struct gr_device *dev, gr_tensor t, uint32_t number, double low, double high);
/* Every byte ff, a NaN in each type of float: who does not write an element leaves it. */
void gr_values_poison(struct gr_device *dev, gr_tensor t);

/* Half of the distance between neighbours around a value: what storing it costs.  0 of types that
 * are not narrower than what ops compute in. */
double gr_value_half_unit(enum gr_dtype dtype, double value);

/* How far from the exact product of what it was given an op of this dtype may be besides, relative
 * to the largest element: where pairs of bf16 are multiplied, intermediate factors (softmax
 * weights, masked x, dlogits) are rounded to bf16 first, and on CUDA sums of several products
 * (base and adapter, linears of dx) after each of them.  0 elsewhere. */
double gr_device_factor_rounding(const struct gr_device *dev, enum gr_dtype dtype);

#endif
