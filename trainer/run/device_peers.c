/* Who shares a GPU, who may join, and the name of the job, which rank 0 makes.  See device_peers.h.
 */
#include "trainer/run/device_peers.h"

#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "kernels/peers.h"

#include <stdio.h>
#include <string.h>

static const char phase[] = "joining of devices";

static gr_status join(struct gr_device *dev, struct gr_comm *comm)
{
    struct gr_peers_id id = {{0}};
    gr_status status = GR_OK;

    if (gr_comm_rank(comm) == 0)
        status = gr_peers_name(dev, &id);
    GR_TRY(gr_comm_agree_status(comm, status, phase));
    GR_TRY(gr_comm_broadcast(comm, 0, &id, sizeof id, phase));
    GR_TRY(gr_failpoint(GR_FAILPOINT_PEERS_JOIN));
    status = gr_peers_join(dev, &id, gr_comm_size(comm), gr_comm_rank(comm),
                           gr_comm_timeout_seconds(comm));
    if (status == GR_ERR_RETRY) /* who is missing cannot agree; what has begun cannot be undone */
        gr_comm_break(comm);
    GR_TRY(gr_comm_agree_status(comm, status, phase));
out:
    return status;
}

gr_status gr_device_meet(struct gr_device *dev, struct gr_comm *comm)
{
    gr_status status = GR_OK;
    struct gr_device_id mine = gr_device_id(dev), *all = NULL;
    int64_t available;
    int processes = 0;

    if (gr_device_processes(dev) > 0)
        return GR_OK;
    all = GR_NEW_ARRAY(struct gr_device_id, gr_comm_size(comm));
    available = gr_device_memory_available(dev); /* before anybody comes to take some */
    GR_TRY(gr_comm_all_gather(comm, all, &mine, (int64_t)sizeof mine, phase));
    for (int rank = 0; rank < gr_comm_size(comm); rank++)
        processes += memcmp(&all[rank], &mine, sizeof mine) == 0;
    if (gr_device_uses_host_memory(dev)) /* is divided elsewhere, among the ranks of the host */
        processes = 1;
    gr_device_set_share(dev, processes, available / processes);
out:
    gr_free(all);
    return status;
}

static gr_status open_peers(struct gr_device *dev)
{
    if (gr_device_processes(dev) > 1)
        return gr_fail(GR_ERR_DEVICE, "dist.backend", "set dist.backend to mpi, or to auto",
                       "NCCL needs a GPU for each rank (found %d ranks on one GPU)",
                       gr_device_processes(dev));
    return gr_peers_open(dev);
}

gr_status gr_device_join_peers(struct gr_device *dev, struct gr_comm *comm, const char *backend,
                               char path[GR_GRADIENT_PATH_BYTES])
{
    gr_status status = GR_OK;

    if (gr_peers_are_joined(dev) || gr_comm_size(comm) == 1)
        return GR_OK;
    GR_TRY(gr_device_meet(dev, comm));
    snprintf(path, GR_GRADIENT_PATH_BYTES, "through the host: dist.backend is %s", backend);
    if (strcmp(backend, "mpi") == 0)
        return GR_OK;
    status = gr_comm_agree_status(comm, open_peers(dev), phase);
    if (status == GR_ERR_DEVICE && strcmp(backend, "auto") == 0) {
        snprintf(path, GR_GRADIENT_PATH_BYTES, "through the host: %s", gr_error_message());
        gr_error_clear();
        return GR_OK;
    }
    GR_TRY(status);
    GR_TRY(join(dev, comm));
    snprintf(path, GR_GRADIENT_PATH_BYTES, "from GPU to GPU by NCCL");
out:
    return status;
}
