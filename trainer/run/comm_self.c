/* One process alone, without MPI: what `graft train` without mpirun runs on.  Twin of comm_mpi.c.
 */
#include "trainer/run/comm_backend.h"

#include <string.h>
#include <unistd.h>

static gr_status self_join(struct gr_comm *comm)
{
    comm->rank = 0;
    comm->size = 1;
    return GR_OK;
}

static gr_status self_exchange(struct gr_comm *comm, int peer, void *received,
                               int64_t receive_bytes, const void *sent, int64_t send_bytes,
                               const char *phase)
{
    (void)comm;
    (void)peer;
    GR_CHECK(receive_bytes == send_bytes, "%s: %lld bytes sent, %lld to receive", phase,
             (long long)send_bytes, (long long)receive_bytes);
    if (send_bytes > 0)
        memmove(received, sent, (size_t)send_bytes);
    return GR_OK;
}

static void self_leave(struct gr_comm *comm)
{
    (void)comm;
}

static void self_abort(int exit_code)
{
    _exit(exit_code);
}

const struct gr_comm_backend gr_comm_self = {
    .kind = "self",
    .join = self_join,
    .exchange = self_exchange,
    .leave = self_leave,
    .abort = self_abort,
};
