/* See self.h. */
#include "self.h"

float *self_memory(int count)
{
    void *memory = NULL;

    cudaMalloc(&memory, (size_t)count * sizeof(float));
    return (float *)memory;
}

float *self_numbers(cudaStream_t stream, int count)
{
    void *host = NULL;
    float *device = self_memory(count);

    cudaMallocHost(&host, (size_t)count * sizeof(float));
    for (int i = 0; i < count; i++)
        ((float *)host)[i] = (float)i;
    cudaMemcpyAsync(device, host, (size_t)count * sizeof(float), cudaMemcpyHostToDevice, stream);
    cudaStreamSynchronize(stream);
    return device;
}

float *self_fetch(cudaStream_t stream, const void *device, int count)
{
    void *host = NULL;

    cudaMallocHost(&host, (size_t)count * sizeof(float));
    cudaMemcpyAsync(host, device, (size_t)count * sizeof(float), cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    return (float *)host;
}

bool self_wait(cudaStream_t stream)
{
    return cudaStreamSynchronize(stream) == cudaSuccess;
}
