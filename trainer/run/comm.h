/* Processes: who we are, and how bytes go between ranks.  Twins: comm_self.c (no MPI at all) and
 * comm_mpi.c.  Host memory only; every call has a deadline: a peer from which nothing came for
 * timeout_seconds, or that is gone, is ERR_RETRY with a message that names rank and phase.
 * `phase` is a word for that message: "gradients", "start". */
#ifndef GR_TRAINER_COMM_H
#define GR_TRAINER_COMM_H

#include "kernels/base/status.h"

#include <stdint.h>

struct gr_comm;

/* Joins the job: MPI when mpirun started us (its environment says so), else `self`.  Errors:
 * ERR_DEVICE, ERR_RETRY. */
gr_status gr_comm_create(struct gr_comm **comm, double timeout_seconds);
/* Leaves the job: all ranks do it together, or, once a rank was lost, each alone.  Afterwards only
 * rank and size can be asked, and what a rank has left to do alone may take its time. */
gr_status gr_comm_leave(struct gr_comm *comm);
/* Leaves the job if that was not done.  NULL is fine. */
void gr_comm_destroy(struct gr_comm *comm);
/* Ends every process of the job on the spot; mpirun then returns exit_code.  The way out after a
 * rank was lost.  NULL: ends this process. */
_Noreturn void gr_comm_abort(struct gr_comm *comm, int exit_code);
/* A peer was lost: nothing can be agreed on any more, and gr_comm_abort is the way out, before
 * anything is given back that may wait for the peer. */
bool gr_comm_is_broken(const struct gr_comm *comm);
/* Makes it so. */
void gr_comm_break(struct gr_comm *comm);

/* The same as if an exchange had failed: a device that joined its peers itself (kernels/peers.h)
 * has lost this one; our own rank: one of them.  Takes the message that this thread has as the
 * reason, and returns ERR_RETRY. */
gr_status gr_comm_lose(struct gr_comm *comm, int peer, const char *phase);
double gr_comm_timeout_seconds(const struct gr_comm *comm);

int gr_comm_rank(const struct gr_comm *comm);
int gr_comm_size(const struct gr_comm *comm);
int gr_comm_local_rank(const struct gr_comm *comm); /* among the ranks of this host */
int gr_comm_local_size(const struct gr_comm *comm);
int gr_comm_io_rank(const struct gr_comm *comm);      /* the one rank that writes files */
const char *gr_comm_kind(const struct gr_comm *comm); /* "self", "mpi" */

/* Sends and receives at once with one peer; either side may be of 0 bytes.  Both ranks give the
 * same phase, here and below: messages of different phases never meet.  Once this or anything built
 * on it has failed, all later calls fail at once: end the job with gr_comm_abort. */
gr_status gr_comm_exchange(struct gr_comm *comm, int peer, void *received, int64_t receive_bytes,
                           const void *sent, int64_t send_bytes, const char *phase);
gr_status gr_comm_broadcast(struct gr_comm *comm, int root, void *data, int64_t bytes,
                            const char *phase);
/* all[rank] <- one, `bytes` each, on every rank. */
gr_status gr_comm_all_gather(struct gr_comm *comm, void *all, const void *one, int64_t bytes,
                             const char *phase);
/* Every rank gets the OR of all ranks' flags: how a stop or a failure becomes common knowledge. */
gr_status gr_comm_agree(struct gr_comm *comm, uint64_t *flags, const char *phase);
/* All ranks call it with their own status; all return the same: OK, or the failure of the lowest
 * failing rank with its message (so that every rank leaves together and one prints). */
gr_status gr_comm_agree_status(struct gr_comm *comm, gr_status mine, const char *phase);

#endif
