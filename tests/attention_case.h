/* Attention over packed documents as the tests of it want it: shapes, and the call made from them
 * with random operands.  For test_ops_attention.c and test_ops_attention_bits.c. */
#ifndef GR_TESTS_ATTENTION_CASE_H
#define GR_TESTS_ATTENTION_CASE_H

#include "tests/rig.h"

enum { DOCUMENTS_MAX = 70 };

struct attention_case {
    int64_t n, heads, kv_heads, head_dim;
    int documents;
    int32_t docs[DOCUMENTS_MAX][2];
    int64_t window;
    enum gr_dtype dtype;
    bool separate; /* q, k, v tensors of their own; else columns of one qkv buffer */
    int gap;       /* how much lies between the rows of those: a multiple of this; 0: 1 */
};

/* Lengths 1, 2, 63, 64, 65 and 300, empty documents, gaps before, between and behind. */
#define ATTENTION_PACKED                                                                           \
    .n = 576, .documents = 9, .docs = {{0, 0},     {3, 4},     {4, 6},     {10, 73},  {73, 137},   \
                                       {137, 137}, {137, 202}, {210, 510}, {510, 510}}

/* All operands of forward and backward, made by the rig, which frees them; its workspace is set.
 * Inputs are random, outputs poisoned. */
struct gr_attention attention_make(struct rig *r, const struct attention_case *c);

#endif
