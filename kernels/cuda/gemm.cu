/* Matrix products by cuBLASLt: what a product needs is made once, and found again by its key.
 * cuBLASLt is column-major: its A is our b, and all is transposed.  See gemm.h. */
#include "kernels/cuda/gemm_plan.h"

#include <string.h>

cudaError_t gr_cuda_gemm_open(struct gr_cuda *c)
{
    c->plans = GR_NEW(struct gr_cuda_plans);
    return cudaMalloc(&c->plans->workspace, GR_CUDA_BLAS_WORKSPACE);
}

void gr_cuda_plan_forget(struct gr_cuda_plan *p)
{
    const cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->c, p->source};

    if (p->product != NULL)
        cublasLtMatmulDescDestroy(p->product);
    for (int64_t i = 0; i < GR_COUNT(layouts); i++) {
        if (layouts[i] != NULL)
            cublasLtMatrixLayoutDestroy(layouts[i]);
    }
}

void gr_cuda_gemm_close(struct gr_cuda *c)
{
    if (c->plans == NULL)
        return;
    for (int i = 0; i < c->plans->count; i++)
        gr_cuda_plan_forget(&c->plans->plan[i]);
    cudaFree(c->plans->workspace);
    gr_free(c->plans);
}

/* What cuBLASLt may rely on besides the stride, which it knows: 256 bytes at most. */
static uint32_t alignment_of(gr_tensor t)
{
    uintptr_t bits = (uintptr_t)t.data | 256;

    return (uint32_t)(bits & (~bits + 1));
}

static cudaDataType_t type_of(uint32_t dtype)
{
    return dtype == GR_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static struct gr_cuda_key key_of(const struct gr_cuda_product *p)
{
    gr_tensor source = p->beta == 0 ? p->c : p->source;
    struct gr_cuda_key key;

    memset(&key, 0, sizeof key);
    key.m = p->c.dim[0];
    key.n = p->c.dim[1];
    key.k = p->a_is_transposed ? p->a.dim[0] : p->a.dim[1];
    key.a_stride = p->a.stride;
    key.b_stride = p->b.stride;
    key.c_stride = p->c.stride;
    key.source_stride = source.stride;
    key.a_alignment = alignment_of(p->a);
    key.b_alignment = alignment_of(p->b);
    key.c_alignment = alignment_of(p->c);
    key.source_alignment = alignment_of(source);
    key.inputs = p->a.dtype;
    key.output = p->c.dtype;
    key.a_is_transposed = p->a_is_transposed;
    key.b_is_transposed = p->b_is_transposed;
    key.has_source = p->beta != 0;
    key.is_in_place = p->beta != 0 && source.data == p->c.data;
    return key;
}

/* A row-major matrix (rows, columns) as the column-major (columns, rows) it is in memory. */
static cublasStatus_t describe(cublasLtMatrixLayout_t *layout, uint32_t dtype, int64_t rows,
                               int64_t columns, int64_t stride)
{
    return cublasLtMatrixLayoutCreate(layout, type_of(dtype), (uint64_t)columns, (uint64_t)rows,
                                      stride);
}

static cublasStatus_t describe_all(struct gr_cuda_plan *p)
{
    const struct gr_cuda_key *k = &p->key;
    cublasOperation_t is[2] = {CUBLAS_OP_N, CUBLAS_OP_T};
    cublasStatus_t status = cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                                &is[k->b_is_transposed], sizeof is[0]);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSB,
                                                &is[k->a_is_transposed], sizeof is[0]);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = describe(&p->b, k->inputs, k->b_is_transposed ? k->n : k->k,
                          k->b_is_transposed ? k->k : k->n, k->b_stride);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = describe(&p->a, k->inputs, k->a_is_transposed ? k->k : k->m,
                          k->a_is_transposed ? k->m : k->k, k->a_stride);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = describe(&p->c, k->output, k->m, k->n, k->c_stride);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = describe(&p->source, k->output, k->m, k->n, k->source_stride);
    return status;
}

struct gr_cuda_plan *gr_cuda_plan_find(struct gr_cuda *c, const struct gr_cuda_key *key)
{
    struct gr_cuda_plans *plans = c->plans;

    for (int i = 0; i < plans->count; i++) {
        if (memcmp(&plans->plan[i].key, key, sizeof *key) == 0)
            return &plans->plan[i];
    }
    return NULL;
}

cublasStatus_t gr_cuda_plan_begin(struct gr_cuda_plan **plan, struct gr_cuda *c,
                                  const struct gr_cuda_key *key)
{
    struct gr_cuda_plans *plans = c->plans;
    cublasStatus_t status;

    if (plans->count == GR_CUDA_PLANS)
        gr_cuda_plan_forget(&plans->plan[--plans->count]);
    *plan = &plans->plan[plans->count];
    memset(*plan, 0, sizeof **plan);
    (*plan)->key = *key;
    status = describe_all(*plan);
    if (status != CUBLAS_STATUS_SUCCESS)
        gr_cuda_plan_forget(*plan);
    return status;
}

void gr_cuda_plan_keep(struct gr_cuda *c)
{
    c->plans->count++;
}

static cublasStatus_t find_plan(struct gr_cuda_plan **plan, struct gr_device *dev,
                                const struct gr_cuda_key *key, const struct gr_cuda_product *p)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    cublasStatus_t status;

    *plan = gr_cuda_plan_find(c, key);
    if (*plan != NULL)
        return CUBLAS_STATUS_SUCCESS;
    status = gr_cuda_plan_begin(plan, c, key);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    status = gr_cuda_algorithm_choose(c, *plan, p, dev->is_settled ? NULL : dev->cache_folder);
    if (status == CUBLAS_STATUS_SUCCESS)
        gr_cuda_plan_keep(c);
    else
        gr_cuda_plan_forget(*plan);
    return status;
}

cublasStatus_t gr_cuda_plan_run(struct gr_cuda *c, const struct gr_cuda_plan *plan,
                                const struct gr_cuda_product *p,
                                const cublasLtMatmulAlgo_t *algorithm, void *output)
{
    return cublasLtMatmul(c->blaslt, plan->product, &p->alpha, p->b.data, plan->b, p->a.data,
                          plan->a, &p->beta, p->beta == 0 ? output : p->source.data, plan->source,
                          output, plan->c, algorithm, c->plans->workspace, GR_CUDA_BLAS_WORKSPACE,
                          c->stream);
}

static void fail(struct gr_device *dev, const char *op, const struct gr_cuda_key *key,
                 cublasStatus_t status)
{
    gr_device_fail(dev, GR_ERR_DEVICE, op, "cuBLASLt: %s (found a product of %lld x %lld x %lld)",
                   cublasLtGetStatusString(status), (long long)key->m, (long long)key->n,
                   (long long)key->k);
}

/* The plan of a product, made if it is not there; NULL: there is nothing to do, or the device
 * failed. */
static struct gr_cuda_plan *plan_of(struct gr_device *dev, const char *op,
                                    const struct gr_cuda_product *p)
{
    struct gr_cuda_key key = key_of(p);
    struct gr_cuda_plan *plan = NULL;
    cublasStatus_t status;

    if (key.m == 0 || key.n == 0 || dev->failure.status != GR_OK)
        return NULL;
    status = find_plan(&plan, dev, &key, p);
    if (status == CUBLAS_STATUS_SUCCESS)
        return plan;
    fail(dev, op, &key, status);
    return NULL;
}

void gr_cuda_gemm(struct gr_device *dev, const char *op, const struct gr_cuda_product *p)
{
    const struct gr_cuda_plan *plan = plan_of(dev, op, p);
    cublasStatus_t status;

    if (plan == NULL)
        return;
    status = gr_cuda_plan_run(gr_cuda_of(dev), plan, p, &plan->algorithm, p->c.data);
    if (status != CUBLAS_STATUS_SUCCESS)
        fail(dev, op, &plan->key, status);
}

bool gr_cuda_gemm_is_known(struct gr_device *dev, const struct gr_cuda_product *p)
{
    struct gr_cuda_key key = key_of(p);

    return gr_cuda_plan_find(gr_cuda_of(dev), &key) != NULL;
}

void gr_cuda_gemm_prepare(struct gr_device *dev, const char *op, const struct gr_cuda_product *p)
{
    if (!dev->is_settled)
        plan_of(dev, op, p);
}
