/* What nccl.cu calls of NCCL, which is opened at run time and need not be there when the plug-in is
 * built.  The double in tests/emu/nccl holds it against NVIDIA's nccl.h. */
#ifndef GR_CUDA_NCCL_API_H
#define GR_CUDA_NCCL_API_H

#include <stddef.h>

/* Names and values of nccl.h. */
enum {
    GR_NCCL_SUCCESS = 0,
    GR_NCCL_SYSTEM_ERROR = 2,
    GR_NCCL_REMOTE_ERROR = 6,
    GR_NCCL_IN_PROGRESS = 7,
    GR_NCCL_FLOAT32 = 7,
    GR_NCCL_BFLOAT16 = 9,
    GR_NCCL_SUM = 0,
};

typedef struct ncclComm *gr_nccl_comm;
struct gr_nccl_id { /* by value, in memory */
    char bytes[128];
};

/* ncclConfig_t as NCCL 2.14 began it; by its size and version a later one knows what is missing. */
enum { GR_NCCL_CONFIG_VERSION = 21400 };
#define GR_NCCL_CONFIG_MAGIC 0xcafebeefu
struct gr_nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

/* name, type, parameters; results, types of elements, operations and streams are int, int, int and
 * void * there */
#define GR_NCCL_FUNCTIONS(X)                                                                       \
    X(ncclGetErrorString, const char *, (int result))                                              \
    X(ncclGetUniqueId, int, (struct gr_nccl_id * id))                                              \
    X(ncclCommInitRank, int, (gr_nccl_comm * comm, int size, struct gr_nccl_id id, int rank))      \
    X(ncclCommDestroy, int, (gr_nccl_comm comm))                                                   \
    X(ncclCommGetAsyncError, int, (gr_nccl_comm comm, int *result))                                \
    X(ncclGroupStart, int, (void))                                                                 \
    X(ncclGroupEnd, int, (void))                                                                   \
    X(ncclSend, int,                                                                               \
      (const void *data, size_t count, int type, int peer, gr_nccl_comm comm, void *stream))       \
    X(ncclRecv, int,                                                                               \
      (void *data, size_t count, int type, int peer, gr_nccl_comm comm, void *stream))             \
    X(ncclBroadcast, int,                                                                          \
      (const void *sent, void *received, size_t count, int type, int root, gr_nccl_comm comm,      \
       void *stream))                                                                              \
    X(ncclAllReduce, int,                                                                          \
      (const void *sent, void *received, size_t count, int type, int op, gr_nccl_comm comm,        \
       void *stream))

/* Since NCCL 2.14. */
#define GR_NCCL_LATER_FUNCTIONS(X)                                                                 \
    X(ncclCommInitRankConfig, int,                                                                 \
      (gr_nccl_comm * comm, int size, struct gr_nccl_id id, int rank,                              \
       struct gr_nccl_config *config))                                                             \
    X(ncclCommFinalize, int, (gr_nccl_comm comm))

#endif
