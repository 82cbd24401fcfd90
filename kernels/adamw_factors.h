/* The scalars of an AdamW update, for all backends: computed in f64 as Python does, then rounded to
 * f32 as torch does when it meets an f32 tensor. */
#ifndef GR_ADAMW_FACTORS_H
#define GR_ADAMW_FACTORS_H

#include "kernels/base/device_function.h"
#include "kernels/ops.h"

#include <math.h>

struct gr_adamw_factors {
    float decay; /* 1 - lr*wd */
    float lerp;  /* 1 - beta1, or minus beta1 when the lerp starts from g */
    bool from_g; /* torch's lerp starts from the nearer end */
    float beta2;
    float square;     /* 1 - beta2 */
    float correction; /* sqrt(1 - beta2^k) */
    float eps;
    float step_size; /* -lr / (1 - beta1^k) */
    float grad_scale;
};

/* What the scaled gradient is multiplied by; NaN: nothing may be changed.  A GPU's sqrt and
 * division of doubles round as the CPU's do. */
GR_DEVICE_FUNCTION float gr_clip_factor(double square_sum, double max_norm)
{
    const double factor = max_norm / (sqrt(square_sum) + 1e-6);

    if (!(square_sum < (double)INFINITY)) /* also where it is NaN */
        return NAN;
    return max_norm > 0 && factor < 1 ? (float)factor : 1.0f;
}

static inline struct gr_adamw_factors gr_adamw_factors_of(const struct gr_adamw *a,
                                                          const struct gr_adamw_span *s)
{
    struct gr_adamw_factors f;
    double k = (double)a->step;
    float weight = (float)(1.0 - a->beta1);

    f.decay = (float)(1.0 - s->learning_rate * s->weight_decay);
    f.from_g = weight >= 0.5f;
    f.lerp = f.from_g ? weight - 1.0f : weight;
    f.beta2 = (float)a->beta2;
    f.square = (float)(1.0 - a->beta2);
    f.correction = (float)sqrt(1.0 - pow(a->beta2, k));
    f.eps = (float)a->eps;
    f.step_size = (float)-(s->learning_rate / (1.0 - pow(a->beta1, k)));
    f.grad_scale = a->grad_scale;
    return f;
}

#endif
