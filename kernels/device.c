/* Devices: choosing a backend and an instruction set, memory, copies and the sticky failure.
 * See device.h; the ops themselves are in ops.c. */
#include "kernels/backend.h"
#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"
#include "kernels/base/env.h"
#include "kernels/cuda_plugin.h"

#include <gnu/libc-version.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef GR_CPU_X86
#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifndef ARCH_REQ_XCOMP_PERM
#define ARCH_REQ_XCOMP_PERM 0x1023 /* since Linux 5.16 */
#endif
#endif

/* The CPU backend's tables, best first: one per instruction set it was compiled for. */
struct isa {
    const char *name, *text;
    const struct gr_ops *ops;
    bool (*runs_here)(void);
    bool prefers_bf16;
};

#ifdef GR_CPU_X86
extern const struct gr_ops gr_cpu_ops_v3, gr_cpu_ops_v4, gr_cpu_ops_v4bf16, gr_cpu_ops_v4amx;

static bool has_v4(void) /* -march=x86-64-v4 */
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static bool has_v4bf16(void) /* and -mavx512bf16 */
{
    return has_v4() && __builtin_cpu_supports("avx512bf16");
}

static bool has_amx_bf16(void)
{
    enum { LEAF = 7, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d = 0;

    return __get_cpuid_count(LEAF, 0, &a, &b, &c, &d) && (d & AMX_BF16) != 0 && (d & AMX_TILE) != 0;
}

static bool has_v4amx(void) /* and -mamx-tile -mamx-bf16 */
{
    enum { TILE_DATA = 18 /* that part of a thread's state */ };

    return has_v4bf16() && has_amx_bf16() &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

static bool has_v3(void) /* -march=x86-64-v3; CPUs with these three have the rest of it */
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

static const struct isa isas[] = {
    {"v4amx", "AVX-512, tiles of bf16 by AMX", &gr_cpu_ops_v4amx, has_v4amx, true},
    {"v4bf16", "AVX-512 with products of bf16", &gr_cpu_ops_v4bf16, has_v4bf16, false},
    {"v4", "AVX-512", &gr_cpu_ops_v4, has_v4, false},
    {"v3", "AVX2", &gr_cpu_ops_v3, has_v3, false},
};
#else
extern const struct gr_ops gr_cpu_ops_baseline;

static bool has_baseline(void)
{
    return true;
}

static const struct isa isas[] = {
    {"baseline", "untested, and slow", &gr_cpu_ops_baseline, has_baseline, false}};
#endif

const char *gr_isa_name(int index)
{
    return index < GR_COUNT(isas) ? isas[index].name : NULL;
}

static gr_status refuse_isa(const char *name)
{
    struct gr_buffer known = {0};

    for (int64_t i = 0; i < GR_COUNT(isas); i++)
        gr_buffer_add_format(&known, "%s%s", i == 0 ? "" : ", ", isas[i].name);
    gr_fail(GR_ERR_USAGE, "GRAFT_ISA", "unset it to let graft choose",
            "unknown instruction set (found %s, expected one of %s)", name, known.data);
    gr_buffer_release(&known);
    return GR_ERR_USAGE;
}

/* Instruction set `name`, or the best one this CPU has. */
static gr_status choose_isa(const struct isa **isa, const char *name)
{
    bool known = false;

    *isa = NULL;
    for (int64_t i = 0; i < GR_COUNT(isas) && *isa == NULL; i++) {
        bool wanted = name == NULL || strcmp(name, isas[i].name) == 0;

        known = known || wanted;
        if (wanted && isas[i].runs_here())
            *isa = &isas[i];
    }
    if (!known)
        return refuse_isa(name);
    if (*isa == NULL)
        return gr_fail(
            GR_ERR_DEVICE, "cpu",
            "graft needs a CPU with AVX2 and FMA; AVX-512 where v4 is forced, AVX512_BF16 "
            "where v4bf16 is, AMX_BF16 and Linux's leave to use it where v4amx is",
            "this machine lacks the instruction set (expected %s)",
            name == NULL ? "v3 or better" : name);
    return GR_OK;
}

static gr_status open_cpu(struct gr_device *dev, const char *isa_name)
{
    gr_status status = GR_OK;
    const struct isa *isa = NULL;

    GR_TRY(choose_isa(&isa, isa_name));
    dev->ops = isa->ops;
    dev->prefers_bf16 = isa->prefers_bf16;
    dev->widens_bf16 = true;
    dev->isa = isa->name;
    dev->isa_text = isa->text;
    dev->name = "cpu";
out:
    return status;
}

gr_status gr_device_create(struct gr_device **out, const char *kind, int threads, const char *isa)
{
    const char *local_rank = gr_env(GR_ENV_OMPI_COMM_WORLD_LOCAL_RANK);

    return gr_device_create_local(out, kind, threads, isa,
                                  local_rank == NULL ? 0 : atoi(local_rank));
}

gr_status gr_device_create_local(struct gr_device **out, const char *kind, int threads,
                                 const char *isa, int local_rank)
{
    gr_status status = GR_OK;
    bool is_auto = strcmp(kind, "auto") == 0;
    struct gr_device *dev = NULL;

    *out = NULL;
    GR_CHECK(threads >= 1, "%d threads", threads);
    if (!is_auto && strcmp(kind, "cpu") != 0 && strcmp(kind, "cuda") != 0)
        return gr_fail(GR_ERR_USAGE, "device.backend", "set device.backend to auto",
                       "unknown device (found %s, expected auto, cpu or cuda)", kind);
    dev = GR_NEW(struct gr_device);
    dev->threads = threads;
    dev->count = 1;
    if (strcmp(kind, "cuda") == 0)
        GR_TRY(gr_cuda_plugin_open(dev, local_rank));
    else if (!is_auto || isa != NULL || !gr_cuda_plugin_opens(dev, local_rank))
        GR_TRY(open_cpu(dev, isa));
    *out = dev;
out:
    if (status != GR_OK)
        gr_device_destroy(dev);
    return status;
}

void gr_device_destroy(struct gr_device *dev)
{
    if (dev != NULL)
        gr_profile_destroy(dev->profile);
    if (dev != NULL && dev->ops != NULL)
        dev->ops->close(dev);
    if (dev != NULL) {
        gr_free(dev->cache_folder);
        gr_free(dev->plugin);
    }
    gr_free(dev);
}

const char *gr_device_name(const struct gr_device *dev)
{
    return dev->name;
}

const char *gr_device_isa_text(const struct gr_device *dev)
{
    return dev->isa_text == NULL ? "" : dev->isa_text;
}

bool gr_device_prefers_bf16(const struct gr_device *dev)
{
    return dev->prefers_bf16;
}

const char *gr_device_isa(const struct gr_device *dev)
{
    return dev->isa;
}

const char *gr_device_software(const struct gr_device *dev)
{
    return dev->software == NULL ? "" : dev->software;
}

const char *gr_device_plugin(const struct gr_device *dev)
{
    return dev->plugin;
}

int64_t gr_device_head_dim_most(const struct gr_device *dev)
{
    return dev->head_dim_most;
}

int gr_device_threads(const struct gr_device *dev)
{
    return dev->threads;
}

struct gr_device_peak gr_device_peak(const struct gr_device *dev)
{
    return dev->peak;
}

bool gr_device_uses_host_memory(const struct gr_device *dev)
{
    return strcmp(dev->name, "cpu") == 0;
}

struct gr_device_id gr_device_id(const struct gr_device *dev)
{
    return dev->id;
}

int gr_device_count(const struct gr_device *dev)
{
    return dev->count;
}

void gr_device_set_share(struct gr_device *dev, int processes, int64_t bytes)
{
    dev->processes = processes;
    dev->share_bytes = bytes;
}

int gr_device_processes(const struct gr_device *dev)
{
    return dev->processes;
}

int64_t gr_device_memory_share(const struct gr_device *dev)
{
    return dev->share_bytes;
}

int64_t gr_device_memory_available(struct gr_device *dev)
{
    return dev->ops->memory_available(dev);
}

gr_status gr_device_arena_create(struct gr_device *dev, struct gr_arena *arena, const char *name,
                                 int64_t bytes)
{
    /* An arena without memory would be one that measures. */
    int64_t capacity = bytes > 0 ? bytes : GR_ARENA_ALIGN;
    void *memory = NULL;

    GR_CHECK(bytes >= 0, "arena %s of %lld bytes", name, (long long)bytes);
    *arena = (struct gr_arena){.name = name};
    if (dev->ops->memory_create(dev, &memory, capacity) != GR_OK)
        return gr_fail(GR_ERR_DEVICE, dev->name,
                       "lower data.max_length or train.micro_batch_size, or use a larger device",
                       "no memory for arena %s (%lld bytes)", name, (long long)bytes);
    arena->base = memory;
    arena->capacity = capacity;
    return GR_OK;
}

void gr_device_arena_release(struct gr_device *dev, struct gr_arena *arena)
{
    if (arena->base != NULL)
        dev->ops->memory_destroy(dev, arena->base, arena->capacity);
    *arena = (struct gr_arena){.name = arena->name};
}

void gr_device_set_workspace(struct gr_device *dev, void *memory, int64_t bytes)
{
    dev->workspace = memory;
    dev->workspace_bytes = bytes;
}

void gr_device_set_cache(struct gr_device *dev, const char *folder)
{
    gr_free(dev->cache_folder);
    dev->cache_folder = gr_strdup(folder);
}

gr_status gr_device_choose_attention(struct gr_device *dev, enum gr_attention_kind kind)
{
    return dev->ops->choose_attention(dev, kind);
}

gr_status gr_device_record_attention(struct gr_device *dev, enum gr_attention_kind kind,
                                     const char *figures)
{
    return dev->ops->record_attention(dev, kind, figures);
}

void gr_device_get_choices(struct gr_device *dev, struct gr_buffer *text)
{
    dev->ops->get_choices(dev, text);
}

gr_status gr_device_set_choices(struct gr_device *dev, const char *text)
{
    return dev->ops->set_choices(dev, text);
}

void gr_device_settle_choices(struct gr_device *dev)
{
    dev->is_settled = true;
}

void gr_device_describe(struct gr_device *dev, char *text, int64_t size)
{
    dev->ops->describe(dev, text, size);
}

/* Whether a copy of this tensor can be queued; one without memory is a bug. */
static bool can_copy(struct gr_device *dev, const char *op, gr_tensor t, const void *host)
{
    char found[96];

    if (dev->failure.status == GR_OK && (t.data == NULL || host == NULL) && gr_tensor_count(t) > 0)
        gr_device_fail(dev, GR_ERR_BUG, op,
                       "the tensor or the host's copy has no memory (found %s)",
                       gr_tensor_describe(t, found, sizeof found));
    return dev->failure.status == GR_OK;
}

void gr_device_upload(struct gr_device *dev, gr_tensor destination, const void *source)
{
    if (can_copy(dev, "upload", destination, source))
        dev->ops->upload(dev, destination, source);
}

void gr_device_download(struct gr_device *dev, void *destination, gr_tensor source)
{
    if (can_copy(dev, "download", source, destination))
        dev->ops->download(dev, destination, source);
}

gr_status gr_device_stash_create(struct gr_device *dev, struct gr_arena *stash, const char *name,
                                 int64_t bytes)
{
    int64_t capacity = bytes > 0 ? bytes : GR_ARENA_ALIGN;
    void *memory = NULL;

    *stash = (struct gr_arena){.name = name};
    if (dev->ops->stash_create(dev, &memory, capacity) != GR_OK)
        return gr_fail(GR_ERR_DEVICE, dev->name,
                       "set device.recompute to all, or give the job more memory of the host",
                       "no pinned memory of the host for %s (%lld bytes)", name, (long long)bytes);
    stash->base = memory;
    stash->capacity = capacity;
    return GR_OK;
}

void gr_device_stash_release(struct gr_device *dev, struct gr_arena *stash)
{
    if (stash->base != NULL)
        dev->ops->stash_destroy(dev, stash->base, stash->capacity);
    *stash = (struct gr_arena){.name = stash->name};
}

static bool can_stash(struct gr_device *dev, const char *op, gr_tensor t, gr_tensor stashed,
                      int lane)
{
    GR_CHECK(lane >= 0 && lane < GR_STASH_LANES, "lane %d", lane);
    GR_CHECK(t.dtype == stashed.dtype && gr_tensor_count(t) == gr_tensor_count(stashed) &&
                 gr_tensor_is_contiguous(t) && gr_tensor_is_contiguous(stashed),
             "%lld elements and %lld", (long long)gr_tensor_count(t),
             (long long)gr_tensor_count(stashed));
    return can_copy(dev, op, t, stashed.data);
}

void gr_device_stash_out(struct gr_device *dev, gr_tensor stashed, gr_tensor t, int lane)
{
    if (can_stash(dev, "stash", t, stashed, lane))
        dev->ops->stash_out(dev, stashed, t, lane);
}

void gr_device_stash_in(struct gr_device *dev, gr_tensor t, gr_tensor stashed, int lane)
{
    if (can_stash(dev, "stash", t, stashed, lane))
        dev->ops->stash_in(dev, t, stashed, lane);
}

void gr_device_stash_wait(struct gr_device *dev, int lane)
{
    GR_CHECK(lane >= 0 && lane < GR_STASH_LANES, "lane %d", lane);
    if (dev->failure.status == GR_OK)
        dev->ops->stash_wait(dev, lane);
}

gr_status gr_device_sync(struct gr_device *dev)
{
    gr_status status = dev->ops->sync(dev);

    gr_profile_collect(dev);
    return dev->failure.status != GR_OK ? gr_device_status(dev) : status;
}

void gr_device_range_begin(struct gr_device *dev, const char *name)
{
    dev->ops->range_begin(dev, name);
}

void gr_device_range_end(struct gr_device *dev)
{
    dev->ops->range_end(dev);
}

gr_status gr_device_status(struct gr_device *dev)
{
    if (dev->failure.status != GR_OK)
        gr_error_put(&dev->failure);
    return dev->failure.status;
}

void gr_device_fail(struct gr_device *dev, gr_status status, const char *op, const char *format,
                    ...)
{
    const char *hint = status == GR_ERR_BUG
                           ? "this is a fault of graft, not of your input; please report it"
                           : NULL;
    struct gr_error earlier;
    char text[768];
    va_list args;

    if (dev->failure.status != GR_OK)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    earlier = gr_error_take(); /* what this thread already reports stays */
    gr_fail(status, op, hint, "%s", text);
    dev->failure = gr_error_take();
    gr_error_put(&earlier);
}

const char *gr_device_libraries(void)
{
    static char text[32];

    snprintf(text, sizeof text, "glibc %s", gnu_get_libc_version());
    return text;
}
