/* See emu_count.h. */
#include "emu_count.h"
#include "emu_internal.h"

namespace emu
{

counters counted;

static bool counting;
static emu_host host;
static std::vector<emu_operation> counted_operations;

void count_operation(const char *name, bool is_kernel)
{
    if (counting)
        counted_operations.push_back({name, is_kernel, counted.loaded, counted.stored,
                                      counted.flops, counted.m, counted.n, counted.k});
}

void count_wait()
{
    host.waits += counting;
}

void count_allocation()
{
    host.allocations += counting;
}

} // namespace emu

int nvtxRangePushA(const char *)
{
    emu::host.ranges += emu::counting;
    emu::host.open += emu::counting;
    return 0;
}

int nvtxRangePop()
{
    emu::host.open -= emu::counting;
    return 0;
}

#define EXPORTED __attribute__((visibility("default")))

extern "C" {

EXPORTED void emu_count(int32_t on)
{
    emu::counted_operations.clear();
    emu::host = {};
    emu::counting = on != 0;
}

EXPORTED int64_t emu_counted(void)
{
    return (int64_t)emu::counted_operations.size();
}

EXPORTED struct emu_operation emu_counted_operation(int64_t i)
{
    return emu::counted_operations.at((size_t)i);
}

EXPORTED struct emu_host emu_counted_host(void)
{
    return emu::host;
}
}
