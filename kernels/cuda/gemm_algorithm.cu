/* Which algorithm a product takes: the heuristic's first, or the fastest of its first few.
 *
 * Only algorithms that promise the same bits each time are taken: none that adds partial sums by
 * atomics.  See gemm_plan.h; called by gemm.cu when a product first appears. */
#include "kernels/cuda/gemm_plan.h"

enum { CANDIDATES = 8, RUNS = 3 };

/* Another one must be this much faster than one that the heuristic puts before it, so that noise
 * does not choose. */
static const float worth_it = 0.98f;

static const uint32_t atomics = CUBLASLT_REDUCTION_SCHEME_INPLACE;

/* What the heuristic may count on.  Where that gives nothing, less is asked for. */
struct demand {
    uint64_t workspace;
    bool is_aligned; /* as the matrices are; else as an element is, at least */
};
static const struct demand demands[] = {
    {GR_CUDA_BLAS_WORKSPACE, true},
    {0, true},
    {GR_CUDA_BLAS_WORKSPACE, false},
    {0, false},
};

static cublasStatus_t set_preference(cublasLtMatmulPreference_t preference,
                                     const struct gr_cuda_key *k, const struct demand *demand)
{
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK & ~atomics;
    const uint32_t input = (uint32_t)gr_dtype_bytes((enum gr_dtype)k->inputs);
    const uint32_t output = (uint32_t)gr_dtype_bytes((enum gr_dtype)k->output);
    const bool is_aligned = demand->is_aligned;
    const uint32_t a = is_aligned ? k->a_alignment : input, b = is_aligned ? k->b_alignment : input;
    const uint32_t c = is_aligned ? k->c_alignment : output;
    const uint32_t source = is_aligned ? k->source_alignment : output;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } settings[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &demand->workspace, sizeof demand->workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &b, sizeof b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &a, sizeof a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &source, sizeof source},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c},
    };
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;

    for (int64_t i = 0; i < GR_COUNT(settings) && status == CUBLAS_STATUS_SUCCESS; i++)
        status = cublasLtMatmulPreferenceSetAttribute(preference, settings[i].name,
                                                      settings[i].value, settings[i].size);
    return status;
}

/* Leaves those that can be run, in their order. */
static int drop_useless(cublasLtMatmulHeuristicResult_t *found, int count, struct gr_cuda *c,
                        const struct gr_cuda_plan *p)
{
    int left = 0;

    for (int i = 0; i < count; i++) {
        if (found[i].state == CUBLAS_STATUS_SUCCESS &&
            gr_cuda_algorithm_is_good(c, p, &found[i].algo))
            found[left++] = found[i];
    }
    return left;
}

/* What the heuristic proposes, best first; none is no failure. */
static cublasStatus_t propose(cublasLtMatmulHeuristicResult_t *found, int *count, struct gr_cuda *c,
                              const struct gr_cuda_plan *p, const struct demand *demand)
{
    cublasLtMatmulPreference_t preference;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);

    *count = 0;
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    status = set_preference(preference, &p->key, demand);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(c->blaslt, p->product, p->b, p->a, p->source, p->c,
                                                preference, CANDIDATES, found, count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS)
        *count = 0;
    *count = drop_useless(found, *count, c, p);
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? CUBLAS_STATUS_SUCCESS : status;
}

static cublasStatus_t propose_any(cublasLtMatmulHeuristicResult_t *found, int *count,
                                  struct gr_cuda *c, const struct gr_cuda_plan *p)
{
    for (const struct demand &demand : demands) {
        const cublasStatus_t status = propose(found, count, c, p, &demand);

        if (status != CUBLAS_STATUS_SUCCESS || *count > 0)
            return status;
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

bool gr_cuda_algorithm_is_good(struct gr_cuda *c, const struct gr_cuda_plan *plan,
                               const cublasLtMatmulAlgo_t *algorithm)
{
    cublasLtMatmulHeuristicResult_t result;
    uint32_t reduction = 0;
    size_t size = 0;

    return cublasLtMatmulAlgoCheck(c->blaslt, plan->product, plan->b, plan->a, plan->source,
                                   plan->c, algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= GR_CUDA_BLAS_WORKSPACE &&
           cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                                &reduction, sizeof reduction,
                                                &size) == CUBLAS_STATUS_SUCCESS &&
           (reduction & atomics) == 0;
}

/* Milliseconds of a few runs after one that warms up; false: it does not run. */
static bool measure(float *ms, struct gr_cuda *c, const struct gr_cuda_plan *plan,
                    const struct gr_cuda_product *p, const cublasLtMatmulAlgo_t *algorithm,
                    void *output, const cudaEvent_t *events)
{
    for (int i = 0; i < 1 + RUNS; i++) {
        if (i == 1 && cudaEventRecord(events[0], c->stream) != cudaSuccess)
            return false;
        if (gr_cuda_plan_run(c, plan, p, algorithm, output) != CUBLAS_STATUS_SUCCESS)
            return false;
    }
    return cudaEventRecord(events[1], c->stream) == cudaSuccess &&
           cudaEventSynchronize(events[1]) == cudaSuccess &&
           cudaEventElapsedTime(ms, events[0], events[1]) == cudaSuccess;
}

static int fastest(struct gr_cuda *c, const struct gr_cuda_plan *plan,
                   const struct gr_cuda_product *p, const cublasLtMatmulHeuristicResult_t *found,
                   int count, void *output)
{
    cudaEvent_t events[2] = {NULL, NULL};
    float best_ms = INFINITY, ms;
    int best = 0;

    if (cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess) {
        for (int i = 0; i < count; i++) {
            if (measure(&ms, c, plan, p, &found[i].algo, output, events) &&
                ms < worth_it * best_ms) {
                best = i;
                best_ms = ms;
            }
        }
    }
    for (int i = 0; i < 2; i++) {
        if (events[i] != NULL)
            cudaEventDestroy(events[i]);
    }
    return best;
}

/* Where the result of a run that is only timed goes: c is overwritten anyway, unless it is read. */
static void *scratch_output(const struct gr_cuda_product *p, bool is_in_place)
{
    const int64_t count = (p->c.dim[0] - 1) * p->c.stride + p->c.dim[1];
    void *memory = p->c.data;

    if (is_in_place &&
        cudaMalloc(&memory, (size_t)(count * gr_dtype_bytes(p->c.dtype))) != cudaSuccess) {
        cudaGetLastError(); /* does not stick */
        return NULL;
    }
    return memory;
}

cublasStatus_t gr_cuda_algorithm_choose(struct gr_cuda *c, struct gr_cuda_plan *plan,
                                        const struct gr_cuda_product *p, const char *folder)
{
    const bool is_in_place = plan->key.is_in_place != 0;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    cublasStatus_t status;
    void *output;
    int count;

    if (folder != NULL && gr_cuda_algorithm_load(c, plan, folder))
        return CUBLAS_STATUS_SUCCESS;
    status = propose_any(found, &count, c, plan);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    plan->algorithm = found[0].algo;
    if (folder == NULL)
        return status;
    output = scratch_output(p, is_in_place);
    if (output == NULL) /* nothing is known, nothing is kept */
        return status;
    plan->algorithm = found[fastest(c, plan, p, found, count, output)].algo;
    if (is_in_place)
        cudaFree(output);
    gr_cuda_algorithm_save(c, plan, folder);
    return status;
}
