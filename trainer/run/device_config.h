/* From the device section of a configuration to an open device. */
#ifndef GR_TRAINER_DEVICE_CONFIG_H
#define GR_TRAINER_DEVICE_CONFIG_H

#include "kernels/device.h"
#include "trainer/config.h"

/* Cores this process may run on. */
int gr_usable_cores(void);
/* Threads of this process: device.threads, or the usable cores divided among local_size ranks. */
int gr_threads(const struct gr_config *config, int local_size);

/* For process local_rank of the local_size on this host.  Errors: ERR_USAGE for a setting this
 * version does not have, ERR_DEVICE. */
gr_status gr_device_open(struct gr_device **dev, const struct gr_config *config, int local_rank,
                         int local_size);

#endif
