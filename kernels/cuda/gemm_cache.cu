/* Algorithms kept between runs: a small file for each product (kept.h).  One that the library does
 * not take is as none, and gives way.  See gemm_plan.h. */
#include "kernels/cuda/gemm_plan.h"
#include "kernels/cuda/kept.h"

#include <string.h>

static struct gr_cuda_kept place_of(const struct gr_cuda_plan *plan)
{
    return {"cublaslt", cublasLtGetVersion(), "gralgo01", &plan->key, sizeof plan->key};
}

bool gr_cuda_algorithm_load(struct gr_cuda *c, struct gr_cuda_plan *plan, const char *folder)
{
    const struct gr_cuda_kept place = place_of(plan);
    cublasLtMatmulAlgo_t algorithm;
    int64_t bytes;
    void *kept = gr_cuda_kept_load(&bytes, c, &place, folder);
    bool is_good = kept != NULL && bytes == (int64_t)sizeof algorithm;

    if (is_good) {
        memcpy(&algorithm, kept, sizeof algorithm);
        is_good = gr_cuda_algorithm_is_good(c, plan, &algorithm);
    }
    if (is_good)
        plan->algorithm = algorithm;
    gr_free(kept);
    return is_good;
}

void gr_cuda_algorithm_save(struct gr_cuda *c, struct gr_cuda_plan *plan, const char *folder)
{
    const struct gr_cuda_kept place = place_of(plan);
    const int64_t bytes = sizeof plan->algorithm;

    if (!gr_cuda_kept_save(c, &place, folder, &plan->algorithm, bytes, false) &&
        !gr_cuda_algorithm_load(c, plan, folder))
        gr_cuda_kept_save(c, &place, folder, &plan->algorithm, bytes, true);
}
