/* Attention by cuDNN, as plans of its graphs: what gr_attention computes without a window, for
 * documents of one buffer.  cudnn_run.cu binds and runs them. */
#ifndef GR_CUDNN_ATTENTION_H
#define GR_CUDNN_ATTENTION_H

#include "kernels/cuda/cudnn_graph.h"

/* What is bound to a plan: name, what it is.  Lengths and places are read from device memory, so a
 * plan serves any documents up to its size. */
#define GR_CUDNN_ATTENTION_LIST(X)                                                                 \
    X(Q, "(N, NH, HD) bf16; N rows, in which D documents lie")                                     \
    X(K, "(N, NKV, HD) bf16")                                                                      \
    X(V, "as K")                                                                                   \
    X(O, "as Q")                                                                                   \
    X(LSE, "(N, NH) f32, or padded: (D, NH, rows)")                                                \
    X(D_O, "as Q")                                                                                 \
    X(DQ, "as Q")                                                                                  \
    X(DK, "as K")                                                                                  \
    X(DV, "as K")                                                                                  \
    X(DQ_SUM, "(N, NH, HD) f32 scratch, zeroed")                                                   \
    X(DK_HEADS, "(N, NH, HD) bf16 scratch, where NH > NKV")                                        \
    X(DV_HEADS, "likewise")                                                                        \
    X(ROW_SUM, "scratch as LSE")                                                                   \
    X(Q_LENGTHS, "(D) i32 rows of each document")                                                  \
    X(KV_LENGTHS, "the same")                                                                      \
    X(Q_OFFSETS, "(D + 1) i32 elements before each document: of Q, and of DQ if its rows are as "  \
                 "far apart")                                                                      \
    X(K_OFFSETS, "of K and DK, likewise")                                                          \
    X(V_OFFSETS, "of V and DV, likewise")                                                          \
    X(O_OFFSETS, "of O and D_O, likewise")                                                         \
    X(DQ_OFFSETS, "where it has its own")                                                          \
    X(DK_OFFSETS, "likewise")                                                                      \
    X(DV_OFFSETS, "likewise")                                                                      \
    X(D_O_OFFSETS, "likewise")                                                                     \
    X(LSE_OFFSETS, "of LSE and ROW_SUM, unless they are padded")                                   \
    X(HEADS_OFFSETS, "of DQ_SUM, DK_HEADS, DV_HEADS")                                              \
    X(SCALE, "f32 in the host's memory: 1 / sqrt(HD)")                                             \
    X(MASKED, "likewise: minus infinity")                                                          \
    X(BEYOND, "likewise")                                                                          \
    X(ONE, "likewise: 1")

enum gr_cudnn_attention_id {
#define X(name, words) GR_CUDNN_##name,
    GR_CUDNN_ATTENTION_LIST(X)
#undef X
        GR_CUDNN_ATTENTION_IDS
};

/* What decides a plan: 64-bit numbers alone, for it is compared and kept as bytes. */
struct gr_cudnn_attention {
    int64_t is_backward;
    int64_t documents, rows;           /* at most; of the longest document */
    int64_t heads, kv_heads, head_dim; /* kv_heads divides heads */
    int64_t lse_is_padded;             /* compute capability 8 has no other */
    /* Elements from row to row; those of LSE and of scratch are dense.  The last four: backward
     * only, else 0. */
    int64_t q_stride, k_stride, v_stride, o_stride;
    int64_t dq_stride, dk_stride, dv_stride, d_o_stride;
};

/* The formulas of a direction, for gr_cudnn_graph_plan.  Source: Dao 2023, arXiv:2307.08691; the
 * order of operations is that of NVIDIA's cudnn-frontend, by which cuDNN knows its kernels. */
void gr_cudnn_attention_graph(struct gr_cudnn_graph *g, const struct gr_cudnn_attention *a);

#endif
