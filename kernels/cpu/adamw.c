/* The optimizer's update of the flat buffers, in torch's order of operations.  The two fused
 * multiply-adds are those of torch's vectorised kernels (lerp, addcmul): the moments equal torch's
 * bit for bit on CPUs with AVX2; the parameters do up to torch's sqrt, which is not exact. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stored.h"

#include <math.h>
#include <string.h>

/* The scalars of a span: computed in f64 as Python does, then rounded to f32 as torch does when it
 * meets an f32 tensor. */
struct factors {
    float decay; /* 1 - lr*wd */
    float lerp;  /* 1 - beta1, or minus beta1 when the lerp starts from g */
    bool from_g; /* torch's lerp starts from the nearer end */
    float beta2;
    float square;     /* 1 - beta2 */
    float correction; /* sqrt(1 - beta2^k) */
    float eps;
    float step_size; /* -lr / (1 - beta1^k) */
};

static struct factors factors_of(const struct gr_adamw *a, const struct gr_adamw_span *s)
{
    double k = (double)a->step;
    float weight = (float)(1.0 - a->beta1);
    bool from_g = weight >= 0.5f;

    return (struct factors){
        .decay = (float)(1.0 - s->learning_rate * s->weight_decay),
        .lerp = from_g ? weight - 1.0f : weight,
        .from_g = from_g,
        .beta2 = (float)a->beta2,
        .square = (float)(1.0 - a->beta2),
        .correction = (float)sqrt(1.0 - pow(a->beta2, k)),
        .eps = (float)a->eps,
        .step_size = (float)-(s->learning_rate / (1.0 - pow(a->beta1, k))),
    };
}

static void update(float *restrict p, float *restrict m, float *restrict v, const float *restrict g,
                   int64_t n, const struct factors *f)
{
    for (int64_t i = 0; i < n; i++) {
        float decayed = p[i] * f->decay;

        m[i] = fmaf(f->lerp, g[i] - m[i], f->from_g ? g[i] : m[i]);
        v[i] = fmaf(f->square * g[i], g[i], v[i] * f->beta2);
        p[i] = decayed + f->step_size * m[i] / (sqrtf(v[i]) / f->correction + f->eps);
    }
}

static void update_span(struct gr_device *dev, const struct gr_adamw *a,
                        const struct gr_adamw_span *s)
{
    struct factors f = factors_of(a, s);
    float *p = a->param.data, *m = a->moment1.data, *v = a->moment2.data;
    const float *g = a->grad.data;

#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = s->begin; i < s->end; i += GR_CHUNK) {
        int64_t n = s->end - i < GR_CHUNK ? s->end - i : GR_CHUNK;

        update(p + i, m + i, v + i, g + i, n, &f);
        if (!gr_tensor_is_none(s->copy))
            gr_store_run(s->copy, 0, i - s->begin, n, p + i);
    }
}

void GR_CPU(adamw)(struct gr_device *dev, const struct gr_adamw *a)
{
    for (int i = 0; i < a->spans; i++)
        update_span(dev, a, &a->span[i]);
}
