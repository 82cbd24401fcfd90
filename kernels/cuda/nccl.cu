/* GPUs of several processes, by NCCL, which is opened at run time: a machine without it trains all
 * the same, with gradients through the host.
 *
 * NCCL itself waits for ever.  Its communicator is therefore one that does not block (NCCL 2.14 and
 * newer): its threads join, connect, queue and finish, and we ask how far they are, for
 * timeout_seconds; gr_peers_wait asks the stream in the same way, where an event behind the
 * exchanges with each peer tells with whom it hangs.  Destroy and Abort wait for all ranks of the
 * node, so a communicator of which a rank was lost stays as it is.  See kernels/peers.h. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/nccl_api.h"

#include <dlfcn.h>
#include <sched.h>
#include <string.h>

extern "C" {
#include "kernels/base/clock.h"
}

enum {
    MARKS = 64, /* more peers in a row between two waits share the last one */
    ALL = -1    /* as the peer of a mark */
};

struct mark {
    cudaEvent_t is_through;
    int peer;
};

struct gr_nccl {
    gr_nccl_comm comm; /* NULL: not joined, or of no use any more */
    double timeout_seconds;
    int marks; /* since the last wait */
    struct mark mark[MARKS];
#define X(name, type, parameters) type(*name) parameters;
    GR_NCCL_FUNCTIONS(X)
    GR_NCCL_LATER_FUNCTIONS(X) /* NULL: an older NCCL */
#undef X
};

static const char file_name[] = "libnccl.so.2";
static const char hint[] = "set dist.backend to mpi, or to auto";
static const char hint_network[] =
    "let NCCL_SOCKET_IFNAME name a network that all hosts share (NCCL_DEBUG=INFO tells which it "
    "takes), or set dist.backend to mpi";

static struct gr_nccl *nccl_of(struct gr_device *dev)
{
    return gr_cuda_of(dev)->nccl;
}

static gr_status nccl_failed(struct gr_device *dev, int result, const char *call)
{
    if (result == GR_NCCL_SUCCESS)
        return GR_OK;
    return gr_fail(GR_ERR_DEVICE, "dist.backend", hint, "%s failed (found %s)", call,
                   nccl_of(dev)->ncclGetErrorString(result));
}

/* Never closed again. */
static gr_status load(struct gr_nccl *nccl)
{
    void *library = dlopen(file_name, RTLD_NOW | RTLD_LOCAL);
    const struct {
        const char *name;
        void *function;
        bool is_later;
    } functions[] = {
#define X(name, type, parameters) {#name, &nccl->name, false},
        GR_NCCL_FUNCTIONS(X)
#undef X
#define X(name, type, parameters) {#name, &nccl->name, true},
            GR_NCCL_LATER_FUNCTIONS(X)
#undef X
    };

    if (library == NULL)
        return gr_fail(GR_ERR_DEVICE, "dist.backend", hint, "NCCL cannot be loaded (found %s)",
                       dlerror());
    for (int64_t i = 0; i < GR_COUNT(functions); i++) {
        void *symbol = dlsym(library, functions[i].name);

        if (symbol == NULL && !functions[i].is_later)
            return gr_fail(GR_ERR_DEVICE, file_name, hint, "this NCCL has no %s",
                           functions[i].name);
        memcpy(functions[i].function, &symbol, sizeof symbol);
    }
    return GR_OK;
}

static gr_status nccl_open(struct gr_device *dev)
{
    gr_status status = GR_OK;
    struct gr_nccl *nccl = NULL;

    if (nccl_of(dev) != NULL)
        return GR_OK;
    nccl = GR_NEW(struct gr_nccl);
    GR_TRY(load(nccl));
    for (int i = 0; i < MARKS; i++) {
        if (!gr_cuda_ok(
                dev, "peers",
                cudaEventCreateWithFlags(&nccl->mark[i].is_through, cudaEventDisableTiming)))
            GR_TRY(gr_device_status(dev));
    }
    gr_cuda_of(dev)->nccl = nccl;
    nccl = NULL;
out:
    gr_free(nccl);
    return status;
}

static gr_status nccl_name(struct gr_device *dev, struct gr_peers_id *id)
{
    struct gr_nccl_id name;
    const int result = nccl_of(dev)->ncclGetUniqueId(&name);

    static_assert(sizeof name == sizeof *id, "an id of NCCL has 128 bytes");
    memcpy(id, &name, sizeof name);
    return nccl_failed(dev, result, "ncclGetUniqueId");
}

static void pause_after(int64_t rounds)
{
    enum { YIELDS = 1000, SLEEP_NS = 20000 };

    if (rounds < YIELDS)
        sched_yield();
    else
        gr_sleep_ns(SLEEP_NS);
}

static double seconds_since(int64_t begin_ns)
{
    return (double)(gr_clock_ns() - begin_ns) * 1e-9;
}

/* Until NCCL's threads have done what a call asked of them, which has returned `result`.  Still
 * IN_PROGRESS: nothing came of it for timeout_seconds. */
static int complete(struct gr_nccl *nccl, int result)
{
    const int64_t begin_ns = gr_clock_ns();

    for (int64_t round = 0; result == GR_NCCL_IN_PROGRESS; round++) {
        int state = GR_NCCL_SUCCESS;

        if (seconds_since(begin_ns) > nccl->timeout_seconds)
            break;
        pause_after(round);
        result = nccl->ncclCommGetAsyncError(nccl->comm, &state);
        if (result == GR_NCCL_SUCCESS)
            result = state;
    }
    return result;
}

static gr_status nccl_join(struct gr_device *dev, const struct gr_peers_id *id, int size, int rank,
                           double timeout_seconds)
{
    struct gr_nccl *nccl = nccl_of(dev);
    struct gr_nccl_config config = {sizeof config, GR_NCCL_CONFIG_MAGIC, GR_NCCL_CONFIG_VERSION, 0};
    struct gr_nccl_id name;
    int result;

    memcpy(&name, id, sizeof name);
    nccl->timeout_seconds = timeout_seconds;
    if (nccl->ncclCommInitRankConfig != NULL)
        result = nccl->ncclCommInitRankConfig(&nccl->comm, size, name, rank, &config);
    else
        result = nccl->ncclCommInitRank(&nccl->comm, size, name, rank);
    result = complete(nccl, result);
    if (result != GR_NCCL_SUCCESS)
        nccl->comm = NULL; /* its threads may still be at it */
    if (result == GR_NCCL_IN_PROGRESS)
        return gr_fail(GR_ERR_RETRY, "NCCL", hint_network,
                       "not all ranks joined (dist.timeout_seconds is %g)", timeout_seconds);
    return nccl_failed(dev, result, "ncclCommInitRank");
}

/* Behind what was waited for: every rank is there, and nobody uses its memory any more. */
static gr_status nccl_leave(struct gr_device *dev)
{
    struct gr_nccl *nccl = nccl_of(dev);
    int result = GR_NCCL_SUCCESS;

    if (nccl->ncclCommFinalize != NULL)
        result = complete(nccl, nccl->ncclCommFinalize(nccl->comm));
    if (result == GR_NCCL_SUCCESS)
        result = nccl->ncclCommDestroy(nccl->comm);
    nccl->comm = NULL;
    return nccl_failed(dev, result, "ncclCommFinalize");
}

static int type_of(gr_tensor t)
{
    return t.dtype == GR_BF16 ? GR_NCCL_BFLOAT16 : GR_NCCL_FLOAT32;
}

static bool goes_on(int result)
{
    return result == GR_NCCL_SUCCESS || result == GR_NCCL_IN_PROGRESS;
}

/* Behind what was queued with that peer. */
static void set_mark(struct gr_device *dev, int peer)
{
    struct gr_nccl *nccl = nccl_of(dev);
    const bool is_new = nccl->marks == 0 || nccl->mark[nccl->marks - 1].peer != peer;

    if (is_new && nccl->marks < MARKS)
        nccl->mark[nccl->marks++].peer = peer;
    gr_cuda_ok(dev, "peers",
               cudaEventRecord(nccl->mark[nccl->marks - 1].is_through, gr_cuda_of(dev)->stream));
}

/* After a call that queues something: it is in the stream when this returns.  The first time with a
 * peer NCCL connects to it before, and waits until it does the same. */
static void queue(struct gr_device *dev, int result, int peer)
{
    struct gr_nccl *nccl = nccl_of(dev);
    bool is_peer_s;

    result = complete(nccl, result);
    is_peer_s = result == GR_NCCL_REMOTE_ERROR || result == GR_NCCL_SYSTEM_ERROR;
    if (result == GR_NCCL_SUCCESS)
        set_mark(dev, peer);
    else if (result == GR_NCCL_IN_PROGRESS)
        gr_device_fail(dev, GR_ERR_RETRY, "NCCL", "no connection (dist.timeout_seconds is %g)",
                       nccl->timeout_seconds);
    else
        gr_device_fail(dev, is_peer_s ? GR_ERR_RETRY : GR_ERR_DEVICE, "NCCL", "%s",
                       nccl->ncclGetErrorString(result));
}

static void nccl_exchange(struct gr_device *dev, int peer, gr_tensor received, gr_tensor sent)
{
    struct gr_nccl *nccl = nccl_of(dev);
    const cudaStream_t stream = gr_cuda_of(dev)->stream;
    int result = nccl->ncclGroupStart(), end;

    if (goes_on(result) && sent.dim[0] > 0)
        result =
            nccl->ncclSend(sent.data, (size_t)sent.dim[0], type_of(sent), peer, nccl->comm, stream);
    if (goes_on(result) && received.dim[0] > 0)
        result = nccl->ncclRecv(received.data, (size_t)received.dim[0], type_of(received), peer,
                                nccl->comm, stream);
    end = nccl->ncclGroupEnd();
    queue(dev, goes_on(result) ? end : result, peer);
}

static void nccl_broadcast(struct gr_device *dev, int root, gr_tensor data)
{
    struct gr_nccl *nccl = nccl_of(dev);

    queue(dev,
          nccl->ncclBroadcast(data.data, data.data, (size_t)data.dim[0], type_of(data), root,
                              nccl->comm, gr_cuda_of(dev)->stream),
          root);
}

static void nccl_sum(struct gr_device *dev, gr_tensor data)
{
    struct gr_nccl *nccl = nccl_of(dev);

    queue(dev,
          nccl->ncclAllReduce(data.data, data.data, (size_t)data.dim[0], type_of(data), GR_NCCL_SUM,
                              nccl->comm, gr_cuda_of(dev)->stream),
          ALL);
}

static gr_status give_up(struct gr_device *dev, int *lost, const char *why, double timeout_seconds)
{
    struct gr_nccl *nccl = nccl_of(dev);
    const int unknown = *lost;

    for (int i = nccl->marks - 1; i >= 0; i--) {
        if (cudaEventQuery(nccl->mark[i].is_through) == cudaErrorNotReady)
            *lost = nccl->mark[i].peer == ALL ? unknown : nccl->mark[i].peer;
    }
    nccl->comm = NULL;
    return gr_fail(GR_ERR_RETRY, "NCCL", NULL, "%s (dist.timeout_seconds is %g)", why,
                   timeout_seconds);
}

static gr_status nccl_wait(struct gr_device *dev, int *lost, double timeout_seconds)
{
    struct gr_nccl *nccl = nccl_of(dev);
    const int64_t begin_ns = gr_clock_ns();
    cudaError_t error;

    for (int64_t round = 0;; round++) {
        int result = GR_NCCL_SUCCESS;

        error = cudaStreamQuery(gr_cuda_of(dev)->stream);
        if (nccl->comm != NULL)
            nccl->ncclCommGetAsyncError(nccl->comm, &result);
        if (result != GR_NCCL_SUCCESS && result != GR_NCCL_IN_PROGRESS)
            return give_up(dev, lost, nccl->ncclGetErrorString(result), timeout_seconds);
        if (error != cudaErrorNotReady)
            break;
        if (seconds_since(begin_ns) > timeout_seconds)
            return give_up(dev, lost, "nothing came", timeout_seconds);
        pause_after(round);
    }
    nccl->marks = 0;
    gr_cuda_ok(dev, "peers", error);
    return gr_device_status(dev);
}

const struct gr_peers_ops gr_cuda_peers = {
    .open = nccl_open,
    .name = nccl_name,
    .join = nccl_join,
    .exchange = nccl_exchange,
    .broadcast = nccl_broadcast,
    .sum = nccl_sum,
    .wait = nccl_wait,
    .leave = nccl_leave,
};

void gr_cuda_peers_close(struct gr_cuda *c)
{
    if (c->nccl == NULL)
        return;
    for (int i = 0; i < MARKS; i++)
        cudaEventDestroy(c->nccl->mark[i].is_through);
    gr_free(c->nccl);
    c->nccl = NULL;
}
