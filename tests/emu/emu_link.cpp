/* See emu_link.h. */
#include "emu_link.h"

static void fail(const char *kind, const char *message)
{
    emu::fail(kind, "%s", message);
}

static void device_properties(cudaDeviceProp *properties)
{
    int device = 0;

    cudaGetDevice(&device);
    cudaGetDeviceProperties(properties, device);
}

extern "C" __attribute__((visibility("default"))) const struct emu_link emu_link_table = {
    fail, emu::enqueue_poll, emu::dev_extent, emu::dev_touch, device_properties};
