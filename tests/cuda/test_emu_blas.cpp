/* The double of cuBLASLt: what it refuses, with which status, and what it reports as a finding.
 * That it multiplies right is in test_cuda_gemm.cpp. */
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#define _Noreturn __attribute__((noreturn)) /* C++ has no such word */
#include "tests/test.h"
}

enum { M = 24, N = 16, K = 8, WORKSPACE = 4096, FOUND = 99 };

/* D (M, N) <- A (M, K) B (K, N), bf16 to f32, all of it to be spoilt by a fault. */
struct call {
    cudaStream_t stream;
    cublasLtHandle_t library;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    char *of_a, *of_b, *of_c, *of_d, *workspace;
    float beta;
    size_t workspace_bytes;
};

static void must(int status)
{
    ASSERT_INT(status, 0);
}

static char *zeros(cudaStream_t stream, size_t bytes)
{
    void *memory;

    must(cudaMalloc(&memory, bytes));
    must(cudaMemsetAsync(memory, 0, bytes, stream));
    return (char *)memory;
}

static void make(struct call *c)
{
    const uint64_t workspace = WORKSPACE;

    *c = {};
    must(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    must(cublasLtCreate(&c->library));
    must(cublasLtMatmulDescCreate(&c->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    must(cublasLtMatrixLayoutCreate(&c->a, CUDA_R_16BF, M, K, M));
    must(cublasLtMatrixLayoutCreate(&c->b, CUDA_R_16BF, K, N, K));
    must(cublasLtMatrixLayoutCreate(&c->d, CUDA_R_32F, M, N, M));
    must(cublasLtMatmulPreferenceCreate(&c->preference));
    must(cublasLtMatmulPreferenceSetAttribute(
        c->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    c->of_a = zeros(c->stream, M * K * 2);
    c->of_b = zeros(c->stream, K * N * 2);
    c->of_d = zeros(c->stream, M * N * 4);
    c->of_c = c->of_d;
    c->workspace = zeros(c->stream, WORKSPACE);
    c->workspace_bytes = WORKSPACE;
}

/* The last of the algorithms: it has a workspace. */
static int choose(struct call *c)
{
    cublasLtMatmulHeuristicResult_t found[8];
    int count = 0;
    const int status = cublasLtMatmulAlgoGetHeuristic(c->library, c->product, c->a, c->b, c->d,
                                                      c->d, c->preference, 8, found, &count);

    for (int i = 0; i < count; i++) {
        if (found[i].workspaceSize > 0)
            c->found = found[i];
    }
    return status;
}

static int run(struct call *c)
{
    const float alpha = 1;
    int status = cublasLtMatmul(c->library, c->product, &alpha, c->of_a, c->a, c->of_b, c->b,
                                &c->beta, c->of_c, c->d, c->of_d, c->d, &c->found.algo,
                                c->workspace, c->workspace_bytes, c->stream);

    return status == 0 ? cudaStreamSynchronize(c->stream) : status;
}

struct fault {
    const char *name;
    int outcome; /* a status, or FOUND */
    int (*calls)(struct call *c);
};

static int choose_and_run(struct call *c)
{
    must(choose(c));
    return run(c);
}

static int with_layout(struct call *c, cublasLtMatrixLayout_t *which, cudaDataType_t type, int rows,
                       int columns, int ld)
{
    must(cublasLtMatrixLayoutCreate(which, type, (uint64_t)rows, (uint64_t)columns, ld));
    return choose(c);
}

static const struct fault faults[] = {
    {"nothing wrong", CUBLAS_STATUS_SUCCESS, choose_and_run},
    {"a leading dimension below the rows", CUBLAS_STATUS_INVALID_VALUE,
     [](struct call *c) { return with_layout(c, &c->a, CUDA_R_16BF, M, K, M - 1); }},
    {"an empty matrix", CUBLAS_STATUS_INVALID_VALUE,
     [](struct call *c) { return with_layout(c, &c->a, CUDA_R_16BF, M, 0, M); }},
    {"shapes that do not fit", CUBLAS_STATUS_INVALID_VALUE,
     [](struct call *c) { return with_layout(c, &c->b, CUDA_R_16BF, K + 1, N, K + 1); }},
    {"types that do not fit", CUBLAS_STATUS_NOT_SUPPORTED,
     [](struct call *c) { return with_layout(c, &c->b, CUDA_R_32F, K, N, K); }},
    {"an attribute of another size", CUBLAS_STATUS_INVALID_VALUE,
     [](struct call *c) {
         const char is = CUBLAS_OP_T;

         return (int)cublasLtMatmulDescSetAttribute(c->product, CUBLASLT_MATMUL_DESC_TRANSA, &is,
                                                    sizeof is);
     }},
    {"a pointer less aligned than promised", CUBLAS_STATUS_INVALID_VALUE,
     [](struct call *c) {
         c->of_b += 16;
         return choose_and_run(c);
     }},
    {"no A", CUBLAS_STATUS_INVALID_VALUE,
     [](struct call *c) {
         c->of_a = NULL;
         return choose_and_run(c);
     }},
    {"the algorithm of another leading dimension", CUBLAS_STATUS_INVALID_VALUE,
     [](struct call *c) {
         must(with_layout(c, &c->b, CUDA_R_16BF, K, N, 2 * K));
         must(cublasLtMatrixLayoutCreate(&c->b, CUDA_R_16BF, K, N, K));
         return run(c);
     }},
    {"no algorithm of the heuristic's", CUBLAS_STATUS_INVALID_VALUE, run},
    {"a workspace that is too small", CUBLAS_STATUS_INVALID_VALUE,
     [](struct call *c) {
         c->workspace_bytes--;
         return choose_and_run(c);
     }},
    {"a workspace that is not there", FOUND,
     [](struct call *c) {
         c->workspace += 256;
         return choose_and_run(c);
     }},
    {"A that leaves its allocation", FOUND,
     [](struct call *c) {
         must(with_layout(c, &c->a, CUDA_R_16BF, M, K, M + 64));
         return run(c);
     }},
    {"C that is no device memory", FOUND,
     [](struct call *c) {
         static char host[M * N * 4] __attribute__((aligned(256)));

         c->of_c = host;
         c->beta = 1;
         return choose_and_run(c);
     }},
    {"D over B", FOUND,
     [](struct call *c) {
         c->of_b = c->of_d + 256;
         return choose_and_run(c);
     }},
    {"a layout that was destroyed", FOUND,
     [](struct call *c) {
         must(cublasLtMatmulDescDestroy(c->product));
         return choose(c);
     }},
};

/* In a process of its own: findings end it. */
static int outcome_of(const struct fault *fault)
{
    const pid_t child = fork();
    int status;

    ASSERT(child >= 0);
    if (child == 0) {
        struct call c;

        make(&c);
        _exit(fault->calls(&c));
    }
    ASSERT(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

TEST(emu_blas_faults_are_refused_or_found)
{
    for (const struct fault &fault : faults) {
        const int outcome = outcome_of(&fault);

        ASSERT_MSG(outcome == fault.outcome, "%s ends with %d, expected %d", fault.name, outcome,
                   fault.outcome);
    }
}

/* Columns that lie between those of another matrix do not overlap with them. */
TEST(emu_blas_result_beside_its_operand_is_fine)
{
    struct call c;
    char *both;

    make(&c);
    both = zeros(c.stream, (M + 2 * M) * K * 4);
    must(cublasLtMatrixLayoutCreate(&c.a, CUDA_R_16BF, M, K, 3 * M));
    must(cublasLtMatrixLayoutCreate(&c.b, CUDA_R_16BF, K, K, K));
    must(cublasLtMatrixLayoutCreate(&c.d, CUDA_R_16BF, M, K, 3 * M));
    for (auto which :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
        const uint32_t alignment = 16;

        must(cublasLtMatmulPreferenceSetAttribute(c.preference, which, &alignment,
                                                  sizeof alignment));
    }
    c.of_a = both;
    c.of_d = c.of_c = both + 2 * M;
    must(choose(&c));
    must(run(&c));
}
