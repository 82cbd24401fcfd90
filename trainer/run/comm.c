/* Joins the job, says who is who, and builds the collectives on the exchange between two ranks:
 * binomial trees, so that each has the deadline of its exchanges and none can hang.  Bytes are
 * moved by the twins comm_self.c and comm_mpi.c.  Called by the program (create, destroy) and the
 * loop. */
#include "trainer/run/comm.h"

#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "trainer/run/comm_backend.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Mounted by MPI operators on the launcher's pod alone. */
static const char hostfile[] = "/etc/mpi/hostfile";
static const char boot_id_file[] = "/proc/sys/kernel/random/boot_id";
static const char hint_lost[] =
    "look at the messages of that rank and its host, then start the run again";

static bool started_by_mpirun(void)
{
    return gr_env(GR_ENV_OMPI_COMM_WORLD_SIZE) != NULL || gr_env(GR_ENV_PMIX_RANK) != NULL;
}

int gr_comm_elect_io_rank(const struct gr_comm_hello *hellos, int size)
{
    for (int rank = 0; rank < size; rank++) {
        if (hellos[rank].has_hostfile)
            return rank;
    }
    return 0;
}

static bool same_host(const struct gr_comm_hello *a, const struct gr_comm_hello *b)
{
    return strcmp(a->host, b->host) == 0 && strcmp(a->boot_id, b->boot_id) == 0;
}

static void say_hello(struct gr_comm_hello *hello)
{
    int file = open(boot_id_file, O_RDONLY | O_CLOEXEC);

    memset(hello, 0, sizeof *hello);
    if (gethostname(hello->host, sizeof hello->host - 1) != 0)
        snprintf(hello->host, sizeof hello->host, "unknown");
    if (file >= 0) {
        if (read(file, hello->boot_id, sizeof hello->boot_id - 1) < 0)
            hello->boot_id[0] = '\0';
        close(file);
    }
    hello->has_hostfile = access(hostfile, F_OK) == 0;
}

/* Everybody learns who shares a host and who writes files. */
static gr_status introduce(struct gr_comm *comm)
{
    struct gr_comm_hello mine;
    struct gr_comm_hello *hellos = GR_NEW_ARRAY(struct gr_comm_hello, comm->size);
    gr_status status = GR_OK;

    say_hello(&mine);
    GR_TRY(gr_comm_all_gather(comm, hellos, &mine, sizeof mine, "start"));
    for (int rank = 0; rank < comm->size; rank++) {
        if (same_host(&hellos[rank], &mine)) {
            comm->local_size++;
            comm->local_rank += rank < comm->rank;
        }
    }
    comm->io_rank = gr_comm_elect_io_rank(hellos, comm->size);
    comm->hellos = hellos;
    hellos = NULL;
out:
    gr_free(hellos);
    return status;
}

gr_status gr_comm_create(struct gr_comm **comm, double timeout_seconds)
{
    struct gr_comm *c = GR_NEW(struct gr_comm);
    gr_status status = GR_OK;

    *comm = NULL;
    c->timeout_seconds = timeout_seconds;
    c->backend = started_by_mpirun() ? &gr_comm_mpi : &gr_comm_self;
    GR_TRY(c->backend->join(c));
    GR_TRY(introduce(c));
    *comm = c;
    c = NULL;
out:
    if (c != NULL)
        c->failed = true;
    gr_comm_destroy(c);
    return status;
}

bool gr_comm_is_broken(const struct gr_comm *comm)
{
    return comm != NULL && comm->failed;
}

void gr_comm_break(struct gr_comm *comm)
{
    comm->failed = true;
}

gr_status gr_comm_leave(struct gr_comm *comm)
{
    gr_status status = GR_OK;
    uint64_t nothing = 0;

    if (comm->has_left)
        return GR_OK;
    /* MPI_Finalize waits for all ranks without a deadline; only go there together. */
    if (!comm->failed)
        status = gr_comm_agree(comm, &nothing, "end");
    comm->backend->leave(comm);
    comm->has_left = true;
    return status;
}

void gr_comm_destroy(struct gr_comm *comm)
{
    if (comm == NULL)
        return;
    gr_comm_leave(comm);
    gr_free(comm->hellos);
    gr_free(comm);
}

void gr_comm_abort(struct gr_comm *comm, int exit_code)
{
    fflush(NULL);
    if (comm != NULL)
        comm->backend->abort(exit_code);
    _exit(exit_code);
}

int gr_comm_rank(const struct gr_comm *comm)
{
    return comm->rank;
}

int gr_comm_size(const struct gr_comm *comm)
{
    return comm->size;
}

int gr_comm_local_rank(const struct gr_comm *comm)
{
    return comm->local_rank;
}

int gr_comm_local_size(const struct gr_comm *comm)
{
    return comm->local_size;
}

int gr_comm_io_rank(const struct gr_comm *comm)
{
    return comm->io_rank;
}

const char *gr_comm_kind(const struct gr_comm *comm)
{
    return comm->backend->kind;
}

gr_status gr_comm_lost(struct gr_comm *comm, int peer, const char *phase, const char *why, ...)
{
    char reason[256];
    va_list args;

    va_start(args, why);
    vsnprintf(reason, sizeof reason, why, args);
    va_end(args);
    if (comm->hellos == NULL)
        return gr_fail(GR_ERR_RETRY, "dist", hint_lost, "rank %d lost during %s (%s)", peer, phase,
                       reason);
    return gr_fail(GR_ERR_RETRY, "dist", hint_lost, "rank %d on %s lost during %s (%s)", peer,
                   comm->hellos[peer].host, phase, reason);
}

gr_status gr_comm_lose(struct gr_comm *comm, int peer, const char *phase)
{
    struct gr_error why = gr_error_take();

    comm->failed = true;
    if (peer == comm->rank)
        return gr_fail(GR_ERR_RETRY, "dist", hint_lost, "a rank was lost during %s (found %s)",
                       phase, why.message);
    return gr_comm_lost(comm, peer, phase, "found %s", why.message);
}

double gr_comm_timeout_seconds(const struct gr_comm *comm)
{
    return comm->timeout_seconds;
}

gr_status gr_comm_exchange(struct gr_comm *comm, int peer, void *received, int64_t receive_bytes,
                           const void *sent, int64_t send_bytes, const char *phase)
{
    gr_status status;

    GR_CHECK(peer >= 0 && peer < comm->size && receive_bytes >= 0 && send_bytes >= 0 &&
                 !comm->has_left,
             "%s: rank %d of %d, %lld and %lld bytes", phase, peer, comm->size,
             (long long)receive_bytes, (long long)send_bytes);
    if (comm->failed)
        return gr_fail(GR_ERR_RETRY, "dist", hint_lost, "no %s: a rank was lost before", phase);
    status = comm->backend->exchange(comm, peer, received, receive_bytes, sent, send_bytes, phase);
    comm->failed = status != GR_OK;
    return status;
}

static gr_status send_to(struct gr_comm *comm, int peer, const void *data, int64_t bytes,
                         const char *phase)
{
    return gr_comm_exchange(comm, peer, NULL, 0, data, bytes, phase);
}

static gr_status receive_from(struct gr_comm *comm, int peer, void *data, int64_t bytes,
                              const char *phase)
{
    return gr_comm_exchange(comm, peer, data, bytes, NULL, 0, phase);
}

/* Ranks are numbered from the root.  Each hears from the number without its lowest set bit, then
 * tells those that differ from it in one bit below. */
gr_status gr_comm_broadcast(struct gr_comm *comm, int root, void *data, int64_t bytes,
                            const char *phase)
{
    int me = (comm->rank - root + comm->size) % comm->size;
    int bit = 1;
    gr_status status = GR_OK;

    while (bit < comm->size && (me & bit) == 0)
        bit *= 2;
    if (me != 0)
        GR_TRY(receive_from(comm, (me - bit + root) % comm->size, data, bytes, phase));
    for (bit /= 2; bit > 0; bit /= 2) {
        if (me + bit < comm->size)
            GR_TRY(send_to(comm, (me + bit + root) % comm->size, data, bytes, phase));
    }
out:
    return status;
}

/* Up the binomial tree to rank 0, whose subtrees are runs of ranks, then down to all. */
gr_status gr_comm_all_gather(struct gr_comm *comm, void *all, const void *one, int64_t bytes,
                             const char *phase)
{
    unsigned char *base = all;
    int me = comm->rank;
    gr_status status = GR_OK;

    memmove(base + me * bytes, one, (size_t)bytes);
    for (int bit = 1; bit < comm->size; bit *= 2) {
        int have = me + bit < comm->size ? bit : comm->size - me; /* ranks me .. me + have */
        int theirs = me + 2 * bit < comm->size ? bit : comm->size - me - bit;

        if ((me & bit) != 0) {
            GR_TRY(send_to(comm, me - bit, base + me * bytes, have * bytes, phase));
            break;
        }
        if (theirs > 0)
            GR_TRY(receive_from(comm, me + bit, base + (me + bit) * bytes, theirs * bytes, phase));
    }
    GR_TRY(gr_comm_broadcast(comm, 0, all, comm->size * bytes, phase));
out:
    return status;
}

static uint64_t join_or(uint64_t a, uint64_t b)
{
    return a | b;
}

static uint64_t join_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* *value of every rank <- all ranks' values joined. */
static gr_status fold(struct gr_comm *comm, uint64_t *value, uint64_t (*join)(uint64_t, uint64_t),
                      const char *phase)
{
    gr_status status = GR_OK;

    for (int bit = 1; bit < comm->size; bit *= 2) {
        uint64_t other = 0;

        if ((comm->rank & bit) != 0) {
            GR_TRY(send_to(comm, comm->rank - bit, value, sizeof *value, phase));
            break;
        }
        if (comm->rank + bit < comm->size) {
            GR_TRY(receive_from(comm, comm->rank + bit, &other, sizeof other, phase));
            *value = join(*value, other);
        }
    }
    GR_TRY(gr_comm_broadcast(comm, 0, value, sizeof *value, phase));
out:
    return status;
}

gr_status gr_comm_agree(struct gr_comm *comm, uint64_t *flags, const char *phase)
{
    return fold(comm, flags, join_or, phase);
}

gr_status gr_comm_agree_status(struct gr_comm *comm, gr_status mine, const char *phase)
{
    uint64_t first = (uint64_t)(mine == GR_OK ? comm->size : comm->rank);
    struct gr_error error;
    gr_status status = GR_OK;

    if (mine != GR_OK && !gr_error_is_set())
        gr_fail(mine, phase, NULL, "rank %d failed without a message (found %s)", comm->rank,
                gr_status_name(mine));
    error = gr_error_take();
    GR_TRY(fold(comm, &first, join_min, phase));
    if (first < (uint64_t)comm->size) {
        GR_TRY(gr_comm_broadcast(comm, (int)first, &error, sizeof error, phase));
        error.is_shared = true;
    }
    status = error.status;
out:
    if (mine != GR_OK && comm->failed) { /* nobody to agree with: the own failure came first */
        gr_error_clear();
        status = mine;
    }
    gr_error_put(&error);
    return status;
}
