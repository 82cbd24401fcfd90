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
struct gr_buffer;

/* Opens a device.  kind: "cpu", "cuda", "auto" (cuda where there is one).  threads: OpenMP threads
 * of the CPU backend, >= 1.  isa: NULL, or the name of an instruction set to force (GRAFT_ISA;
 * the caller reads the environment).  Of several GPUs it is that of this process's number among
 * those of the host, as mpirun's environment tells it, counted over the GPUs that the process sees.
 * Errors: ERR_USAGE (unknown kind or isa), ERR_DEVICE. */
gr_status gr_device_create(struct gr_device **dev, const char *kind, int threads, const char *isa);
/* The same for a process that knows its number. */
gr_status gr_device_create_local(struct gr_device **dev, const char *kind, int threads,
                                 const char *isa, int local_rank);
void gr_device_destroy(struct gr_device *dev); /* NULL is fine */

/* The instruction sets graft was compiled for, the best first; NULL behind the last. */
const char *gr_isa_name(int index);

const char *gr_device_name(const struct gr_device *dev);     /* "cpu" */
const char *gr_device_isa(const struct gr_device *dev);      /* "v4": part of the device kind */
const char *gr_device_isa_text(const struct gr_device *dev); /* "AVX-512"; "": not the CPU's */
/* Whether it multiplies bf16 much faster than f32. */
bool gr_device_prefers_bf16(const struct gr_device *dev);
const char *gr_device_libraries(void); /* "glibc 2.36": what computes beside us (log, sin) */
/* Driver and libraries of a GPU, and the file that the backend is from (NULL: the program itself):
 * parts of the device kind.  "": none. */
const char *gr_device_software(const struct gr_device *dev);
const char *gr_device_plugin(const struct gr_device *dev);
int64_t gr_device_head_dim_most(const struct gr_device *dev); /* of attention; 0: any */
int gr_device_threads(const struct gr_device *dev);

/* What the device can do at best; 0: unknown. */
struct gr_device_peak {
    double flop_per_s;  /* products of dense bf16 with sums in f32, a multiply-add counted as two */
    double bytes_per_s; /* of its memory */
};
struct gr_device_peak gr_device_peak(const struct gr_device *dev);

/* Whether tensors may lie in the host's memory, where a file is mapped. */
bool gr_device_uses_host_memory(const struct gr_device *dev);
/* Bytes of the device's own memory that are free; -1 where it uses the host's. */
int64_t gr_device_memory_available(struct gr_device *dev);

/* Names the GPU: the same in every process that computes on it; all zero for a CPU. */
struct gr_device_id {
    unsigned char bytes[16];
};
struct gr_device_id gr_device_id(const struct gr_device *dev);
/* GPUs that this process sees; 1 for a CPU. */
int gr_device_count(const struct gr_device *dev);
/* So many processes of the job compute on this GPU, and this one may have `bytes` of its memory. */
void gr_device_set_share(struct gr_device *dev, int processes, int64_t bytes);
int gr_device_processes(const struct gr_device *dev);        /* 0: nobody has said */
int64_t gr_device_memory_share(const struct gr_device *dev); /* of several processes */

/* Memory for an arena, zeroed.  Errors: ERR_DEVICE with the arena's name and size. */
gr_status gr_device_arena_create(struct gr_device *dev, struct gr_arena *arena, const char *name,
                                 int64_t bytes);
void gr_device_arena_release(struct gr_device *dev, struct gr_arena *arena);

/* Scratch memory ops may use; they say how much they need (gr_*_workspace_bytes in ops.h).  The
 * caller owns it and takes the largest; ops run one at a time, so one piece serves all. */
void gr_device_set_workspace(struct gr_device *dev, void *memory, int64_t bytes);

/* Lets the backend choose by time what computes a product, and keep what it chose in that folder,
 * which may not exist yet.  Without it the choice depends on the kind of device alone. */
void gr_device_set_cache(struct gr_device *dev, const char *folder);

/* Whose attention a GPU computes: what this machine's record in the cache folder says
 * (gr_device_record_attention), by default; ours where there is no record, no cache folder or no
 * cuDNN, and for shapes that cuDNN does not compute.  GRAFT_ATTENTION goes over the record. */
enum gr_attention_kind { GR_ATTENTION_RECORDED, GR_ATTENTION_OWN, GR_ATTENTION_CUDNN };
/* Before the workspace is measured.  Errors: ERR_DEVICE: there is no cuDNN. */
gr_status gr_device_choose_attention(struct gr_device *dev, enum gr_attention_kind kind);
/* Keeps OWN or CUDNN for this GPU, driver and cuDNN in the cache folder, in the place of what was
 * kept; figures: lines of text that say why.  Errors: ERR_USAGE without a folder, ERR_DATA. */
gr_status gr_device_record_attention(struct gr_device *dev, enum gr_attention_kind kind,
                                     const char *figures);
/* What computes where several could, each with bits of its own: whose attention, and by which
 * algorithm of cuBLASLt each product.  A GPU chooses when a product first comes up, by time where
 * it may (gr_device_set_cache), which waits.  Of several that work together, one chooses and the
 * others take its choices over.  A CPU has none.
 *
 * get: adds lines of text, the same for the same choices.  set: takes such lines over, in the place
 * of the device's own choices; before the workspace is measured, since attention may be another.
 * Errors: ERR_DATA (no such lines), ERR_DEVICE, ERR_USAGE (this device does not compute so).
 * settle: from here on nothing is timed and no op waits; a product that comes up for the first time
 * gets what the kind of device alone decides. */
void gr_device_get_choices(struct gr_device *dev, struct gr_buffer *text);
gr_status gr_device_set_choices(struct gr_device *dev, const char *text);
void gr_device_settle_choices(struct gr_device *dev);
/* Lines "name: text" about the GPU, its driver and the libraries; nothing for a CPU. */
void gr_device_describe(struct gr_device *dev, char *text, int64_t size);

/* Copies, queued on the stream.  An upload has taken `source` when it returns; what a download
 * brings is not there until gr_device_sync.  The tensor's elements in row order, without the gaps
 * of its stride. */
void gr_device_upload(struct gr_device *dev, gr_tensor destination, const void *source);
void gr_device_download(struct gr_device *dev, void *destination, gr_tensor source);
/* A stash: memory of the host that copies go to and come from beside the stream.  Errors of create:
 * ERR_DEVICE with the name and size. */
gr_status gr_device_stash_create(struct gr_device *dev, struct gr_arena *stash, const char *name,
                                 int64_t bytes);
void gr_device_stash_release(struct gr_device *dev, struct gr_arena *stash);
/* Copies a tensor into a stash, or back: both contiguous and alike.  It begins when what is queued
 * so far is done, in the order of these copies, and runs beside what is queued after it, up to
 * gr_device_stash_wait of its lane (one of GR_STASH_LANES): what is queued after that call runs
 * when the last copy of that lane is done.  Nothing may be written to either side in between, nor
 * read from the side that is written. */
enum { GR_STASH_LANES = 2 };
void gr_device_stash_out(struct gr_device *dev, gr_tensor stashed, gr_tensor t, int lane);
void gr_device_stash_in(struct gr_device *dev, gr_tensor t, gr_tensor stashed, int lane);
void gr_device_stash_wait(struct gr_device *dev, int lane);

/* Waits for everything queued.  Returns the sticky failure. */
gr_status gr_device_sync(struct gr_device *dev);

/* Names what is queued in between, for tools that show a timeline (NVTX); ranges may be nested. */
void gr_device_range_begin(struct gr_device *dev, const char *name);
void gr_device_range_end(struct gr_device *dev);

/* The sticky failure: OK, or the first one since create (its message is on this thread). */
gr_status gr_device_status(struct gr_device *dev);

#endif
