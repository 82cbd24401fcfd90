/* The optimizer's update of the flat buffers, in torch's order of operations.  The two fused
 * multiply-adds are those of torch's vectorised kernels (lerp, addcmul): the moments equal torch's
 * bit for bit on CPUs with AVX2; the parameters do up to torch's sqrt, which is not exact. */
#include "kernels/adamw_factors.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stored.h"

#include <math.h>
#include <string.h>

static void update(float *restrict p, float *restrict m, float *restrict v, const float *restrict g,
                   int64_t n, const struct gr_adamw_factors *f, float clip)
{
    for (int64_t i = 0; i < n; i++) {
        float decayed = p[i] * f->decay, grad = g[i] * f->grad_scale * clip;

        m[i] = fmaf(f->lerp, grad - m[i], f->from_g ? grad : m[i]);
        v[i] = fmaf(f->square * grad, grad, v[i] * f->beta2);
        p[i] = decayed + f->step_size * m[i] / (sqrtf(v[i]) / f->correction + f->eps);
    }
}

static void update_span(struct gr_device *dev, const struct gr_adamw *a,
                        const struct gr_adamw_span *s, float clip)
{
    struct gr_adamw_factors f = gr_adamw_factors_of(a, s);
    float *p = a->param.data, *m = a->moment1.data, *v = a->moment2.data;
    const float *g = a->grad.data;

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = s->begin; i < s->end; i += GR_CHUNK) {
        int64_t n = s->end - i < GR_CHUNK ? s->end - i : GR_CHUNK;

        update(p + i, m + i, v + i, g + i, n, &f, clip);
        if (!gr_tensor_is_none(s->copy))
            gr_store_run(s->copy, 0, i - s->begin, n, p + i);
    }
}

void GR_CPU(adamw)(struct gr_device *dev, const struct gr_adamw *a)
{
    float clip = gr_tensor_is_none(a->square_sum)
                     ? 1.0f
                     : gr_clip_factor(*(const double *)a->square_sum.data, a->max_norm);

    for (int i = 0; i < a->spans && !isnan(clip); i++)
        update_span(dev, a, &a->span[i], clip);
}
