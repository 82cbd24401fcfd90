/* Opening the device a configuration asks for.  See device_config.h. */
#include "trainer/run/device_config.h"

#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "trainer/run/inputs.h"

#include <sched.h>
#include <string.h>

int gr_usable_cores(void)
{
    cpu_set_t usable;

    return sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : 1;
}

int gr_threads(const struct gr_config *config, int local_size)
{
    int cores = gr_usable_cores();

    if (config->device.threads > 0)
        return (int)config->device.threads;
    return cores / local_size > 1 ? cores / local_size : 1;
}

gr_status gr_device_open(struct gr_device **dev, const struct gr_config *config, int local_rank,
                         int local_size)
{
    gr_status status = GR_OK;
    char *folder = NULL;

    GR_TRY(gr_device_create_local(dev, config->device.backend, gr_threads(config, local_size),
                                  gr_env(GR_ENV_GRAFT_ISA), local_rank));
    if (config->device.deterministic) /* cuDNN's backward adds by atomics */
        GR_TRY(gr_device_choose_attention(*dev, GR_ATTENTION_OWN));
    if (config->device.deterministic || strcmp(gr_device_name(*dev), "cpu") == 0)
        goto out; /* what is chosen by time is not the same everywhere */
    if (gr_cache_dir(&folder, config) == GR_OK)
        gr_device_set_cache(*dev, folder);
    else
        gr_error_clear();
out:
    gr_free(folder);
    return status;
}
