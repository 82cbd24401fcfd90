/* NCCL's double: how communicators begin and end, as strict as NVIDIA's documents are.
 *
 * A join waits until every rank has come, if need be for ever; two ranks on one GPU are refused.
 * Destroy (of one that is not finalized) and Abort wait for all ranks of the node.  What is asked
 * of a communicator that does not block is answered with ncclInProgress, and goes on only while
 * ncclCommGetAsyncError is asked: a few times at least, and until the other ranks have come. */
#include "emu_nccl.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

namespace emu_nccl
{

constexpr int POLLS = 3;
constexpr int PAUSE_US = 200;

/* What the plug-in states of ncclConfig_t is what NVIDIA's header says. */
constexpr ncclConfig_t initial = NCCL_CONFIG_INITIALIZER;
static_assert(GR_NCCL_CONFIG_MAGIC == initial.magic);
static_assert(GR_NCCL_CONFIG_VERSION == NCCL_VERSION(2, 14, 0));
static_assert(offsetof(gr_nccl_config, size) == offsetof(ncclConfig_t, size) &&
              offsetof(gr_nccl_config, magic) == offsetof(ncclConfig_t, magic) &&
              offsetof(gr_nccl_config, version) == offsetof(ncclConfig_t, version) &&
              offsetof(gr_nccl_config, blocking) == offsetof(ncclConfig_t, blocking));

const emu_link *emulator;

void find_emulator(const void *caller)
{
    Dl_info plugin;
    void *handle;

    if (emulator != nullptr)
        return;
    if (dladdr(caller, &plugin) != 0 &&
        (handle = dlopen(plugin.dli_fname, RTLD_NOW | RTLD_NOLOAD)) != nullptr)
        emulator = (const emu_link *)dlsym(handle, "emu_link_table");
    if (emulator == nullptr) {
        fprintf(stderr, "EMU ERROR [nccl] the caller is no emulated plug-in\n");
        _exit(99);
    }
}

/* In TMPDIR, where that is set: a job whose ranks never meet leaves the file. */
static void path_of(char path[512], const ncclUniqueId &id)
{
    const char *folder = getenv("TMPDIR");

    snprintf(path, 512, "%s/%.*s", folder == nullptr ? "/dev/shm" : folder, (int)sizeof id.internal,
             id.internal);
}

/* NULL: it cannot be had. */
static shared *map_shared(const ncclUniqueId &id)
{
    char path[512];
    void *memory = MAP_FAILED;
    int fd;

    path_of(path, id);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && ftruncate(fd, sizeof(shared)) == 0)
        memory = mmap(nullptr, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    return memory == MAP_FAILED ? nullptr : (shared *)memory;
}

/* All ranks are there. */
static void meet(communicator *comm)
{
    char path[512];

    path_of(path, comm->id);
    if (comm->rank == 0)
        unlink(path);
    for (int i = 0; i < comm->size; i++) {
        if (i != comm->rank &&
            memcmp(&comm->all->gpu[i], &comm->all->gpu[comm->rank], sizeof(cudaUUID_t)) == 0)
            comm->failure = ncclInvalidUsage;
    }
}

/* Whether what it is busy with is done now. */
static bool advance(communicator *comm)
{
    switch (comm->state) {
    case JOINING:
        if (comm->all->joined.load() < comm->size)
            return false;
        meet(comm);
        comm->state = comm->failure == ncclSuccess ? READY : FAILED;
        return true;
    case CONNECTING:
        if (!is_connected(comm))
            return false;
        launch(comm);
        comm->state = READY;
        return true;
    case FINALIZING:
        if (comm->all->finalized.load() < comm->size)
            return false;
        comm->state = FINALIZED;
        return true;
    default:
        return true;
    }
}

static ncclResult_t answer(const communicator *comm)
{
    if (comm->state == FAILED)
        return comm->failure;
    return comm->state == READY || comm->state == FINALIZED ? ncclSuccess : ncclInProgress;
}

ncclResult_t ready(const communicator *comm)
{
    return comm->state == READY    ? ncclSuccess
           : comm->state == FAILED ? comm->failure
                                   : ncclInvalidArgument;
}

ncclResult_t begin(communicator *comm, enum state work)
{
    comm->state = work;
    comm->polls = POLLS;
    while (comm->blocks && !advance(comm))
        usleep(PAUSE_US);
    return answer(comm);
}

static ncclResult_t join(ncclComm_t *handle, int size, const ncclUniqueId &id, int rank,
                         bool blocks)
{
    communicator *comm;
    cudaDeviceProp properties;
    shared *all;

    if (size < 1 || size > RANKS || rank < 0 || rank >= size)
        return ncclInvalidArgument;
    all = map_shared(id);
    if (all == nullptr)
        return ncclSystemError;
    emulator->device_properties(&properties);
    all->gpu[rank] = properties.uuid;
    all->joined++;
    comm = new communicator{};
    comm->rank = rank;
    comm->size = size;
    comm->all = all;
    comm->id = id;
    comm->blocks = blocks;
    *handle = (ncclComm_t)comm;
    return begin(comm, JOINING);
}

/* As a call that all ranks of the node make. */
static void leave_together(communicator *comm)
{
    comm->all->destroyed++;
    while (comm->all->destroyed.load() < comm->size)
        usleep(PAUSE_US);
}

} // namespace emu_nccl

using namespace emu_nccl;

extern "C" {

EXPORTED ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

EXPORTED const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclSystemError:
        return "unhandled system error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInProgress:
        return "NCCL operation in progress";
    default:
        return "an error of the emulated NCCL";
    }
}

EXPORTED ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int count;
    timespec now;

    FIND_EMULATOR;
    clock_gettime(CLOCK_MONOTONIC, &now);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "emu-nccl-%d-%d-%lld", (int)getpid(), count++,
             (long long)now.tv_nsec);
    return ncclSuccess;
}

EXPORTED ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    FIND_EMULATOR;
    return join(comm, size, id, rank, true);
}

EXPORTED_SINCE_2_14 ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id,
                                                        int rank, ncclConfig_t *config)
{
    FIND_EMULATOR;
    *comm = nullptr;
    if (config == nullptr)
        return join(comm, size, id, rank, true);
    if (config->size < sizeof(gr_nccl_config) || config->magic != initial.magic ||
        config->version < NCCL_VERSION(2, 14, 0))
        return ncclInvalidArgument;
    return join(comm, size, id, rank, config->blocking != 0);
}

EXPORTED ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *result)
{
    communicator *comm = (communicator *)handle;

    if (comm == nullptr)
        return ncclInvalidArgument;
    if (comm->polls > 0)
        comm->polls--;
    else
        advance(comm);
    *result = comm->all->aborted.load() != 0 ? ncclRemoteError : answer(comm);
    return ncclSuccess;
}

EXPORTED_SINCE_2_14 ncclResult_t ncclCommFinalize(ncclComm_t handle)
{
    communicator *comm = (communicator *)handle;
    const ncclResult_t result = ready(comm);

    if (result != ncclSuccess)
        return result;
    if (comm->running > 0)
        emulator->fail("not-modelled", "ncclCommFinalize of what nobody has waited for");
    comm->all->finalized++;
    return begin(comm, FINALIZING);
}

EXPORTED ncclResult_t ncclCommDestroy(ncclComm_t handle)
{
    communicator *comm = (communicator *)handle;

    if (comm->state != FINALIZED) {
        const ncclResult_t result = ready(comm);

        if (result != ncclSuccess)
            return result;
        leave_together(comm);
    }
    munmap((void *)comm->all, sizeof(shared));
    delete comm;
    return ncclSuccess;
}

/* What is queued ends without having moved its bytes; the memory stays for it. */
EXPORTED ncclResult_t ncclCommAbort(ncclComm_t handle)
{
    communicator *comm = (communicator *)handle;

    comm->is_aborted = true;
    comm->all->aborted = 1;
    leave_together(comm);
    return ncclSuccess;
}
}
