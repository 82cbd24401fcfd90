/* Measuring products, and time from arithmetic.  See speed.h. */
#include "trainer/run/speed.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/env.h"
#include "trainer/run/device_config.h"

#include <math.h>
#include <string.h>

/* Large enough that larger is no faster, and yet a repetition takes some tenths of a second. */
enum { ROWS_PER_THREAD = 256, WIDTH_MOST = 2048 };
enum { GPU_WIDTH_MOST = 16384, GPU_PASSES = 16 }; /* queued at once: a launch takes its time */
static const double seconds_most = 0.6;
static const double repetition_flop_per_thread = 1e9; /* less is not told from noise */

/* One linear with an adapter. */
struct probe {
    struct gr_device *dev;
    struct gr_arena arena;
    int64_t rows, in, out, r;
    enum gr_dtype dtype;
    struct gr_linear linear;
    struct gr_lora lora;
    struct gr_segment segment;
    struct gr_lora_group group;
    gr_tensor workspace;
};

static void layout(struct probe *p, struct gr_arena *arena)
{
    struct gr_lora_group *g = &p->group;

    p->linear.weight = gr_arena_tensor_2d(arena, p->dtype, p->out, p->in);
    p->lora.a = gr_arena_tensor_2d(arena, p->dtype, p->r, p->in);
    p->lora.b = gr_arena_tensor_2d(arena, p->dtype, p->out, p->r);
    p->lora.da = gr_arena_tensor_2d(arena, GR_F32, p->r, p->in);
    p->lora.db = gr_arena_tensor_2d(arena, GR_F32, p->out, p->r);
    g->x = gr_arena_tensor_2d(arena, p->dtype, p->rows, p->in);
    g->dx = gr_arena_tensor_2d(arena, p->dtype, p->rows, p->in);
    g->y = gr_arena_tensor_2d(arena, p->dtype, p->rows, p->out);
    g->dy = gr_arena_tensor_2d(arena, p->dtype, p->rows, p->out);
    g->s = gr_arena_tensor_2d(arena, p->dtype, p->rows, p->r);
    g->ds = gr_arena_tensor_2d(arena, p->dtype, p->rows, p->r);
    p->workspace = gr_arena_tensor_1d(
        arena, GR_U8, gr_lora_group_workspace_bytes(p->dev, p->rows, p->in, p->out, p->r));
}

/* Zeroed memory that nobody wrote is one page for all addresses: it has to be written first. */
static void touch(struct probe *p)
{
    gr_tensor inputs[] = {p->linear.weight, p->lora.a, p->lora.b, p->group.x, p->group.dy};

    for (int64_t i = 0; i < GR_COUNT(inputs); i++) {
        int64_t bytes =
            gr_mul(gr_tensor_count(inputs[i]), (int64_t)gr_dtype_bytes(inputs[i].dtype));
        void *ones = GR_NEW_ARRAY(char, bytes);

        memset(ones, 0x3c, (size_t)bytes); /* about 0.01, in f32 and in bf16 */
        gr_device_upload(p->dev, inputs[i], ones);
        gr_device_sync(p->dev);
        gr_free(ones);
    }
}

static gr_status open_probe(struct probe *p)
{
    gr_status status = GR_OK;
    struct gr_arena measured = {.name = "speed"};

    layout(p, &measured);
    GR_TRY(gr_device_arena_create(p->dev, &p->arena, "speed", measured.used));
    layout(p, &p->arena);
    touch(p);
    p->lora.scale = 1;
    p->segment = (struct gr_segment){.row_end = p->rows};
    p->group.linears = p->group.adapters = p->group.segments = 1;
    p->group.linear = &p->linear;
    p->group.lora = &p->lora;
    p->group.segment = &p->segment;
    p->group.train = true;
    gr_device_set_workspace(p->dev, p->workspace.data, gr_tensor_count(p->workspace));
out:
    return status;
}

/* As gr_dry_run_step_flop counts a linear. */
static double probe_flop(const struct probe *p)
{
    return (double)p->rows *
           (2 * 2 * (double)(p->in * p->out) + 2 * 3 * (double)(p->r * (p->in + p->out)));
}

/* The threads have equal work: their processor time is what the clock on the wall would show on an
 * idle machine, and hardly more on one that is not.  A GPU is waited for. */
static double seconds_of(const struct probe *p)
{
    if (!gr_device_uses_host_memory(p->dev))
        return (double)gr_clock_ns() * 1e-9;
    return (double)gr_processor_ns() * 1e-9 / gr_device_threads(p->dev);
}

static gr_status repeat(double *best_s, struct probe *p)
{
    gr_status status = GR_OK;
    int threads = gr_device_threads(p->dev);
    int64_t begin = gr_clock_ns();
    int passes = gr_device_uses_host_memory(p->dev)
                     ? (int)ceil(repetition_flop_per_thread * threads / probe_flop(p))
                     : GPU_PASSES;

    *best_s = INFINITY;
    for (int i = 0; i < 2 || (double)(gr_clock_ns() - begin) < seconds_most * 1e9; i++) {
        double start_s = seconds_of(p);

        for (int pass = 0; pass < passes; pass++) {
            gr_lora_group_forward(p->dev, &p->group);
            gr_lora_group_backward(p->dev, &p->group);
        }
        GR_TRY(gr_device_sync(p->dev));
        if (i > 0) /* the first one meets cold caches */
            *best_s = fmin(*best_s, (seconds_of(p) - start_s) / passes);
    }
out:
    return status;
}

static int64_t at_most(int64_t value, int64_t limit)
{
    return value < limit ? value : limit;
}

gr_status gr_speed_measure(struct gr_speed *speed, const struct gr_dry_run *run, int ranks)
{
    gr_status status = GR_OK;
    const struct gr_model_config *model = &run->engine.model.config;
    int threads = (int)at_most((int64_t)ranks * gr_threads(run->config, ranks), gr_usable_cores());
    bool is_gpu = !gr_device_uses_host_memory(run->dev);
    int64_t width_most = is_gpu ? GPU_WIDTH_MOST : WIDTH_MOST;
    int64_t rows = gr_loader_rows(run->trial.loader);
    double best_s = 0;
    struct probe p = {.rows =
                          is_gpu ? rows : at_most(rows * ranks, (int64_t)ROWS_PER_THREAD * threads),
                      .in = at_most(model->hidden_size, width_most),
                      .out = at_most(model->intermediate_size, width_most),
                      .r = run->config->lora.r,
                      .dtype = run->engine.model.dtype};

    GR_TRY(
        gr_device_create(&p.dev, run->config->device.backend, threads, gr_env(GR_ENV_GRAFT_ISA)));
    GR_TRY(open_probe(&p));
    GR_TRY(repeat(&best_s, &p));
    speed->threads = is_gpu ? 0 : threads;
    speed->flop_per_s = probe_flop(&p) / best_s * (is_gpu ? ranks : 1);
out:
    if (p.dev != NULL)
        gr_device_arena_release(p.dev, &p.arena);
    gr_device_destroy(p.dev);
    return status;
}

/* The ranks with the most of `pieces` are waited for. */
static double imbalance(int64_t pieces, int ranks)
{
    int64_t most = (pieces + ranks - 1) / ranks;

    return (double)(most * ranks) / (double)pieces;
}

void gr_run_time_estimate(struct gr_run_time *time, const struct gr_speed *speed,
                          struct gr_dry_run *run, int ranks)
{
    double rate = speed->flop_per_s * GR_SPEED_SHARE;
    int64_t every = run->config->train.eval_steps;

    *time = (struct gr_run_time){0};
    time->step_s =
        gr_dry_run_step_flop(run) / rate * imbalance(run->config->train.micro_batches, ranks);
    time->run_s = time->step_s * (double)run->total_steps;
    if (!run->has_eval)
        return;
    time->evals = (run->total_steps + every - 1) / every; /* the last step's is one, too */
    time->eval_s = gr_dry_run_eval_flop(run) / rate * imbalance(run->evaluator.packs, ranks);
    time->run_s += time->eval_s * (double)time->evals;
}
