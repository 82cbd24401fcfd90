/* Joining the devices of a job's ranks, so that gradients need not go through the host. */
#ifndef GR_TRAINER_DEVICE_PEERS_H
#define GR_TRAINER_DEVICE_PEERS_H

#include "kernels/device.h"
#include "trainer/run/comm.h"

enum { GR_GRADIENT_PATH_BYTES = 1200 };

/* Tells each device how many ranks compute on it (gr_device_set_share), and that it may have its
 * part of what is free now.  All ranks call it when each has a device and none has taken memory;
 * later calls do nothing.  Errors: ERR_RETRY. */
gr_status gr_device_meet(struct gr_device *dev, struct gr_comm *comm);

/* Called by all ranks; begins with gr_device_meet.  backend: dist.backend; "mpi" joins nothing,
 * "nccl" must, "auto" does where every rank can; who has joined stays so.  path <- how gradients go
 * from now on, in words: "through the host: WHY".  Errors, on all ranks: ERR_DEVICE, ERR_RETRY (the
 * comm is broken then). */
gr_status gr_device_join_peers(struct gr_device *dev, struct gr_comm *comm, const char *backend,
                               char path[GR_GRADIENT_PATH_BYTES]);

#endif
