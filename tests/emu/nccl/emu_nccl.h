/* What the two halves of NCCL's double share: emu_nccl.cpp (messages, collectives) and
 * emu_nccl_comm.cpp (the life of a communicator).
 *
 * All that a job shares is one piece of shared memory, named by the unique id: a ring of bytes for
 * each ordered pair of ranks.  All ranks are of one node. */
#ifndef EMU_NCCL_H
#define EMU_NCCL_H

#include "emu_link.h"
#include "kernels/cuda/nccl_api.h"

#include <nccl.h>

#include <atomic>
#include <memory>
#include <vector>

#define EXPORTED __attribute__((visibility("default")))
#ifdef EMU_NCCL_BEFORE_2_14 /* a library that has no such function */
#define EXPORTED_SINCE_2_14
#else
#define EXPORTED_SINCE_2_14 EXPORTED
#endif

namespace emu_nccl
{

constexpr int RANKS = 8;
constexpr uint64_t RING_BYTES = 1 << 16;

/* Bytes written and read since the beginning.  Nothing goes before both sides have come. */
struct ring {
    std::atomic<bool> has_sender, has_receiver;
    std::atomic<uint64_t> written, read;
    char bytes[RING_BYTES];
};

struct shared {
    std::atomic<int> joined, finalized, destroyed, aborted;
    cudaUUID_t gpu[RANKS];
    ring between[RANKS][RANKS]; /* [from][to] */
};

struct message;
typedef std::vector<std::shared_ptr<message>> messages;

/* JOINING, CONNECTING, FINALIZING: nothing else may be asked of it; what is asked of one that
 * blocks has done that work when it returns. */
enum state { JOINING, READY, CONNECTING, FINALIZING, FINALIZED, FAILED };

struct communicator {
    int rank, size;
    shared *all;
    ncclUniqueId id;
    bool blocks;
    bool is_aborted; /* here, where all->aborted is of any rank */
    enum state state;
    ncclResult_t failure; /* of FAILED */
    int polls;            /* still to be answered with ncclInProgress */
    int running;          /* operations in streams that are not through */
    messages waiting;     /* CONNECTING: of the group that is not in its streams yet */
};

/* The emulator, which is in the plug-in that calls us. */
extern const emu_link *emulator;
void find_emulator(const void *caller);
#define FIND_EMULATOR emu_nccl::find_emulator(__builtin_return_address(0))

/* Whether something may be asked of it; else what is answered. */
ncclResult_t ready(const communicator *comm);
/* Begins what it will be busy with from now on; returns what the call that asked for it returns. */
ncclResult_t begin(communicator *comm, enum state work);

/* Whether all partners of its waiting messages have come; this one's side is there from now on. */
bool is_connected(communicator *comm);
/* Puts them into their streams. */
void launch(communicator *comm);

} // namespace emu_nccl

#endif
