/* Opening the device a configuration asks for.  See device_config.h. */
#include "trainer/run/device_config.h"

#include "kernels/base/env.h"

#include <sched.h>

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

gr_status gr_device_open(struct gr_device **dev, const struct gr_config *config, int local_size)
{
    return gr_device_create(dev, config->device.backend, gr_threads(config, local_size),
                            gr_env(GR_ENV_GRAFT_ISA));
}
