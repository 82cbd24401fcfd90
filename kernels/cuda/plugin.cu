/* What the program calls when it opens the plug-in: a device of this process, with its stream,
 * library handle and pinned memory. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cudnn_plans.h"
#include "kernels/cuda/gemm.h"
#include "kernels/sum_order.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const char hint[] = "set device.backend to cpu, or to auto";

static gr_status refuse(const char *what, cudaError_t error)
{
    return gr_fail(GR_ERR_DEVICE, "device.backend", hint, "%s (found %s)", what,
                   cudaGetErrorString(error));
}

/* CUDA's own word for both is that the driver is too old. */
static gr_status refuse_driver(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);

    if (driver == NULL)
        return gr_fail(GR_ERR_DEVICE, "device.backend", hint,
                       "there is no NVIDIA driver (found no libcuda.so.1)");
    dlclose(driver);
    return gr_fail(GR_ERR_DEVICE, "device.backend", hint,
                   "the NVIDIA driver is too old (expected one for CUDA %d.%d)",
                   CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

/* Several ranks of a host take its GPUs in turn; or each sees only those that are its own. */
static gr_status choose_gpu(struct gr_device *dev, int local_rank)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    struct cudaDeviceProp properties;
    cudaError_t error;
    int count = 0, gpu;

    error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver)
        return refuse_driver();
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
        return gr_fail(GR_ERR_DEVICE, "device.backend", hint,
                       "there is no NVIDIA GPU that this process may use (found none)");
    if (error != cudaSuccess)
        return refuse("CUDA does not start", error);
    gpu = local_rank % count;
    error = cudaSetDevice(gpu);
    if (error == cudaSuccess)
        error = cudaGetDeviceProperties(&properties, gpu);
    if (error != cudaSuccess)
        return refuse("the GPU does not answer", error);
    if (properties.major < 8)
        return gr_fail(GR_ERR_DEVICE, "device.backend", hint,
                       "%s is too old (found compute capability %d.%d, expected 8.0 or newer)",
                       properties.name, properties.major, properties.minor);
    static_assert(sizeof dev->id == sizeof properties.uuid, "a UUID has 16 bytes");
    memcpy(&dev->id, &properties.uuid, sizeof dev->id);
    dev->count = count;
    snprintf(c->isa, sizeof c->isa, "sm_%d%d %.64s", properties.major, properties.minor,
             properties.name);
    return GR_OK;
}

/* What beside the GPU decides the bits. */
static void name_software(struct gr_cuda *c)
{
    const long blas = (long)cublasLtGetVersion();
    int driver = 0;

    cudaDriverGetVersion(&driver);
    snprintf(c->software, sizeof c->software, "CUDA driver %d.%d, cuBLASLt %ld.%ld.%ld",
             driver / 1000, driver % 1000 / 10, blas / 10000, blas / 100 % 100, blas % 100);
}

/* By what the GPU says of itself: multiprocessors, its highest clocks, the width of its bus. */
static struct gr_device_peak find_peak(void)
{
    static const struct {
        int major, minor;
        double flop; /* of a multiprocessor in a clock: NVIDIA's architecture papers */
    } rates[] = {{8, 0, 2048}, {9, 0, 4096}, {10, 0, 8192}};
    static const cudaDeviceAttr wanted[] = {
        cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor,
        cudaDevAttrMultiProcessorCount,    cudaDevAttrClockRate,
        cudaDevAttrMemoryClockRate,        cudaDevAttrGlobalMemoryBusWidth};
    struct gr_device_peak peak = {0, 0};
    int found[GR_COUNT(wanted)] = {0}, gpu = 0;

    cudaGetDevice(&gpu);
    for (int64_t i = 0; i < GR_COUNT(wanted); i++) {
        if (cudaDeviceGetAttribute(&found[i], wanted[i], gpu) != cudaSuccess)
            cudaGetLastError(); /* does not stick */
    }
    for (int64_t i = 0; i < GR_COUNT(rates); i++) {
        if (rates[i].major == found[0] && rates[i].minor == found[1])
            peak.flop_per_s = rates[i].flop * found[2] * found[3] * 1e3;
    }
    peak.bytes_per_s = 2.0 * found[4] * 1e3 * found[5] / 8; /* both edges of its clock */
    return peak;
}

static cudaError_t make_resources(struct gr_cuda *c)
{
    cudaError_t error = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);

    for (int i = 0; i < GR_CUDA_SLOTS && error == cudaSuccess; i++) {
        error = cudaMallocHost((void **)&c->slot[i], GR_CUDA_SLOT_BYTES);
        if (error == cudaSuccess)
            error = cudaEventCreateWithFlags(&c->slot_is_free[i], cudaEventDisableTiming);
    }
    if (error == cudaSuccess)
        error = cudaMallocHost((void **)&c->arrivals, GR_CUDA_SLOT_BYTES);
    if (error == cudaSuccess)
        error = cudaMalloc((void **)&c->partial, GR_PARTIALS_MOST * sizeof *c->partial);
    if (error == cudaSuccess)
        error = cudaMalloc((void **)&c->clip, sizeof *c->clip);
    if (error == cudaSuccess)
        error = gr_cuda_gemm_open(c);
    return error;
}

void gr_cuda_close(struct gr_device *dev)
{
    struct gr_cuda *c = gr_cuda_of(dev);

    if (c == NULL)
        return;
    gr_cuda_peers_close(c);
    gr_cuda_timer_close(c);
    gr_cuda_stash_close(c);
    gr_cuda_gemm_close(c);
    gr_cuda_cudnn_close(c);
    if (c->blaslt != NULL)
        cublasLtDestroy(c->blaslt);
    for (int i = 0; i < GR_CUDA_SLOTS; i++) {
        if (c->slot_is_free[i] != NULL)
            cudaEventDestroy(c->slot_is_free[i]);
        cudaFreeHost(c->slot[i]);
    }
    cudaFreeHost(c->arrivals);
    cudaFree(c->partial);
    cudaFree(c->clip);
    if (c->stream != NULL)
        cudaStreamDestroy(c->stream);
    gr_free(c);
    dev->backend = NULL;
}

extern "C" __attribute__((visibility("default"))) gr_status gr_cuda_open(struct gr_device *dev,
                                                                         int local_rank)
{
    gr_status status = GR_OK;
    struct gr_cuda *c = GR_NEW(struct gr_cuda);
    cudaError_t error;

    dev->backend = c;
    GR_TRY(choose_gpu(dev, local_rank));
    error = make_resources(c);
    if (error != cudaSuccess)
        GR_TRY(refuse("the GPU gives no stream, no memory or no pinned memory", error));
    if (cublasLtCreate(&c->blaslt) != CUBLAS_STATUS_SUCCESS)
        GR_TRY(gr_fail(GR_ERR_DEVICE, "device.backend", hint, "cuBLASLt does not start"));
    dev->ops = &gr_cuda_ops;
    dev->peers = &gr_cuda_peers;
    dev->name = "cuda";
    dev->isa = c->isa;
    name_software(c);
    dev->software = c->software;
    dev->head_dim_most = GR_ATTENTION_HEAD_DIM;
    dev->peak = find_peak();
    dev->prefers_bf16 = true;
out:
    if (status != GR_OK)
        gr_cuda_close(dev);
    return status;
}
