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

const char *const gr_memory_stage_names[GR_STAGE_COUNT] = {
#define X(NAME, name, dropped_from) [GR_STAGE_##NAME] = #name,
    GR_LAYER_STAGES(X)
#undef X
};

char *gr_memory_plan_redone(const struct gr_memory_plan *plan)
{
    char *text = NULL;

    for (int64_t i = 0; i < GR_STAGE_COUNT; i++) {
        char *before = text;

        if (plan->redone[i] == 0)
            continue;
        text = gr_format("%s%s%s in %" PRId64 " layer%s", before == NULL ? "" : before,
                         before == NULL ? "" : ", ", gr_memory_stage_names[i], plan->redone[i],
                         plan->redone[i] == 1 ? "" : "s");
        gr_free(before);
    }
    return text;
}

void gr_memory_plan_print(const struct gr_memory_plan *plan)
{
    char *redone = gr_memory_plan_redone(plan);

    gr_note("memory%s: weights %.1f MiB%s adapter, optimizer and gradients %.1f MiB, "
            "activations %.1f MiB per process",
            plan->is_apart ? " of the GPU" : "", mebibytes(plan->weight_bytes),
            plan->is_apart ? "," : " per host;", mebibytes(plan->state_bytes),
            mebibytes(plan->step_bytes));
    if (redone != NULL)
        gr_note("memory: computed again in the backward: %s", redone);
    if (plan->away_layers > 0)
        gr_note("memory: in the host's memory until the backward: the inputs of %" PRId64
                " layer%s, %.1f MiB per process",
                plan->away_layers, plan->away_layers == 1 ? "" : "s", mebibytes(plan->away_bytes));
    gr_free(redone);
}

int64_t gr_memory_plan_process(const struct gr_memory_plan *plan)
{
    return (plan->is_apart ? 0 : plan->state_bytes + plan->step_bytes) + plan->away_bytes +
           plan->program_bytes;
}

int64_t gr_memory_plan_host(const struct gr_memory_plan *plan, int processes)
{
    return (plan->is_apart ? 0 : plan->weight_bytes) + plan->save_bytes +
           processes * gr_memory_plan_process(plan);
}

int64_t gr_memory_plan_device(const struct gr_memory_plan *plan)
{
    return plan->is_apart ? plan->weight_bytes + plan->state_bytes + plan->step_bytes : 0;
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

    return kib < 0 ? 0 : kib * 1024;
}

int64_t gr_memory_available_after(bool *is_limited)
{
    int64_t available = gr_memory_available(is_limited);

    return available < 0 ? -1 : available + gr_memory_resident();
}
