/* Faults in the use of cuBLASLt, of whose double the emulator sees every operand. */
#include "self.h"

enum { SIZE = 16 }; /* all matrices are (SIZE, SIZE) f32 */

/* d <- a b with the leading dimension given for a; the status of the first call that fails. */
static cublasStatus_t multiply(cudaStream_t s, float *d, const float *a, int64_t a_stride,
                               const float *b)
{
    const float one = 1, zero = 0;
    cublasLtHandle_t library;
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t of_a, of_others;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t by;
    cublasStatus_t status;
    int count = 0;

    cublasLtCreate(&library);
    cublasLtMatmulDescCreate(&what, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatrixLayoutCreate(&of_a, CUDA_R_32F, SIZE, SIZE, a_stride);
    cublasLtMatrixLayoutCreate(&of_others, CUDA_R_32F, SIZE, SIZE, SIZE);
    cublasLtMatmulPreferenceCreate(&preference);
    status = cublasLtMatmulAlgoGetHeuristic(library, what, of_a, of_others, of_others, of_others,
                                            preference, 1, &by, &count);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    return cublasLtMatmul(library, what, &one, a, of_a, b, of_others, // found
                          &zero, d, of_others, d, of_others, &by.algo, NULL, 0, s);
}

static bool right_product(cudaStream_t s)
{
    float *d = self_memory(SIZE * SIZE);
    const float *found;

    if (multiply(s, d, self_numbers(s, SIZE * SIZE), SIZE, self_numbers(s, SIZE * SIZE)) !=
        CUBLAS_STATUS_SUCCESS)
        return false;
    found = self_fetch(s, d, SIZE * SIZE);
    for (int i = 0; i < SIZE; i++) {
        for (int j = 0; j < SIZE; j++) {
            float sum = 0;

            for (int k = 0; k < SIZE; k++)
                sum += (float)((k * SIZE + i) * (j * SIZE + k));
            if (found[j * SIZE + i] != sum)
                return false;
        }
    }
    return true;
}

static bool stride_too_large(cudaStream_t s)
{
    float *d = self_memory(SIZE * SIZE), *a = self_numbers(s, SIZE * SIZE);

    return multiply(s, d, a, SIZE + 1, a) == CUBLAS_STATUS_SUCCESS && self_wait(s);
}

static bool stride_too_small(cudaStream_t s)
{
    float *d = self_memory(SIZE * SIZE), *a = self_numbers(s, SIZE * SIZE);

    return multiply(s, d, a, SIZE - 1, a) == CUBLAS_STATUS_INVALID_VALUE;
}

static bool unwritten_operand(cudaStream_t s)
{
    float *d = self_memory(SIZE * SIZE), *a = self_numbers(s, SIZE * SIZE);

    return multiply(s, d, a, SIZE, self_memory(SIZE * SIZE)) == CUBLAS_STATUS_SUCCESS &&
           self_wait(s);
}

/* The product does not wait for the copy that brings b. */
static bool missing_event_wait(cudaStream_t s)
{
    float *d = self_memory(SIZE * SIZE), *a = self_numbers(s, SIZE * SIZE);
    float *b = self_numbers(s, SIZE * SIZE);
    cudaStream_t other;

    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaMemcpyAsync(b, a, SIZE * SIZE * sizeof(float), cudaMemcpyDeviceToDevice, other); // found
    multiply(s, d, a, SIZE, b);
    cudaStreamSynchronize(other);
    return self_wait(s);
}

const struct self_case library_faults[] = {
    {"product", SILENT, NULL, right_product},
    {"product with a leading dimension that is too large", FOUND_BY_BOTH, "out-of-bounds",
     stride_too_large},
    {"product with a leading dimension that is too small", SILENT, NULL, stride_too_small},
    {"product of new memory", FOUND, "uninitialised", unwritten_operand},
    {"product before the event of its operand", FOUND, "stream-race", missing_event_wait},
    END_OF_CASES};
