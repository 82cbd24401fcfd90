/* Philox 4x32-10: random numbers as a pure function of (key, counter); there is no state to save.
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
 * Key: the trial's seed.  Counter words: {element / 4 within the micro-batch's own rows,
 * purpose << 24 | layer << 8 | module, global micro-batch, step}. */
#ifndef GR_BASE_PHILOX_H
#define GR_BASE_PHILOX_H

#include "kernels/base/device_function.h"

#include <stdint.h>

enum gr_rng_purpose {
    GR_RNG_SHUFFLE = 1,
    GR_RNG_LORA_INIT = 2,
    GR_RNG_DROPOUT = 3,
    GR_RNG_SAMPLE = 4,
    GR_RNG_SPLIT = 5
};

enum { GR_PHILOX_ROUNDS = 10 };

struct gr_philox_block {
    uint32_t word[4];
};

/* One of the ten rounds; the key advances by gr_philox_next_key between them. */
GR_DEVICE_FUNCTION void gr_philox_round(uint32_t *c0, uint32_t *c1, uint32_t *c2, uint32_t *c3,
                                        uint32_t k0, uint32_t k1)
{
    uint64_t p0 = (uint64_t)0xD2511F53u * *c0;
    uint64_t p1 = (uint64_t)0xCD9E8D57u * *c2;

    *c0 = (uint32_t)(p1 >> 32) ^ *c1 ^ k0;
    *c2 = (uint32_t)(p0 >> 32) ^ *c3 ^ k1;
    *c1 = (uint32_t)p1;
    *c3 = (uint32_t)p0;
}

GR_DEVICE_FUNCTION void gr_philox_next_key(uint32_t *k0, uint32_t *k1)
{
    *k0 += 0x9E3779B9u;
    *k1 += 0xBB67AE85u;
}

GR_DEVICE_FUNCTION struct gr_philox_block gr_philox(uint64_t key, uint32_t c0, uint32_t c1,
                                                    uint32_t c2, uint32_t c3)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

    for (int round = 0; round < GR_PHILOX_ROUNDS; round++) {
        gr_philox_round(&c0, &c1, &c2, &c3, k0, k1);
        gr_philox_next_key(&k0, &k1);
    }
    return (struct gr_philox_block){{c0, c1, c2, c3}};
}

GR_DEVICE_FUNCTION uint32_t gr_rng_stream(enum gr_rng_purpose purpose, int layer, int module)
{
    return (uint32_t)purpose << 24 | (uint32_t)layer << 8 | (uint32_t)module;
}

/* A word as a number in [0, 1): 24 bits, exact in f32. */
GR_DEVICE_FUNCTION float gr_uniform(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

#endif
