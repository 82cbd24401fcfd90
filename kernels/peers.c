/* Devices of several processes: what a backend that has none answers, and the order of calls.  See
 * peers.h; the work is in cuda/nccl.cu. */
#include "kernels/peers.h"

#include "kernels/backend.h"

gr_status gr_peers_open(struct gr_device *dev)
{
    if (dev->peers == NULL)
        return gr_fail(GR_ERR_DEVICE, "dist.backend", "set dist.backend to mpi, or to auto",
                       "there is no NCCL for this device (found %s, expected cuda)", dev->name);
    return dev->peers->open(dev);
}

gr_status gr_peers_name(struct gr_device *dev, struct gr_peers_id *id)
{
    return dev->peers->name(dev, id);
}

gr_status gr_peers_join(struct gr_device *dev, const struct gr_peers_id *id, int size, int rank,
                        double timeout_seconds)
{
    gr_status status = dev->peers->join(dev, id, size, rank, timeout_seconds);

    dev->peers_are_joined = status == GR_OK;
    return status;
}

gr_status gr_peers_leave(struct gr_device *dev)
{
    if (!dev->peers_are_joined)
        return GR_OK;
    dev->peers_are_joined = false;
    return dev->failure.status == GR_OK ? dev->peers->leave(dev) : gr_device_status(dev);
}

bool gr_peers_are_joined(const struct gr_device *dev)
{
    return dev->peers_are_joined;
}

void gr_peers_exchange(struct gr_device *dev, int peer, gr_tensor received, gr_tensor sent)
{
    GR_CHECK(dev->peers_are_joined, "an exchange with rank %d before joining", peer);
    if (dev->failure.status == GR_OK)
        dev->peers->exchange(dev, peer, received, sent);
}

void gr_peers_broadcast(struct gr_device *dev, int root, gr_tensor data)
{
    GR_CHECK(dev->peers_are_joined, "a broadcast of rank %d before joining", root);
    if (dev->failure.status == GR_OK)
        dev->peers->broadcast(dev, root, data);
}

void gr_peers_sum(struct gr_device *dev, gr_tensor data)
{
    GR_CHECK(dev->peers_are_joined, "a sum of %lld elements before joining",
             (long long)data.dim[0]);
    if (dev->failure.status == GR_OK)
        dev->peers->sum(dev, data);
}

gr_status gr_peers_wait(struct gr_device *dev, int *lost, double timeout_seconds)
{
    if (dev->failure.status == GR_OK)
        return dev->peers->wait(dev, lost, timeout_seconds);
    return gr_device_status(dev);
}
