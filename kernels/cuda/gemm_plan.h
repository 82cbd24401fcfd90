/* What gemm.cu remembers of a product, for the files that choose its algorithm. */
#ifndef GR_CUDA_GEMM_PLAN_H
#define GR_CUDA_GEMM_PLAN_H

#include "kernels/cuda/gemm.h"

/* What decides an algorithm; zeroed first, for it is compared and kept as bytes. */
struct gr_cuda_key {
    int64_t m, n, k, a_stride, b_stride, c_stride, source_stride;
    uint32_t a_alignment, b_alignment, c_alignment, source_alignment;
    uint32_t inputs, output; /* dtypes */
    uint32_t a_is_transposed, b_is_transposed, has_source, is_in_place;
};

struct gr_cuda_plan {
    struct gr_cuda_key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c, source;
    cublasLtMatmulAlgo_t algorithm;
};

struct gr_cuda_plans {
    void *workspace;
    int count;
    struct gr_cuda_plan plan[GR_CUDA_PLANS];
};

/* NULL: there is none. */
struct gr_cuda_plan *gr_cuda_plan_find(struct gr_cuda *c, const struct gr_cuda_key *key);
/* A place for it, described to cuBLASLt but without an algorithm; kept once gr_cuda_plan_keep is
 * called, before the next one is begun.  Where all places are taken the last one is used again. */
cublasStatus_t gr_cuda_plan_begin(struct gr_cuda_plan **plan, struct gr_cuda *c,
                                  const struct gr_cuda_key *key);
void gr_cuda_plan_keep(struct gr_cuda *c);
void gr_cuda_plan_forget(struct gr_cuda_plan *plan); /* a half-built one is fine */

/* Queues the product with that algorithm, its result in `output`, which is laid out as c. */
cublasStatus_t gr_cuda_plan_run(struct gr_cuda *c, const struct gr_cuda_plan *plan,
                                const struct gr_cuda_product *p,
                                const cublasLtMatmulAlgo_t *algorithm, void *output);

/* Gives the plan its algorithm: without a folder the heuristic's first one, so that it is the same
 * everywhere; else what is kept in the folder, or the fastest, which is then kept there.  Choosing
 * by time waits, allocates and overwrites p->c unless it is the source. */
cublasStatus_t gr_cuda_algorithm_choose(struct gr_cuda *c, struct gr_cuda_plan *plan,
                                        const struct gr_cuda_product *p, const char *folder);
/* Whether the library still takes the plan's algorithm, and it promises the same bits each time. */
bool gr_cuda_algorithm_is_good(struct gr_cuda *c, const struct gr_cuda_plan *plan,
                               const cublasLtMatmulAlgo_t *algorithm);

/* The algorithm kept for the plan in the cache folder, by GPU, driver and library; false: none that
 * is whole and good. */
bool gr_cuda_algorithm_load(struct gr_cuda *c, struct gr_cuda_plan *plan, const char *folder);
/* Keeps the plan's algorithm unless a good one is there already, and takes that one then: all
 * processes of a folder agree.  A folder that cannot be written is no failure. */
void gr_cuda_algorithm_save(struct gr_cuda *c, struct gr_cuda_plan *plan, const char *folder);

#endif
