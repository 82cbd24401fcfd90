/* Converting weights once per host.  See weights_host.h.
 *
 * Local rank 0:  take the socket's name -> memfd -> widen with threads -> seal -> map | hand out.
 * The others:    | connect, wait for the memfd, check size and seals, map.
 * At the bar the caller makes sure that nobody has failed.
 * A sealed memfd can neither change nor shrink: what was checked stays true. */
#include "data/weights_host.h"

#include "data/fd_share.h"
#include "data/threads.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/widen.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    ALIGN_BYTES = 64,         /* of each tensor in the shared memory: a cache line */
    BLOCK_ELEMENTS = 1 << 18, /* what a thread converts at a time */
    RUN_ELEMENTS = 1024,      /* widened and narrowed in the cache */
    SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE,
};

struct part {
    const struct gr_model_tensor *tensor;
    int64_t elements;
    bool converted;
    enum gr_dtype dtype; /* that it has now */
    int64_t offset;      /* converted: of its first byte in the shared memory */
    int64_t first_block; /* blocks of all parts before it */
};

struct gr_weights_host {
    struct part *part; /* [count] as asked for */
    int64_t count;
    enum gr_dtype dtype;
    int64_t bytes;  /* of the shared memory */
    int64_t blocks; /* to convert */
    void *shared;   /* mapped read-only; NULL when bytes is 0 */
    const char *directory;
    int listener, fd; /* local rank 0 between create and share, else -1 */
};

static int64_t part_blocks(const struct part *part)
{
    return part->converted ? (part->elements + BLOCK_ELEMENTS - 1) / BLOCK_ELEMENTS : 0;
}

/* ---- what goes where -------------------------------------------------------------------- */

/* A matrix of bf16 is widened where it is used: exact, and cheaper than reading it as f32.  A
 * header of odd length leaves data at addresses that no number may have. */
static bool is_kept(const struct gr_safetensors_entry *entry, enum gr_dtype dtype)
{
    bool is_usable = entry->dtype == dtype || (entry->dtype == GR_BF16 && entry->ndim == 2);

    return is_usable && entry->offset % gr_dtype_bytes(entry->dtype) == 0;
}

static gr_status plan_part(struct gr_weights_host *w, struct part *part,
                           const struct gr_model_files *model, const char *name)
{
    const struct gr_safetensors_entry *entry = NULL;

    part->tensor = gr_model_files_find(model, name);
    if (part->tensor == NULL)
        return gr_fail(GR_ERR_DATA, model->directory,
                       "check that config.json belongs to the weights",
                       "tensor \"%.200s\" is missing (found nothing, expected a weight)", name);
    entry = part->tensor->entry;
    if (entry->dtype != GR_F32 && entry->dtype != GR_BF16 && entry->dtype != GR_F16)
        return gr_fail(GR_ERR_DATA, part->tensor->file->path,
                       "convert it in Python: from_pretrained(DIRECTORY, dtype=torch.bfloat16)"
                       ".save_pretrained(DIRECTORY)",
                       "tensor \"%.200s\" has the wrong dtype (found %s, expected F32, BF16 or "
                       "F16)",
                       entry->name, entry->dtype_name);
    part->elements = entry->bytes / gr_dtype_bytes(entry->dtype);
    part->first_block = w->blocks;
    part->converted = !is_kept(entry, w->dtype);
    part->dtype = part->converted ? w->dtype : entry->dtype;
    if (part->converted) {
        part->offset = w->bytes;
        w->bytes += (gr_mul(part->elements, gr_dtype_bytes(w->dtype)) + ALIGN_BYTES - 1) /
                    ALIGN_BYTES * ALIGN_BYTES;
        w->blocks += part_blocks(part);
    }
    return GR_OK;
}

static gr_status plan(struct gr_weights_host *w, const struct gr_model_files *model,
                      const char *const *name, int64_t count)
{
    gr_status status = GR_OK;

    w->count = count;
    w->part = GR_NEW_ARRAY(struct part, count);
    for (int64_t i = 0; i < count; i++)
        GR_TRY(plan_part(w, &w->part[i], model, name[i]));
out:
    return status;
}

/* ---- converting ------------------------------------------------------------------------ */

/* Elements [begin, end) of a tensor into its place `out`.  The file's own are not needed again: a
 * host holds the converted weights or the file, not both. */
static void convert_range(unsigned char *out, enum gr_dtype out_dtype,
                          const struct gr_model_tensor *tensor, int64_t begin, int64_t end)
{
    enum gr_dtype dtype = tensor->entry->dtype;
    const unsigned char *in = gr_model_tensor_data(tensor);
    float run[RUN_ELEMENTS];

    for (int64_t i = begin; i < end; i += RUN_ELEMENTS) {
        int64_t count = end - i < RUN_ELEMENTS ? end - i : RUN_ELEMENTS;
        bool known = gr_widen(run, in + i * gr_dtype_bytes(dtype), dtype, count) &&
                     gr_narrow(out + i * gr_dtype_bytes(out_dtype), run, out_dtype, count);

        GR_CHECK(known, "%s", gr_dtype_name(dtype)); /* the plan refuses the others */
    }
    gr_file_map_forget(&tensor->file->map, tensor->entry->offset + begin * gr_dtype_bytes(dtype),
                       tensor->entry->offset + end * gr_dtype_bytes(dtype));
}

struct convert_job {
    const struct gr_weights_host *weights;
    unsigned char *out;
    _Atomic int64_t next_block;
};

static void convert_blocks(void *context)
{
    struct convert_job *job = context;
    const struct gr_weights_host *w = job->weights;
    int64_t block = 0;

    while ((block = atomic_fetch_add(&job->next_block, 1)) < w->blocks) {
        const struct part *part = w->part;
        int64_t begin = 0, end = 0;

        while (block >= part->first_block + part_blocks(part))
            part++;
        begin = (block - part->first_block) * BLOCK_ELEMENTS;
        end = part->elements - begin < BLOCK_ELEMENTS ? part->elements : begin + BLOCK_ELEMENTS;
        convert_range(job->out + part->offset, w->dtype, part->tensor, begin, end);
    }
}

/* ---- the shared memory ------------------------------------------------------------------ */

static gr_status fail_memory(const struct gr_weights_host *w, const char *verb)
{
    return gr_fail(GR_ERR_DEVICE, "host memory",
                   "give the job more memory, or a model saved in the dtype it computes with, "
                   "which needs no copy",
                   "converted weights of %" PRId64 " MiB cannot be %s (%s)", w->bytes >> 20, verb,
                   strerror(errno));
}

/* Private, because kernels before 6.7 map sealed memory in no other way; never written to, its
 * pages are the memfd's own. */
static gr_status map_shared(struct gr_weights_host *w, int fd)
{
    void *memory = mmap(NULL, (size_t)w->bytes, PROT_READ, MAP_PRIVATE, fd, 0);

    if (memory == MAP_FAILED)
        return fail_memory(w, "mapped");
    w->shared = memory;
    return GR_OK;
}

/* Converts everything into a new memfd and seals it; the caller closes *fd, also after a failure.
 */
static gr_status make_shared(const struct gr_weights_host *w, int *fd, int threads)
{
    struct convert_job job = {.weights = w};
    void *memory = NULL;

    *fd = memfd_create("graft-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0 || ftruncate(*fd, w->bytes) != 0)
        return fail_memory(w, "placed");
    memory = mmap(NULL, (size_t)w->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (memory == MAP_FAILED)
        return fail_memory(w, "mapped");
    job.out = memory;
    gr_run_threads(threads, convert_blocks, &job);
    munmap(memory, (size_t)w->bytes); /* with a writable mapping there is no seal */
    if (fcntl(*fd, F_ADD_SEALS, SEALS) != 0)
        return fail_memory(w, "sealed");
    return GR_OK;
}

static gr_status check_shared(const struct gr_weights_host *w, int fd)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return fail_memory(w, "examined");
    if (info.st_size != w->bytes || (fcntl(fd, F_GET_SEALS) & SEALS) != SEALS)
        return gr_fail(GR_ERR_DATA, w->directory, "start all processes with the same model",
                       "another process of this host shares other weights (found %" PRId64
                       " bytes, expected %" PRId64 " bytes, sealed)",
                       (int64_t)info.st_size, w->bytes);
    return GR_OK;
}

/* Local rank 0 holds the socket's name while it converts: those in the queue learn at once when it
 * dies. */
static gr_status prepare_shared(struct gr_weights_host *w,
                                const struct gr_weights_host_options *options)
{
    gr_status status = GR_OK;
    int peers = options->local_size - 1;
    int64_t deadline_ns = gr_clock_ns() + (int64_t)(options->timeout_s * 1e9);

    if (peers > 0)
        GR_TRY(gr_fd_offer_open(&w->listener, options->job_key, peers, deadline_ns));
    GR_TRY(make_shared(w, &w->fd, options->threads));
    GR_TRY(map_shared(w, w->fd));
out:
    return status;
}

/* What is only needed to hand the memory out; its mapping stays. */
static void close_shared(struct gr_weights_host *w)
{
    if (w->listener >= 0)
        close(w->listener);
    if (w->fd >= 0)
        close(w->fd);
    w->listener = w->fd = -1;
}

static gr_status take_shared(struct gr_weights_host *w,
                             const struct gr_weights_host_options *options, int64_t deadline_ns)
{
    gr_status status = GR_OK;
    int fd = -1;

    GR_TRY(gr_fd_take(&fd, options->job_key, deadline_ns));
    GR_TRY(check_shared(w, fd));
    GR_TRY(map_shared(w, fd));
out:
    if (fd >= 0)
        close(fd);
    return status;
}

/* ---- public ----------------------------------------------------------------------------- */

gr_status gr_weights_host_create(struct gr_weights_host **weights,
                                 const struct gr_model_files *model, const char *const *name,
                                 int64_t count, const struct gr_weights_host_options *options)
{
    gr_status status = GR_OK;
    struct gr_weights_host *w = GR_NEW(struct gr_weights_host);

    *weights = NULL;
    w->listener = w->fd = -1;
    w->directory = model->directory;
    w->dtype = options->dtype;
    GR_TRY(plan(w, model, name, count));
    if (w->bytes > 0 && options->local_rank == 0)
        GR_TRY(prepare_shared(w, options));
out:
    if (status == GR_OK)
        *weights = w; /* ownership moved to the caller */
    else
        gr_weights_host_destroy(w);
    return status;
}

gr_status gr_weights_host_share(struct gr_weights_host *weights,
                                const struct gr_weights_host_options *options)
{
    gr_status status = GR_OK;
    int peers = options->local_size - 1;
    int64_t deadline_ns = gr_clock_ns() + (int64_t)(options->timeout_s * 1e9);

    if (weights->bytes == 0) /* everything is mapped */
        goto out;
    if (options->local_rank != 0)
        GR_TRY(take_shared(weights, options, deadline_ns));
    else if (peers > 0)
        GR_TRY(gr_fd_offer(weights->listener, options->job_key, weights->fd, peers, deadline_ns));
out:
    close_shared(weights);
    return status;
}

void gr_weights_host_destroy(struct gr_weights_host *weights)
{
    if (weights == NULL)
        return;
    close_shared(weights);
    if (weights->shared != NULL)
        munmap(weights->shared, (size_t)weights->bytes);
    gr_free(weights->part);
    gr_free(weights);
}

const void *gr_weights_host_data(const struct gr_weights_host *weights, int64_t i)
{
    const struct part *part = NULL;

    GR_CHECK(i >= 0 && i < weights->count, "%" PRId64, i);
    part = &weights->part[i];
    if (!part->converted)
        return gr_model_tensor_data(part->tensor);
    return (const unsigned char *)weights->shared + part->offset;
}

enum gr_dtype gr_weights_host_dtype(const struct gr_weights_host *weights, int64_t i)
{
    GR_CHECK(i >= 0 && i < weights->count, "%" PRId64, i);
    return weights->part[i].dtype;
}

void gr_weights_host_expect(const struct gr_weights_host *weights, int64_t i, int64_t begin,
                            int64_t end)
{
    const struct part *part = &weights->part[i];
    int64_t offset = part->tensor->entry->offset;

    if (!part->converted)
        gr_file_map_expect(&part->tensor->file->map, offset + begin, offset + end);
}

int64_t gr_weights_host_converted_bytes(const struct gr_weights_host *weights)
{
    return weights->bytes;
}

gr_status gr_weights_host_measure(int64_t *converted, int64_t *mapped,
                                  const struct gr_model_files *model, const char *const *name,
                                  int64_t count, enum gr_dtype dtype)
{
    struct gr_weights_host w = {.dtype = dtype};
    gr_status status = plan(&w, model, name, count);

    *converted = w.bytes;
    *mapped = 0;
    for (int64_t i = 0; i < count && status == GR_OK; i++)
        *mapped += w.part[i].converted ? 0 : w.part[i].elements * gr_dtype_bytes(w.part[i].dtype);
    gr_free(w.part);
    return status;
}
