/* The memory plan and what there is to hold against it.  See memory_plan.h. */
#include "trainer/run/memory_plan.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static double mebibytes(int64_t bytes)
{
    return (double)bytes / (1024 * 1024);
}

void gr_memory_plan_print(const struct gr_memory_plan *plan)
{
    gr_note("memory: weights %.1f MiB per host; adapter, optimizer and gradients %.1f MiB, "
            "activations %.1f MiB per process",
            mebibytes(plan->weight_bytes), mebibytes(plan->state_bytes),
            mebibytes(plan->step_bytes));
}

int64_t gr_memory_plan_process(const struct gr_memory_plan *plan)
{
    return plan->state_bytes + plan->step_bytes + plan->program_bytes;
}

int64_t gr_memory_plan_host(const struct gr_memory_plan *plan, int processes)
{
    return plan->weight_bytes + plan->save_bytes + processes * gr_memory_plan_process(plan);
}

/* The number behind `name` at the start of a line; -1 where there is none ("max", no such file). */
static int64_t read_number(const char *path, const char *name)
{
    char line[256];
    int64_t value = -1;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return -1;
    while (value < 0 && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), "%" SCNd64, &value);
    }
    fclose(file);
    return value;
}

/* Limit, use and the part of it that is file cache, which gives way: cgroup version 2, and 1. */
static const struct {
    const char *limit, *used, *stat, *cache;
} cgroups[] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
     "inactive_file "},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
     "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file "},
};

int64_t gr_memory_machine(void)
{
    int64_t bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);

    for (int64_t i = 0; i < GR_COUNT(cgroups); i++) {
        int64_t limit = read_number(cgroups[i].limit, "");

        if (limit >= 0 && limit < bytes)
            bytes = limit;
    }
    return bytes;
}

int64_t gr_memory_available(bool *is_limited)
{
    int64_t kib = read_number("/proc/meminfo", "MemAvailable:");
    int64_t available = kib < 0 ? -1 : kib * 1024;

    *is_limited = false;
    for (int64_t i = 0; i < GR_COUNT(cgroups); i++) {
        int64_t limit = read_number(cgroups[i].limit, ""), used = read_number(cgroups[i].used, "");
        int64_t cache = read_number(cgroups[i].stat, cgroups[i].cache), left = limit - used;

        if (limit < 0 || used < 0)
            continue;
        left += cache > 0 ? cache : 0;
        if (available < 0 || left < available) {
            available = left;
            *is_limited = true;
        }
    }
    return available;
}

int64_t gr_memory_resident(void)
{
    int64_t kib = read_number("/proc/self/status", "VmRSS:");

    return kib < 0 ? -1 : kib * 1024;
}
