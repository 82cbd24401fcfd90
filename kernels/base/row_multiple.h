/* Rows come in multiples of 64, whole tiles of every op: a tile then lies in one micro-batch. Packs
 * and supervised rows are padded to it; the ops refuse other counts but a single row (the token
 * being generated). */
#ifndef GR_BASE_ROW_MULTIPLE_H
#define GR_BASE_ROW_MULTIPLE_H

#include <stdint.h>

enum { GR_ROW_MULTIPLE = 64 };

static inline int64_t gr_round_up_rows(int64_t rows)
{
    return (rows + GR_ROW_MULTIPLE - 1) / GR_ROW_MULTIPLE * GR_ROW_MULTIPLE;
}

#endif
