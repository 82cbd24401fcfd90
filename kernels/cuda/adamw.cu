/* The optimizer's update of the flat buffers, to the bit that of the CPU backend: nothing is
 * contracted but the two fused multiply-adds of torch's vectorised kernels (lerp, addcmul). */
#include "kernels/cuda/vector.cuh"

#include "kernels/adamw_factors.h"

enum {
    THREADS = 256,
    RUN = 4,
    BLOCK_ELEMENTS = THREADS * RUN,
    SPANS = 64 /* of a launch: they go by argument, of which there are 4 KB */
};

struct adamw_span {
    int64_t begin, end;
    void *copy; /* NULL: none */
    int copy_is_bf16;
    unsigned first_block; /* spans have whole blocks, one after the other */
    float decay, step_size;
};

struct adamw_spans {
    int count;
    float lerp, beta2, square, correction, eps, grad_scale; /* what all spans have in common */
    int from_g;
    struct adamw_span span[SPANS];
};

static __global__ void find_clip(float *clip, const double *square_sum, double max_norm)
{
    *clip = square_sum == NULL ? 1.0f : gr_clip_factor(*square_sum, max_norm);
}

static __global__ void update(float *param, float *moment1, float *moment2, const float *grad,
                              const float *clip, const struct adamw_spans s)
{
    const struct adamw_span &span = gr_find_entry(s.span, s.count);
    const int64_t at = span.begin + (int64_t)(blockIdx.x - span.first_block) * BLOCK_ELEMENTS +
                       (int64_t)threadIdx.x * RUN;
    const int64_t count = span.end - at;
    const float factor = *clip;
    float p[RUN], m[RUN], v[RUN], g[RUN];

    if (count <= 0 || factor != factor)
        return;
    const uint4 p_bits = gr_fetch<RUN>(param + at, count);
    const uint4 m_bits = gr_fetch<RUN>(moment1 + at, count);
    const uint4 v_bits = gr_fetch<RUN>(moment2 + at, count);
    const uint4 g_bits = gr_fetch<RUN>(grad + at, count);

    gr_unpack(p, p_bits);
    gr_unpack(m, m_bits);
    gr_unpack(v, v_bits);
    gr_unpack(g, g_bits);
    for (int i = 0; i < RUN; i++) {
        const float decayed = __fmul_rn(p[i], span.decay);

        g[i] = __fmul_rn(__fmul_rn(g[i], s.grad_scale), factor);
        m[i] = __fmaf_rn(s.lerp, __fsub_rn(g[i], m[i]), s.from_g ? g[i] : m[i]);
        v[i] = __fmaf_rn(__fmul_rn(s.square, g[i]), g[i], __fmul_rn(v[i], s.beta2));
        p[i] = __fadd_rn(decayed,
                         __fdiv_rn(__fmul_rn(span.step_size, m[i]),
                                   __fadd_rn(__fdiv_rn(__fsqrt_rn(v[i]), s.correction), s.eps)));
    }
    gr_write(param + at, p, count);
    gr_write(moment1 + at, m, count);
    gr_write(moment2 + at, v, count);
    if (span.copy == NULL)
        return;
    if (span.copy_is_bf16)
        gr_write((__nv_bfloat16 *)span.copy + (at - span.begin), p, count);
    else
        gr_write((float *)span.copy + (at - span.begin), p, count);
}

/* Adds a span; the blocks of the launch so far. */
static unsigned add_span(struct adamw_spans *s, unsigned blocks, const struct gr_adamw *a,
                         const struct gr_adamw_span *from)
{
    const struct gr_adamw_factors f = gr_adamw_factors_of(a, from);
    struct adamw_span *to = &s->span[s->count++];

    s->lerp = f.lerp;
    s->from_g = f.from_g;
    s->beta2 = f.beta2;
    s->square = f.square;
    s->correction = f.correction;
    s->eps = f.eps;
    s->grad_scale = f.grad_scale;
    to->begin = from->begin;
    to->end = from->end;
    to->copy = from->copy.data;
    to->copy_is_bf16 = from->copy.dtype == GR_BF16;
    to->first_block = blocks;
    to->decay = f.decay;
    to->step_size = f.step_size;
    return blocks + (unsigned)((from->end - from->begin + BLOCK_ELEMENTS - 1) / BLOCK_ELEMENTS);
}

void gr_cuda_adamw(struct gr_device *dev, const struct gr_adamw *a)
{
    struct gr_cuda *c = gr_cuda_of(dev);

    gr_cuda_ok(dev, "adamw",
               GR_LAUNCH(find_clip, dim3(1), dim3(1), 0, c->stream, c->clip,
                         (const double *)a->square_sum.data, a->max_norm));
    for (int i = 0; i < a->spans;) {
        struct adamw_spans s;
        unsigned blocks = 0;

        for (s.count = 0; i < a->spans && s.count < SPANS; i++)
            if (a->span[i].begin < a->span[i].end)
                blocks = add_span(&s, blocks, a, &a->span[i]);
        if (blocks > 0)
            gr_cuda_ok(dev, "adamw",
                       GR_LAUNCH(update, dim3(blocks), dim3(THREADS), 0, c->stream,
                                 (float *)a->param.data, (float *)a->moment1.data,
                                 (float *)a->moment2.data, (const float *)a->grad.data,
                                 (const float *)c->clip, s));
    }
}
