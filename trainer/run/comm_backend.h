/* What a way to communicate is: the struct behind gr_comm and the table of its functions.  Included
 * by comm.c and the twins comm_self.c and comm_mpi.c only.  The collectives are built in comm.c on
 * `exchange`, so a twin knows nothing but two processes. */
#ifndef GR_TRAINER_COMM_BACKEND_H
#define GR_TRAINER_COMM_BACKEND_H

#include "trainer/run/comm.h"

struct gr_comm_backend {
    const char *kind;
    /* Fills rank and size.  What it started is ended by leave, also after a failure. */
    gr_status (*join)(struct gr_comm *);
    gr_status (*exchange)(struct gr_comm *, int peer, void *received, int64_t receive_bytes,
                          const void *sent, int64_t send_bytes, const char *phase);
    void (*leave)(struct gr_comm *); /* never waits when comm->failed */
    void (*abort)(int exit_code);    /* ends every process of the job */
};
extern const struct gr_comm_backend gr_comm_self, gr_comm_mpi;

/* What every rank tells every other one at the start. */
struct gr_comm_hello {
    char host[64];
    char boot_id[40];  /* two machines may both be called "localhost" */
    bool has_hostfile; /* an MPI operator's launcher: the pod others look at */
};

struct gr_comm {
    const struct gr_comm_backend *backend;
    int rank, size, local_rank, local_size, io_rank;
    double timeout_seconds;
    bool failed;                  /* a peer was lost: nothing is sent or awaited any more */
    bool has_left;                /* the job */
    struct gr_comm_hello *hellos; /* [size]; NULL until the ranks know each other */
};

/* The lowest rank whose host has the hostfile, else 0. */
int gr_comm_elect_io_rank(const struct gr_comm_hello *hellos, int size);

/* Leaves the message of a lost peer: "dist: rank 3 on node-2 lost during gradients (WHY)". */
gr_status gr_comm_lost(struct gr_comm *comm, int peer, const char *phase, const char *why, ...)
    __attribute__((format(printf, 4, 5)));

#endif
