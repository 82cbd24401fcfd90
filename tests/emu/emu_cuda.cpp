/* The CUDA calls that are about memory, copies and the device. */
#include "emu_internal.h"

#include <string.h>

namespace emu
{

static void copy(void *to, const void *from, size_t bytes, const char *name)
{
    if (is_device(from)) {
        dev_extent(from, bytes, name);
        check_copy_source(from, bytes);
    }
    if (is_device(to)) {
        dev_touch(to, bytes, STORE, name);
        if (checking && is_device(from)) /* what was never written stays so */
            memcpy(shadow_of + offset_of(to), shadow_of + offset_of(from), bytes);
    }
    memmove(to, from, bytes);
}

static const char *name_of(bool to_device, bool from_device)
{
    static const char *const names[2][2] = {{"copy within the host", "copy to the host"},
                                            {"copy to the device", "copy within the device"}};

    return names[to_device][from_device];
}

static void check_kind(bool to_device, bool from_device, cudaMemcpyKind kind)
{
    const bool says_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool says_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;

    if (kind != cudaMemcpyDefault && (to_device != says_to || from_device != says_from))
        fail("bad-pointer", "the kind %d of a %s does not fit its pointers", (int)kind,
             name_of(to_device, from_device));
}

/* The target of a copy to the host is full of NaN until the copy has run. */
static cudaError_t copy_later(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    const bool to_device = is_device(to), from_device = is_device(from);
    const char *name = name_of(to_device, from_device);

    if (bytes == 0)
        return cudaSuccess;
    check_kind(to_device, from_device, kind);
    if ((!to_device && !is_pinned(to)) || (!from_device && !is_pinned(from)))
        fail("pageable", "an asynchronous %s with memory of the host that is not pinned", name);
    check_extent(to, bytes, name);
    check_extent(from, bytes, name);
    if (!to_device) {
        if (!is_pending(to, bytes)) /* an earlier copy may still have to read it */
            memset(to, 0xff, bytes);
        pend(to, bytes, true, stream, name);
    } else if (!from_device) {
        pend(from, bytes, false, stream, name);
    }
    enqueue(stream, name, [=] { copy(to, from, bytes, name); });
    return cudaSuccess;
}

static int device_now;

static bool is_visible(int device)
{
    return device >= 0 && device < (int)devices.size();
}

} // namespace emu

using namespace emu;

extern "C" {

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    EMU_API;
    return memory_create(memory, bytes, false);
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    EMU_API;
    return memory_create(memory, bytes, true);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    EMU_API;
    return memory_create(memory, bytes, true);
}

cudaError_t cudaFree(void *memory)
{
    EMU_API;
    cudaDeviceSynchronize();
    memory_destroy(memory);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    EMU_API;
    return cudaFree(memory);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    EMU_API;
    return copy_later(to, from, bytes, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    EMU_API;
    if (width > to_pitch || width > from_pitch)
        return set_error(cudaErrorInvalidPitchValue);
    for (size_t i = 0; i < height; i++)
        copy_later((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width, kind,
                   stream);
    return cudaSuccess;
}

/* Waits for blocking streams only, as the real one. */
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    EMU_API;
    wait_for_blocking_streams();
    check_kind(is_device(to), is_device(from), kind);
    run_now("cudaMemcpy", [=] { copy(to, from, bytes, "cudaMemcpy"); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    EMU_API;
    if (bytes == 0)
        return cudaSuccess;
    dev_extent(memory, bytes, "cudaMemsetAsync");
    enqueue(stream, "cudaMemsetAsync", [=] {
        dev_touch(memory, bytes, STORE, "cudaMemsetAsync");
        fill(memory, value, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    EMU_API;
    wait_for_blocking_streams();
    run_now("cudaMemset", [=] {
        dev_touch(memory, bytes, STORE, "cudaMemset");
        memset(memory, value, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *total = memory_limit;
    *free_bytes = memory_limit - memory_used();
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = (int)devices.size();
    return *count > 0 ? cudaSuccess : set_error(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    if (!is_visible(device))
        return set_error(cudaErrorInvalidDevice);
    device_now = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = device_now;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    if (!is_visible(device))
        return set_error(cudaErrorInvalidDevice);
    memset((void *)properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "emulated GPU");
    snprintf(properties->uuid.bytes, sizeof properties->uuid.bytes, "EMU %d", devices[device]);
    properties->major = capability / 10;
    properties->minor = capability % 10;
    properties->multiProcessorCount = 8;
    properties->totalGlobalMem = memory_limit;
    properties->sharedMemPerBlock = SHARED_USUAL;
    properties->sharedMemPerBlockOptin = SHARED_MOST;
    properties->maxThreadsPerBlock = BLOCK_THREADS;
    properties->warpSize = WARP;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int)
{
    EMU_API;
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = 8;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = capability / 10;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = capability % 10;
        return cudaSuccess;
    case cudaDevAttrClockRate: /* kHz, as those of an A100 */
        *value = 1410000;
        return cudaSuccess;
    case cudaDevAttrMemoryClockRate:
        *value = 1215000;
        return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 5120;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = SHARED_MOST;
        return cudaSuccess;
    default:
        fail("not-modelled", "device attribute %d", (int)attribute);
    }
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    default:
        return "an emulated CUDA error";
    }
}

const char *cudaGetErrorName(cudaError_t error)
{
    return cudaGetErrorString(error);
}
}
