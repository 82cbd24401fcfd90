/* Arithmetic of cutting work into tiles. */
#ifndef GR_CPU_TILES_H
#define GR_CPU_TILES_H

#include <stdint.h>

static inline int64_t gr_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t gr_larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* How many pieces cover a length; the last may be shorter. */
static inline int64_t gr_pieces(int64_t length, int64_t piece)
{
    return (length + piece - 1) / piece;
}

#endif
