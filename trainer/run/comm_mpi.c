/* Processes that mpirun started.  Only non-blocking point-to-point calls, polled: yield, then short
 * sleeps, so that waiting ranks leave the cores to working ones, and a deadline without a byte from
 * the peer.  Large messages go in chunks, which makes progress visible and keeps MPI's int counts
 * small.  Twin of comm_self.c; collectives are comm.c's. */
#include "kernels/base/clock.h"
#include "trainer/run/comm_backend.h"

#include <mpi.h>
#include <sched.h>

enum {
    CHUNK_BYTES = 4 << 20,
    YIELD_ROUNDS = 200, /* about 0.2 ms of polling before the first sleep */
    SLEEP_MIN_NS = 20000,
    SLEEP_MAX_NS = 200000
};

/* One direction of an exchange.  `left` counts what is not there yet, the chunk under way included;
 * the request is MPI_REQUEST_NULL between chunks. */
struct flow {
    MPI_Request request;
    unsigned char *at;
    int64_t left;
    int chunk;
    bool sends;
};

static void mpi_abort(int exit_code)
{
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

static gr_status mpi_failed(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;

    MPI_Error_string(code, text, &length);
    return gr_fail(GR_ERR_RETRY, "dist", "look at mpirun's own messages", "%s failed: %s", call,
                   text);
}

static gr_status mpi_join(struct gr_comm *comm)
{
    int initialized = 0, provided = 0, code;

    MPI_Initialized(&initialized);
    GR_CHECK(!initialized, "a process joins its job once");
    code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (code != MPI_SUCCESS)
        return mpi_failed(code, "MPI_Init_thread");
    gr_set_abort_hook(mpi_abort);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &comm->size);
    if (provided < MPI_THREAD_FUNNELED)
        return gr_fail(GR_ERR_DEVICE, "dist", "use an MPI library built with thread support",
                       "MPI has no MPI_THREAD_FUNNELED (found %d, expected %d)", provided,
                       MPI_THREAD_FUNNELED);
    return GR_OK;
}

/* Messages of different phases never meet: ranks that are out of step run into the deadline instead
 * of taking one thing for another.  FNV-1a, cut to the 15 bits every MPI has. */
static int phase_tag(const char *phase)
{
    uint32_t hash = 2166136261u;

    for (; *phase != '\0'; phase++)
        hash = (hash ^ (unsigned char)*phase) * 16777619u;
    return (int)((hash ^ (hash >> 15)) & 0x7fff);
}

/* Starts a chunk if none is under way, looks whether it has arrived, and if so sets *moved. */
static int flow_poll(struct flow *flow, int peer, int tag, bool *moved)
{
    int code = MPI_SUCCESS, done = 0, count = 0;
    MPI_Status mpi_status;

    if (flow->left == 0)
        return MPI_SUCCESS;
    if (flow->request == MPI_REQUEST_NULL) {
        flow->chunk = flow->left < CHUNK_BYTES ? (int)flow->left : CHUNK_BYTES;
        code = flow->sends ? MPI_Isend(flow->at, flow->chunk, MPI_BYTE, peer, tag, MPI_COMM_WORLD,
                                       &flow->request)
                           : MPI_Irecv(flow->at, flow->chunk, MPI_BYTE, peer, tag, MPI_COMM_WORLD,
                                       &flow->request);
    }
    if (code == MPI_SUCCESS)
        code = MPI_Test(&flow->request, &done, &mpi_status);
    if (code != MPI_SUCCESS || !done)
        return code;
    if (!flow->sends) {
        code = MPI_Get_count(&mpi_status, MPI_BYTE, &count);
        GR_CHECK(code != MPI_SUCCESS || count == flow->chunk,
                 "ranks out of step: rank %d sent %d bytes, expected %d", peer, count, flow->chunk);
    }
    flow->at += flow->chunk;
    flow->left -= flow->chunk;
    *moved = true;
    return code;
}

/* After a failure no MPI call follows but MPI_Abort, so what could not be cancelled stays still. */
static void flow_give_up(struct flow *flow)
{
    if (flow->request == MPI_REQUEST_NULL)
        return;
    if (!flow->sends)
        MPI_Cancel(&flow->request);
    MPI_Request_free(&flow->request);
}

static void pause_after(int64_t fruitless_rounds)
{
    int64_t ns = SLEEP_MIN_NS * (fruitless_rounds - YIELD_ROUNDS + 1);

    if (fruitless_rounds < YIELD_ROUNDS)
        sched_yield();
    else
        gr_sleep_ns(ns < SLEEP_MAX_NS ? ns : SLEEP_MAX_NS);
}

static gr_status mpi_exchange(struct gr_comm *comm, int peer, void *received, int64_t receive_bytes,
                              const void *sent, int64_t send_bytes, const char *phase)
{
    struct flow in = {.request = MPI_REQUEST_NULL, .at = received, .left = receive_bytes};
    struct flow out = {.request = MPI_REQUEST_NULL,
                       .at = (void *)(uintptr_t)sent,
                       .left = send_bytes,
                       .sends = true};
    int tag = phase_tag(phase);
    int64_t last_ns = gr_clock_ns(), rounds = 0;
    char text[MPI_MAX_ERROR_STRING] = "";
    int code = MPI_SUCCESS, length = 0;

    while (in.left > 0 || out.left > 0) {
        bool moved = false;

        code = flow_poll(&in, peer, tag, &moved);
        if (code == MPI_SUCCESS)
            code = flow_poll(&out, peer, tag, &moved);
        if (code != MPI_SUCCESS)
            break;
        if (moved) {
            last_ns = gr_clock_ns();
            rounds = 0;
            continue;
        }
        if ((double)(gr_clock_ns() - last_ns) * 1e-9 > comm->timeout_seconds)
            break;
        pause_after(rounds++);
    }
    if (in.left == 0 && out.left == 0)
        return GR_OK;
    flow_give_up(&in);
    flow_give_up(&out);
    if (code == MPI_SUCCESS)
        return gr_comm_lost(comm, peer, phase,
                            "found %g s without a byte, expected at most dist.timeout_seconds",
                            comm->timeout_seconds);
    MPI_Error_string(code, text, &length);
    return gr_comm_lost(comm, peer, phase, "found %s", text);
}

static void mpi_leave(struct gr_comm *comm)
{
    int initialized = 0;

    MPI_Initialized(&initialized);
    if (!initialized || comm->failed)
        return; /* mpirun ends the others when this process ends without MPI_Finalize */
    gr_set_abort_hook(NULL);
    MPI_Finalize();
}

const struct gr_comm_backend gr_comm_mpi = {
    .kind = "mpi",
    .join = mpi_join,
    .exchange = mpi_exchange,
    .leave = mpi_leave,
    .abort = mpi_abort,
};
