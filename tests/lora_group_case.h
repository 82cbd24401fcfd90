/* Linear groups for tests: what they are like, and how they are made of random numbers. */
#ifndef GR_TESTS_LORA_GROUP_CASE_H
#define GR_TESTS_LORA_GROUP_CASE_H

#include "tests/rig.h"

enum { LINEARS_MAX = 3, ADAPTERS_MAX = 3 };

struct group_case {
    int64_t n, in, out[LINEARS_MAX]; /* an out of 0 ends the list */
    int64_t r[ADAPTERS_MAX][LINEARS_MAX];
    int segments;
    struct gr_segment segment[4];
    float dropout;
    bool bias, residual, residual_is_y, eval, no_dx;
    bool joined; /* of the first adapter alone, as parts of one matrix */
    int64_t gap;
    enum gr_dtype dtype;
};

struct group {
    struct gr_lora_group g;
    struct gr_linear linear[LINEARS_MAX];
    struct gr_lora lora[ADAPTERS_MAX * LINEARS_MAX];
};

/* In the rig's memory; also sets its workspace. */
void lora_group_make(struct group *b, struct rig *r, const struct group_case *c);

/* Three linears, two segments of 3 and 4 tiles, rows without segment between and behind. */
extern const struct group_case lora_group_mixed;

#endif
