/* Devices of several processes that reach one another without the host (NCCL between GPUs).
 *
 * Who has it joins once; exchanges and broadcasts are then queued on the device's stream like ops,
 * and like them leave a first failure in the device.  Nothing here waits longer than it was told
 * for a process that does not come; after that nothing is left but to end this one: what waits for
 * the device, as giving back its memory does, may wait for ever.  Without it the host carries what
 * goes between processes (trainer/run/comm.h).  Called by trainer/run. */
#ifndef GR_PEERS_H
#define GR_PEERS_H

#include "kernels/device.h"

/* Names a job; any process may make one, all join with the same. */
struct gr_peers_id {
    char bytes[128];
};

/* Whether devices can be joined here, each process having one of its own.  Errors: ERR_DEVICE (the
 * CPU, no library). */
gr_status gr_peers_open(struct gr_device *dev);
/* Errors: ERR_DEVICE. */
gr_status gr_peers_name(struct gr_device *dev, struct gr_peers_id *id);
/* All `size` processes at once, after gr_peers_open.  timeout_seconds: how long they may take to
 * come; likewise later, to the first exchange with a peer, and to leave (a library too old for it,
 * NCCL before 2.14, waits for ever).  Errors: ERR_RETRY (they did not), ERR_DEVICE. */
gr_status gr_peers_join(struct gr_device *dev, const struct gr_peers_id *id, int size, int rank,
                        double timeout_seconds);
bool gr_peers_are_joined(const struct gr_device *dev);
/* All at once, after gr_peers_wait; nothing where nobody joined.  A device that is destroyed leaves
 * nobody: it waits for no other process.  Errors: ERR_DEVICE; the device has then left, too. */
gr_status gr_peers_leave(struct gr_device *dev);

/* Sends and receives at once with one peer, which does the reverse; 1-D of the same dtype, F32 or
 * BF16; either may have no elements.  The device's failure is ERR_RETRY, here and below, where the
 * other side did not come to the first exchange in time, or is gone. */
void gr_peers_exchange(struct gr_device *dev, int peer, gr_tensor received, gr_tensor sent);
/* data of `root` to all. */
void gr_peers_broadcast(struct gr_device *dev, int root, gr_tensor data);
/* data <- the sum of all processes' data, 1-D F32 of the same size: the same bits on each of them,
 * in an order of additions that depends on how many they are and on how they are connected. */
void gr_peers_sum(struct gr_device *dev, gr_tensor data);
/* Waits for all that is queued.  Errors: ERR_RETRY (nothing came for timeout_seconds, or a peer is
 * gone; *lost is then the peer, or the root, of the first exchange that is not through, and what it
 * was where that is not known: of a sum), those of the device. */
gr_status gr_peers_wait(struct gr_device *dev, int *lost, double timeout_seconds);

#endif
