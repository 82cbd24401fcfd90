/* The order of the sums over flat buffers, which all backends keep: a sum has the same bits on
 * each.
 *
 * A chunk is summed in lanes, element i in lane i % GR_LANES, which are added as a tree at the end.
 * sum_squares adds the chunks of a block in order, then the blocks' sums in order. */
#ifndef GR_SUM_ORDER_H
#define GR_SUM_ORDER_H

#include <stdint.h>

enum {
    GR_LANES = 16,
    GR_CHUNK = 4096,        /* elements of a flat buffer that are summed together */
    GR_PARTIALS_MOST = 1024 /* blocks of sum_squares */
};

/* Elements of a block: one chunk, or as many as keep the number of blocks below the limit. */
static inline int64_t gr_sum_block(int64_t n)
{
    int64_t chunks = (n + GR_CHUNK - 1) / GR_CHUNK;

    return (chunks + GR_PARTIALS_MOST - 1) / GR_PARTIALS_MOST * GR_CHUNK;
}

static inline int64_t gr_sum_blocks(int64_t n)
{
    return n == 0 ? 0 : (n + gr_sum_block(n) - 1) / gr_sum_block(n);
}

#endif
