/* Dropout masks by Philox, many blocks at a time.  See dropout.h; called by lora_group.c. */
#include "kernels/cpu/dropout.h"

#include "kernels/base/philox.h"

enum { BLOCKS = 64, WORDS = 4, CHUNK = WORDS * (BLOCKS - 1) }; /* one block more: a ragged start */

/* mask[4j + i] <- 1/(1-p) or 0 for word i of block first + j.  gr_philox over arrays, because
 * compilers vectorise this form only. */
static void mask_of_blocks(float *mask, const struct gr_dropout *d, uint32_t first, int blocks)
{
    uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS];
    uint32_t k0 = (uint32_t)d->key, k1 = (uint32_t)(d->key >> 32);
    float p = d->p, kept = 1.0f / (1.0f - p);

    for (int j = 0; j < blocks; j++) {
        c0[j] = first + (uint32_t)j;
        c1[j] = d->stream;
        c2[j] = d->micro_batch;
        c3[j] = d->step;
    }
    for (int round = 0; round < GR_PHILOX_ROUNDS; round++) {
        for (int j = 0; j < blocks; j++)
            gr_philox_round(&c0[j], &c1[j], &c2[j], &c3[j], k0, k1);
        gr_philox_next_key(&k0, &k1);
    }
    for (int j = 0; j < blocks; j++) {
        mask[WORDS * j] = gr_uniform(c0[j]) >= p ? kept : 0.0f;
        mask[WORDS * j + 1] = gr_uniform(c1[j]) >= p ? kept : 0.0f;
        mask[WORDS * j + 2] = gr_uniform(c2[j]) >= p ? kept : 0.0f;
        mask[WORDS * j + 3] = gr_uniform(c3[j]) >= p ? kept : 0.0f;
    }
}

static void apply(float *y, enum gr_write write, const float *x, const float *mask, int64_t count)
{
    if (write == GR_ACCUMULATE) {
        for (int64_t j = 0; j < count; j++)
            y[j] += mask[j] * x[j];
    } else {
        for (int64_t j = 0; j < count; j++)
            y[j] = mask[j] * x[j];
    }
}

void GR_CPU(dropout_tile)(gr_tensor y, enum gr_write write, gr_tensor x,
                          const struct gr_dropout *dropout, int64_t row, int64_t column)
{
    float mask[WORDS * BLOCKS];

    for (int64_t i = 0; i < x.dim[0]; i++) {
        float *y_row = (float *)y.data + i * y.stride;
        const float *x_row = (const float *)x.data + i * x.stride;
        int64_t element = (row + i) * dropout->width + column;

        for (int64_t begin = 0; begin < x.dim[1]; begin += CHUNK) {
            int64_t count = x.dim[1] - begin < CHUNK ? x.dim[1] - begin : CHUNK;
            int64_t skip = (element + begin) % WORDS; /* words of the first block before ours */

            mask_of_blocks(mask, dropout, (uint32_t)((element + begin) / WORDS),
                           (int)((skip + count + WORDS - 1) / WORDS));
            apply(y_row + begin, write, x_row + begin, mask + skip, count);
        }
    }
}
