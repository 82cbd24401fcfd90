/* Numbers into tensors and out of them.  See values.h. */
#include "kernels/values.h"

#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"

#include <math.h>
#include <string.h>

static void *host_copy(gr_tensor t)
{
    return gr_alloc(gr_tensor_count(t), (size_t)gr_dtype_bytes(t.dtype));
}

/* As one row where nothing lies between its rows: the CPU copies row by row. */
static gr_tensor in_one_row(gr_tensor t)
{
    return gr_tensor_is_contiguous(t) ? gr_tensor_2d(t.data, t.dtype, 1, gr_tensor_count(t)) : t;
}

void gr_values_write(struct gr_device *dev, gr_tensor t, const double *values)
{
    const int64_t count = gr_tensor_count(t);
    void *data = host_copy(t);

    for (int64_t i = 0; i < count; i++)
        gr_value_put(data, t.dtype, i, values[i]);
    gr_device_upload(dev, in_one_row(t), data);
    gr_free(data);
}

double *gr_values_read(struct gr_device *dev, gr_tensor t)
{
    const int64_t count = gr_tensor_count(t);
    double *values = GR_NEW_ARRAY(double, count);
    void *data = host_copy(t);

    gr_device_download(dev, data, in_one_row(t));
    if (gr_device_sync(dev) == GR_OK)
        for (int64_t i = 0; i < count; i++)
            values[i] = gr_value_get(data, t.dtype, i);
    gr_free(data);
    return values;
}

void gr_values_random(struct gr_device *dev, gr_tensor t, uint32_t number, double low, double high)
{
    const int64_t count = gr_tensor_count(t);
    void *data = host_copy(t);

    for (int64_t i = 0; i < count; i += 4) {
        const struct gr_philox_block block = gr_philox(7, (uint32_t)(i / 4), number, 0, 0);

        for (int64_t k = 0; k < 4 && i + k < count; k++) {
            const double value = low + (high - low) * (double)gr_uniform(block.word[k]);

            gr_value_put(data, t.dtype, i + k, t.dtype == GR_I32 ? floor(value) : value);
        }
    }
    gr_device_upload(dev, in_one_row(t), data);
    gr_free(data);
}

void gr_values_poison(struct gr_device *dev, gr_tensor t)
{
    void *data = host_copy(t);

    memset(data, 0xff, (size_t)(gr_tensor_count(t) * gr_dtype_bytes(t.dtype)));
    gr_device_upload(dev, in_one_row(t), data);
    gr_free(data);
}

double gr_value_half_unit(enum gr_dtype dtype, double value)
{
    enum { BF16_DIGITS = 8 };

    if (dtype != GR_BF16 || value == 0 || !isfinite(value))
        return 0;
    return ldexp(0.5, ilogb(value) - (BF16_DIGITS - 1));
}

double gr_device_factor_rounding(const struct gr_device *dev, enum gr_dtype dtype)
{
    const char *isa = gr_device_isa(dev);
    const bool rounds = strcmp(isa, "v4bf16") == 0 || strcmp(isa, "v4amx") == 0 ||
                        strcmp(gr_device_name(dev), "cuda") == 0;

    return dtype == GR_BF16 && rounds ? 0x1p-8 : 0;
}
