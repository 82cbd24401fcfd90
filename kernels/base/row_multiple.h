/* Rows come in multiples of 64: below AVX-512 the bits of a row depend on its place in a tile.
 * Packs and supervised rows are padded to it; the ops refuse other counts but a single row (the
 * token being generated), which has one place only. */
#ifndef GR_BASE_ROW_MULTIPLE_H
#define GR_BASE_ROW_MULTIPLE_H

#include <stdint.h>

enum { GR_ROW_MULTIPLE = 64 };

static inline int64_t gr_round_up_rows(int64_t rows)
{
    return (rows + GR_ROW_MULTIPLE - 1) / GR_ROW_MULTIPLE * GR_ROW_MULTIPLE;
}

#endif
