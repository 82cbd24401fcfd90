/* The table of rotations: one for all devices, so that every device turns by the same angles.
 * Computed in f32 where transformers does (modeling_rope_utils.py).  Declared in arch.h. */
#include "trainer/model/arch.h"

#include "kernels/base/alloc.h"

#include <math.h>

static const double two_pi = 6.283185307179586476925286766559;

static float base_frequency(const struct gr_model_config *c, int64_t i)
{
    return 1.0f / powf((float)c->rope.theta, (float)(2 * i) / (float)c->head_dim);
}

/* Wave lengths beyond the old context are stretched, short ones kept, those between blended. */
static float llama3_frequency(const struct gr_rope_config *rope, float frequency)
{
    float old_length = (float)rope->original_max_position_embeddings;
    float wave_length = (float)two_pi / frequency;
    float low = (float)rope->low_freq_factor, high = (float)rope->high_freq_factor;
    float stretched = frequency / (float)rope->factor;
    float blend;

    if (wave_length > old_length / low)
        return stretched;
    if (wave_length < old_length / high)
        return frequency;
    blend = (old_length / wave_length - low) / (high - low);
    return (1 - blend) * stretched + blend * frequency;
}

/* The dimension whose wave turns `rotations` times within the original context. */
static double yarn_dimension(const struct gr_model_config *c, double rotations)
{
    return (double)c->head_dim *
           log(c->rope.original_max_position_embeddings / (rotations * two_pi)) /
           (2 * log(c->rope.theta));
}

static float yarn_frequency(const struct gr_model_config *c, int64_t i, float frequency)
{
    double low = yarn_dimension(c, c->rope.beta_fast), high = yarn_dimension(c, c->rope.beta_slow);
    float ramp;

    if (c->rope.truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)(c->head_dim - 1));
    if (low == high)
        high += 0.001;
    ramp = ((float)i - (float)low) / (float)(high - low);
    ramp = fminf(fmaxf(ramp, 0), 1);
    /* ramp 0: turns often, kept;  1: turns less than once, stretched */
    return frequency / (float)c->rope.factor * ramp + frequency * (1 - ramp);
}

static float inverse_frequency(const struct gr_model_config *c, int64_t i)
{
    float frequency = base_frequency(c, i);

    switch (c->rope.kind) {
    case GR_ROPE_DEFAULT:
        return frequency;
    case GR_ROPE_LINEAR:
        return frequency / (float)c->rope.factor;
    case GR_ROPE_LLAMA3:
        return llama3_frequency(&c->rope, frequency);
    case GR_ROPE_YARN:
        return yarn_frequency(c, i, frequency);
    }
    return frequency;
}

void gr_rope_table(float *cos_table, float *sin_table, const struct gr_model_config *config,
                   int64_t positions)
{
    int64_t half = config->head_dim / 2;
    float factor = (float)config->rope.attention_factor;

    for (int64_t i = 0; i < half; i++) {
        float frequency = inverse_frequency(config, i);

        for (int64_t p = 0; p < positions; p++) {
            float angle = (float)p * frequency;

            cos_table[p * half + i] = cosf(angle) * factor;
            sin_table[p * half + i] = sinf(angle) * factor;
        }
    }
}
