/* Devices: choosing a backend and an instruction set, memory, copies and the sticky failure.
 * See device.h; the ops themselves are in ops.c. */
#include "kernels/backend.h"
#include "kernels/base/alloc.h"
#include "kernels/cpu/matmul.h"

#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The CPU backend's tables, best first: one per instruction set it was compiled for. */
struct isa {
    const struct gr_ops *ops;
    bool (*runs_here)(void);
};

#ifdef GR_CPU_X86
extern const struct gr_ops gr_cpu_ops_v3, gr_cpu_ops_v4;

static bool has_v4(void) /* -march=x86-64-v4 */
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static bool has_v3(void) /* -march=x86-64-v3; CPUs with these three have the rest of it */
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

static const struct isa isas[] = {{&gr_cpu_ops_v4, has_v4}, {&gr_cpu_ops_v3, has_v3}};
#else
extern const struct gr_ops gr_cpu_ops_baseline;

static bool has_baseline(void)
{
    return true;
}

static const struct isa isas[] = {{&gr_cpu_ops_baseline, has_baseline}};
#endif

/* The table of instruction set `name`, or of the best one this CPU has. */
static gr_status choose_isa(const struct gr_ops **ops, const char *name)
{
    bool known = false;

    *ops = NULL;
    for (int64_t i = 0; i < GR_COUNT(isas) && *ops == NULL; i++) {
        bool wanted = name == NULL || strcmp(name, isas[i].ops->isa) == 0;

        known = known || wanted;
        if (wanted && isas[i].runs_here())
            *ops = isas[i].ops;
    }
    if (!known)
        return gr_fail(GR_ERR_USAGE, "GRAFT_ISA", "unset it to let graft choose",
                       "unknown instruction set (found %s, expected v3 or v4 on x86-64)", name);
    if (*ops == NULL)
        return gr_fail(GR_ERR_DEVICE, "cpu",
                       "graft needs a CPU with AVX2 and FMA, and AVX-512 where v4 is forced",
                       "this CPU lacks the instruction set (expected %s)",
                       name == NULL ? "v3 or better" : name);
    return GR_OK;
}

gr_status gr_device_create(struct gr_device **dev, const char *kind, int threads, const char *isa)
{
    const struct gr_ops *ops = NULL;
    gr_status status = GR_OK;

    *dev = NULL;
    GR_CHECK(threads >= 1, "%d threads", threads);
    if (strcmp(kind, "cuda") == 0)
        return gr_fail(GR_ERR_DEVICE, "device.backend", "set device.backend to cpu or auto",
                       "this build has no CUDA plug-in yet (found cuda, expected cpu or auto)");
    if (strcmp(kind, "cpu") != 0 && strcmp(kind, "auto") != 0)
        return gr_fail(GR_ERR_USAGE, "device.backend", "set device.backend to auto",
                       "unknown device (found %s, expected auto, cpu or cuda)", kind);
    GR_TRY(choose_isa(&ops, isa));
    *dev = GR_NEW(struct gr_device);
    (*dev)->ops = ops;
    (*dev)->name = "cpu";
    (*dev)->threads = threads;
    gr_cpu_matmul_limit_isa(ops->isa);
    omp_set_num_threads(threads); /* for libraries; the ops name dev->threads themselves */
out:
    return status;
}

void gr_device_destroy(struct gr_device *dev)
{
    gr_free(dev);
}

const char *gr_device_name(const struct gr_device *dev)
{
    return dev->name;
}

const char *gr_device_isa(const struct gr_device *dev)
{
    return dev->ops->isa;
}

int gr_device_threads(const struct gr_device *dev)
{
    return dev->threads;
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

gr_status gr_device_sync(struct gr_device *dev)
{
    gr_status status = dev->ops->sync(dev);

    return dev->failure.status != GR_OK ? gr_device_status(dev) : status;
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
    return gr_cpu_matmul_library();
}
