/* A device: where tensors live and ops run.
 *
 * Ops are asynchronous on the device's one stream and return nothing: the first failure sticks in
 * the device, later ops do nothing, and a phase ends with `return gr_device_status(dev);`.  Host
 * code touches device memory only through upload, download and sync, which exist, and must be
 * called, on the CPU too. */
#ifndef GR_DEVICE_H
#define GR_DEVICE_H

#include "kernels/base/status.h"
#include "kernels/tensor.h"

struct gr_device;

/* Opens a device.  kind: "cpu", "cuda", "auto" (cuda where there is one).  threads: OpenMP threads
 * of the CPU backend, >= 1.  isa: NULL, or "v3" / "v4" to force an instruction set (GRAFT_ISA; the
 * caller reads the environment).  Errors: ERR_USAGE (unknown kind or isa), ERR_DEVICE. */
gr_status gr_device_create(struct gr_device **dev, const char *kind, int threads, const char *isa);
void gr_device_destroy(struct gr_device *dev); /* NULL is fine */

const char *gr_device_name(const struct gr_device *dev); /* "cpu" */
const char *gr_device_isa(const struct gr_device *dev);  /* "v4": part of the device kind */
const char *gr_device_libraries(void); /* "oneDNN 2.6.3": what computes beside us */
int gr_device_threads(const struct gr_device *dev);

/* Memory for an arena, zeroed.  Errors: ERR_DEVICE with the arena's name and size. */
gr_status gr_device_arena_create(struct gr_device *dev, struct gr_arena *arena, const char *name,
                                 int64_t bytes);
void gr_device_arena_release(struct gr_device *dev, struct gr_arena *arena);

/* Scratch memory ops may use; they say how much they need (gr_*_workspace_bytes in ops.h).  The
 * caller owns it and takes the largest; ops run one at a time, so one piece serves all. */
void gr_device_set_workspace(struct gr_device *dev, void *memory, int64_t bytes);

/* Copies, queued on the stream: `source` must stay as it is and `destination` is not there until
 * gr_device_sync.  The tensor's elements in row order, without the gaps of its stride. */
void gr_device_upload(struct gr_device *dev, gr_tensor destination, const void *source);
void gr_device_download(struct gr_device *dev, void *destination, gr_tensor source);
/* Waits for everything queued. */
gr_status gr_device_sync(struct gr_device *dev);

/* The sticky failure: OK, or the first one since create (its message is on this thread). */
gr_status gr_device_status(struct gr_device *dev);

#endif
