/* What there is beside the GPU: the driver and NVIDIA's libraries, with their versions.  Called by
 * graft doctor. */
#include "kernels/cuda/cudnn_plans.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* The version of NCCL as it counts; 0: there is none. */
static int nccl_version()
{
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    int (*get)(int *) = NULL;
    int version = 0;

    if (library != NULL)
        get = (int (*)(int *))dlsym(library, "ncclGetVersion");
    if (get != NULL && get(&version) != 0)
        version = 0;
    return version;
}

static void describe_cudnn(char *line, size_t size)
{
    struct gr_cudnn cudnn;
    char why[256];

    if (gr_cudnn_open(&cudnn, why, sizeof why)) {
        const long version = (long)cudnn.cudnnGetVersion();

        snprintf(line, size, "%ld.%ld.%ld", version / 10000, version / 100 % 100, version % 100);
    } else {
        snprintf(line, size, "none (%s)", why);
    }
}

void gr_cuda_describe(struct gr_device *dev, char *text, int64_t size)
{
    const long blas = (long)cublasLtGetVersion();
    const int nccl = nccl_version();
    struct cudaDeviceProp gpu;
    size_t available = 0, all = 0;
    int driver = 0, number = 0;
    char cudnn[320], nccl_words[32];

    cudaDriverGetVersion(&driver);
    cudaMemGetInfo(&available, &all);
    cudaGetDevice(&number);
    if (cudaGetDeviceProperties(&gpu, number) != cudaSuccess)
        gpu.multiProcessorCount = 0;
    describe_cudnn(cudnn, sizeof cudnn);
    snprintf(nccl_words, sizeof nccl_words, nccl == 0 ? "none" : "%d.%d.%d", nccl / 10000,
             nccl / 100 % 100, nccl % 100);
    snprintf(text, (size_t)size,
             "gpu: %s, %d multiprocessors\nfree: %.1f of %.1f GiB\ndriver: of CUDA %d.%d\n"
             "cublas: cuBLASLt %ld.%ld.%ld\ncudnn: %s\nnccl: %s\n",
             dev->isa, gpu.multiProcessorCount, (double)available / (1 << 30),
             (double)all / (1 << 30), driver / 1000, driver % 1000 / 10, blas / 10000,
             blas / 100 % 100, blas % 100, cudnn, nccl_words);
}
