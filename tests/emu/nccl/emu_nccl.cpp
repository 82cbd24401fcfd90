/* NCCL's double: processes of one machine that send to one another, as libnccl.so.2.
 *
 * Sends and receives are operations of a stream, polled until their bytes are through; those of a
 * group move together, and are in the stream once both sides of each have come.  A partner that
 * expects another number of bytes, or other elements, is a finding.  Send, Recv, Broadcast and a
 * sum by AllReduce are here, how communicators begin and end is in emu_nccl_comm.cpp, the rest is
 * not. */
#include "emu_nccl.h"

#include <stdio.h>
#include <string.h>
#include <type_traits>

namespace emu_nccl
{

/* What the plug-in states of NCCL is what NVIDIA's header says. */
static_assert((int)GR_NCCL_SUCCESS == ncclSuccess && (int)GR_NCCL_IN_PROGRESS == ncclInProgress);
static_assert((int)GR_NCCL_SYSTEM_ERROR == ncclSystemError &&
              (int)GR_NCCL_REMOTE_ERROR == ncclRemoteError);
static_assert((int)GR_NCCL_FLOAT32 == ncclFloat32 && (int)GR_NCCL_BFLOAT16 == ncclBfloat16);
static_assert((int)GR_NCCL_SUM == ncclSum);
static_assert(sizeof(gr_nccl_id) == sizeof(ncclUniqueId) &&
              std::is_same_v<gr_nccl_comm, ncclComm_t>);

/* A type as it is passed to a function: enums as int, handles as pointers. */
template <class T> struct passed {
    typedef T type;
};
template <> struct passed<ncclResult_t> {
    typedef int type;
};
template <> struct passed<ncclResult_t *> {
    typedef int *type;
};
template <> struct passed<ncclDataType_t> {
    typedef int type;
};
template <> struct passed<ncclRedOp_t> {
    typedef int type;
};
template <> struct passed<cudaStream_t> {
    typedef void *type;
};
template <> struct passed<ncclUniqueId> {
    typedef gr_nccl_id type;
};
template <> struct passed<ncclUniqueId *> {
    typedef gr_nccl_id *type;
};
template <> struct passed<ncclConfig_t *> {
    typedef gr_nccl_config *type;
};
template <class F> struct as_passed;
template <class R, class... P> struct as_passed<R(P...)> {
    typedef typename passed<R>::type type(typename passed<P>::type...);
};
#define X(name, result, parameters)                                                                \
    static_assert(std::is_same_v<as_passed<decltype(::name)>::type, result parameters>, #name);
GR_NCCL_FUNCTIONS(X)
GR_NCCL_LATER_FUNCTIONS(X)
#undef X

enum call { POINT_TO_POINT, BROADCAST, ALL_REDUCE };

/* Goes before the bytes of a message. */
struct header {
    uint64_t bytes, type, of_call;
};

/* An AllReduce: what each rank has sent. */
struct sum {
    float *memory; /* on the device */
    uint64_t count;
    std::vector<std::vector<float>> part; /* [size][count] */
    bool is_done;
};

/* One message of this rank: `wire` is a header and what goes, or has come. */
struct message {
    communicator *comm;
    cudaStream_t stream;
    ring *way;
    bool is_sent;
    header head;
    void *memory; /* on the device */
    const char *name;
    std::vector<char> wire;
    uint64_t done;
    std::shared_ptr<sum> of_sum; /* NULL, or what the bytes go into */
    int from;                    /* the rank whose bytes they are */
};

static int group_depth;
static messages group;
static ncclResult_t group_failure; /* of a call in it, which takes all of it back */

static size_t size_of(ncclDataType_t type)
{
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclBfloat16:
        return 2;
    case ncclFloat32:
        return 4;
    default:
        return 0;
    }
}

static void begin_to_send(message *m)
{
    emulator->dev_touch(m->memory, m->head.bytes, emu::LOAD, m->name);
    memcpy(m->wire.data(), &m->head, sizeof m->head);
    memcpy(m->wire.data() + sizeof m->head, m->memory, m->head.bytes);
    if (m->of_sum != nullptr)
        memcpy(m->of_sum->part[(size_t)m->from].data(), m->memory, m->head.bytes);
}

static void check_partner(const message *m)
{
    header found;
    char text[256];

    memcpy(&found, m->wire.data(), sizeof found);
    if (memcmp(&found, &m->head, sizeof found) == 0)
        return;
    snprintf(text, sizeof text,
             "%s of %llu bytes of type %llu meets a partner with %llu bytes of type %llu%s",
             m->name, (unsigned long long)m->head.bytes, (unsigned long long)m->head.type,
             (unsigned long long)found.bytes, (unsigned long long)found.type,
             found.of_call == m->head.of_call ? "" : " in another call");
    emulator->fail("nccl", text);
}

/* Bytes up to the end of the ring, of the message, or of what there is. */
static uint64_t run_length(uint64_t at, uint64_t left, uint64_t available)
{
    const uint64_t to_end = RING_BYTES - at % RING_BYTES;
    const uint64_t most = left < available ? left : available;

    return most < to_end ? most : to_end;
}

static void move_bytes(message *m)
{
    ring *way = m->way;
    uint64_t written = way->written.load(), read = way->read.load(), count;

    while ((count = run_length(m->is_sent ? written : read, m->wire.size() - m->done,
                               m->is_sent ? RING_BYTES - (written - read) : written - read)) > 0) {
        if (m->is_sent) {
            memcpy(way->bytes + written % RING_BYTES, m->wire.data() + m->done, count);
            written += count;
        } else {
            memcpy(m->wire.data() + m->done, way->bytes + read % RING_BYTES, count);
            read += count;
        }
        m->done += count;
    }
    if (m->is_sent)
        way->written.store(written);
    else
        way->read.store(read);
}

/* Moves what can move; whether all has. */
static bool step(message *m)
{
    const uint64_t before = m->done;

    if (m->done == m->wire.size())
        return true;
    if (m->is_sent && before == 0)
        begin_to_send(m);
    move_bytes(m);
    if (m->is_sent)
        return m->done == m->wire.size();
    if (before < sizeof m->head && m->done >= sizeof m->head)
        check_partner(m);
    if (m->done < m->wire.size())
        return false;
    if (m->of_sum != nullptr) {
        memcpy(m->of_sum->part[(size_t)m->from].data(), m->wire.data() + sizeof m->head,
               m->head.bytes);
        return true;
    }
    emulator->dev_touch(m->memory, m->head.bytes, emu::STORE, m->name);
    memcpy(m->memory, m->wire.data() + sizeof m->head, m->head.bytes);
    return true;
}

/* Messages of one ring go one after the other, those of different rings as they can. */
static bool step_all(const messages &all)
{
    std::vector<const ring *> busy;
    bool done = true;

    for (const std::shared_ptr<message> &m : all) {
        bool waits = false;

        if (m->comm->is_aborted)
            return true;
        for (const ring *way : busy)
            waits = waits || way == m->way;
        if (!waits && !step(m.get()))
            busy.push_back(m->way);
        done = done && m->done == m->wire.size();
    }
    return done;
}

/* As a ring does it: the vector in as many pieces as there are ranks, each summed along the ring
 * from another rank on.  Here against the order of the ranks, so that the bits are not those of a
 * sum in their order, and on all ranks the same. */
static void add_up(sum *s)
{
    const uint64_t size = s->part.size();

    for (uint64_t i = 0; i < s->count; i++) {
        const uint64_t piece = i * size / s->count;
        float total = s->part[piece][i];

        for (uint64_t k = 1; k < size; k++)
            total += s->part[(piece + size - k) % size][i];
        s->memory[i] = total;
    }
    s->is_done = true;
}

/* The sums of messages that are all through. */
static void add_up_all(const messages &all)
{
    for (const std::shared_ptr<message> &m : all) {
        if (m->of_sum == nullptr || m->of_sum->is_done || m->comm->is_aborted)
            continue;
        emulator->dev_touch(m->memory, m->head.bytes, emu::STORE, m->name);
        add_up(m->of_sum.get());
    }
}

bool is_connected(communicator *comm)
{
    bool all = true;

    for (const std::shared_ptr<message> &m : comm->waiting) {
        (m->is_sent ? m->way->has_sender : m->way->has_receiver) = true;
        all = all && m->way->has_sender && m->way->has_receiver;
    }
    return all;
}

/* An operation for each stream. */
void launch(communicator *comm)
{
    while (!comm->waiting.empty()) {
        const cudaStream_t stream = comm->waiting.front()->stream;
        messages now, later;

        for (const std::shared_ptr<message> &m : comm->waiting)
            (m->stream == stream ? now : later).push_back(m);
        comm->waiting = later;
        comm->running++;
        emulator->enqueue_poll(stream, "nccl", [now, comm] {
            const bool done = step_all(now);

            if (done)
                add_up_all(now);
            comm->running -= done;
            return done;
        });
    }
}

/* The end of the outermost group, which is of one communicator. */
static ncclResult_t flush()
{
    const ncclResult_t failure = group_failure;
    communicator *comm;

    group_failure = ncclSuccess;
    if (failure != ncclSuccess)
        group.clear();
    if (group.empty())
        return failure;
    comm = group.front()->comm;
    comm->waiting.swap(group);
    return begin(comm, CONNECTING);
}

static ncclResult_t add(communicator *comm, int peer, bool is_sent, const void *memory,
                        size_t count, ncclDataType_t type, cudaStream_t stream, const char *name,
                        call of_call = POINT_TO_POINT, std::shared_ptr<sum> of_sum = nullptr)
{
    const size_t bytes = count * size_of(type);

    if (ready(comm) != ncclSuccess)
        return ready(comm);
    if (size_of(type) == 0 || peer < 0 || peer >= comm->size || peer == comm->rank)
        return ncclInvalidArgument;
    emulator->dev_extent(memory, bytes, name);
    group.push_back(std::make_shared<message>(message{
        comm,
        stream,
        is_sent ? &comm->all->between[comm->rank][peer] : &comm->all->between[peer][comm->rank],
        is_sent,
        {bytes, (uint64_t)type, (uint64_t)of_call},
        const_cast<void *>(memory),
        name,
        std::vector<char>(sizeof(header) + bytes),
        0,
        of_sum,
        is_sent ? comm->rank : peer}));
    return ncclSuccess;
}

/* After one call: a group waits for its end. */
static ncclResult_t finish(ncclResult_t result)
{
    if (group_failure == ncclSuccess)
        group_failure = result;
    return group_depth == 0 ? flush() : result;
}

} // namespace emu_nccl

using namespace emu_nccl;

extern "C" {

EXPORTED ncclResult_t ncclGroupStart()
{
    group_depth++;
    return ncclSuccess;
}

EXPORTED ncclResult_t ncclGroupEnd()
{
    return --group_depth > 0 ? ncclSuccess : flush();
}

EXPORTED ncclResult_t ncclSend(const void *memory, size_t count, ncclDataType_t type, int peer,
                               ncclComm_t comm, cudaStream_t stream)
{
    return finish(add((communicator *)comm, peer, true, memory, count, type, stream, "ncclSend"));
}

EXPORTED ncclResult_t ncclRecv(void *memory, size_t count, ncclDataType_t type, int peer,
                               ncclComm_t comm, cudaStream_t stream)
{
    return finish(add((communicator *)comm, peer, false, memory, count, type, stream, "ncclRecv"));
}

EXPORTED ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type,
                                    int root, ncclComm_t handle, cudaStream_t stream)
{
    communicator *comm = (communicator *)handle;
    ncclResult_t result = ncclSuccess;

    if (from != to)
        emulator->fail("not-modelled", "ncclBroadcast from other memory than to");
    for (int i = 0; i < comm->size && result == ncclSuccess; i++) {
        if (i != comm->rank && (comm->rank == root || i == root))
            result = add(comm, i, comm->rank == root, to, count, type, stream, "ncclBroadcast",
                         BROADCAST);
    }
    return finish(result);
}

EXPORTED ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                                    ncclRedOp_t op, ncclComm_t handle, cudaStream_t stream)
{
    communicator *comm = (communicator *)handle;
    ncclResult_t result = ncclSuccess;
    std::shared_ptr<sum> of_sum;

    if (from != to || type != ncclFloat32 || op != ncclSum)
        emulator->fail("not-modelled", "ncclAllReduce that is no sum of floats in place");
    of_sum = std::make_shared<sum>(
        sum{(float *)to, count,
            std::vector<std::vector<float>>((size_t)comm->size, std::vector<float>(count)), false});
    for (int i = 0; i < comm->size && result == ncclSuccess; i++) {
        for (int is_sent = 1; is_sent >= 0 && i != comm->rank && result == ncclSuccess; is_sent--)
            result = add(comm, i, is_sent != 0, to, count, type, stream, "ncclAllReduce",
                         ALL_REDUCE, of_sum);
    }
    return finish(result);
}
}
