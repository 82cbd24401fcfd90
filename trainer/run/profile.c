/* The table of a profiled run.  See profile.h. */
#include "trainer/run/profile.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "kernels/profile.h"

#include <stdio.h>

enum { WARM_UP_STEPS = 2 };

static const char *const phase_texts[GR_PHASE_COUNT] = {
#define X(name, text) [GR_PHASE_##name] = (text),
    GR_PHASES(X)
#undef X
};

/* Ops that are read together, in the order of the table, and how often they pass the model. */
static const struct group {
    const char *text;
    enum gr_profiled_op first, last;
    struct gr_passes passes;
} groups[] = {
    {"linear layers, forward",
     GR_PROFILE_lora_group_forward,
     GR_PROFILE_lora_group_forward,
     {.linear = 1, .adapter = 1}},
    {"linear layers, backward",
     GR_PROFILE_lora_group_backward,
     GR_PROFILE_lora_group_backward,
     {.linear = 1, .adapter = 2}},
    {"attention, forward",
     GR_PROFILE_attention_forward,
     GR_PROFILE_attention_last,
     {.attention = 2}},
    {"attention, backward",
     GR_PROFILE_attention_backward,
     GR_PROFILE_attention_backward,
     {.attention = 5}},
    {"head and loss", GR_PROFILE_head_loss, GR_PROFILE_head_logits, {.head = 2}},
    {"norms, rotations, embedding", GR_PROFILE_embedding_forward, GR_PROFILE_rope, {.linear = 0}},
    {"SwiGLU", GR_PROFILE_swiglu_forward, GR_PROFILE_swiglu_backward, {.linear = 0}},
    {"sums, AdamW", GR_PROFILE_sum_spans, GR_PROFILE_adamw, {.linear = 0}},
};

void gr_step_profile_start(struct gr_step_profile *p, const struct gr_engine *engine, int64_t steps)
{
    *p = (struct gr_step_profile){.ops = gr_device_profile_start(engine->dev),
                                  .engine = engine,
                                  .work_before = engine->work,
                                  .warm_up = steps > WARM_UP_STEPS ? WARM_UP_STEPS : 0};
}

void gr_step_profile_lap(struct gr_step_profile *p, enum gr_phase phase)
{
    if (p->ops == NULL)
        return;
    gr_device_profile_phase(p->engine->dev, (int)phase);
    if (phase != GR_PHASE_save)
        return;
    p->steps++;
    if (p->steps == p->warm_up && p->skipped == 0) {
        gr_device_profile_clear(p->engine->dev);
        p->work_before = p->engine->work;
        p->skipped = p->steps;
        p->steps = 0;
    }
}

static struct gr_work work_of(const struct gr_step_profile *p)
{
    const struct gr_work *now = &p->engine->work, *before = &p->work_before;

    return (struct gr_work){.rows = now->rows - before->rows,
                            .labels = now->labels - before->labels,
                            .pairs = now->pairs - before->pairs};
}

static double milliseconds(const struct gr_step_profile *p, int64_t ns)
{
    return (double)ns * 1e-6 / (double)p->steps;
}

/* rate: what stands behind the share. */
static void print_line(const struct gr_step_profile *p, const char *text, int64_t ns,
                       int64_t total_ns, const char *rate)
{
    gr_note("  %-30s %9.1f ms %5.1f %%%s", text, milliseconds(p, ns),
            100.0 * (double)ns / (double)total_ns, rate);
}

/* A group's arithmetic, with what is computed again; *once: without. */
static double flop_of(const struct gr_step_profile *p, const struct group *g, double *once)
{
    const struct gr_engine *e = p->engine;
    const struct gr_work work = work_of(p);
    int64_t redone[GR_STAGE_COUNT];
    double flop = 0;

    for (int i = 0; i < e->trials; i++) /* each has its share of the work */
        flop += gr_flop(&g->passes, &work, &e->model.config, e->adapters[i]) / e->trials;
    *once = flop;
    gr_pass_count_redone(redone, e->pass);
    if (g->first == GR_PROFILE_lora_group_forward)
        flop += gr_flop_linears_redone(redone, &work, &e->model.config);
    if (g->first == GR_PROFILE_attention_forward)
        flop += gr_flop_attention_redone(redone, &work, &e->model.config);
    return flop;
}

/* Returns the model's arithmetic in it. */
static double print_group(const struct gr_step_profile *p, const struct group *g, int64_t total_ns)
{
    double bytes = 0, once, flop = flop_of(p, g, &once);
    char rate[32] = "";
    int64_t ns = 0;

    for (int op = (int)g->first; op <= (int)g->last; op++) {
        ns += p->ops->op_ns[op];
        bytes += p->ops->op_bytes[op];
    }
    if (ns > 0 && flop > 0)
        snprintf(rate, sizeof rate, " %8.3f TF/s", flop / (double)ns * 1e-3);
    else if (ns > 0 && bytes > 0)
        snprintf(rate, sizeof rate, " %8.3f TB/s", bytes / (double)ns * 1e-3);
    print_line(p, g->text, ns, total_ns, rate);
    return once;
}

static void print_products(const struct gr_step_profile *p, int64_t total_ns)
{
    int64_t product_ns = 0, threads_ns = total_ns * p->ops->threads;

    for (int i = 0; i < p->ops->threads; i++)
        product_ns += p->ops->thread[i].product_ns;
    gr_note("matrix products: %.1f %% of the time of %d thread%s",
            100.0 * (double)product_ns / (double)threads_ns, p->ops->threads,
            p->ops->threads == 1 ? "" : "s");
}

static void print_model_rate(const struct gr_step_profile *p, double flop, int64_t total_ns)
{
    struct gr_device_peak peak = gr_device_peak(p->engine->dev);
    double rate = flop / (double)total_ns * 1e-3;

    gr_note("model: %.3f TFLOP a step, %.3f TF/s", flop * 1e-12 / (double)p->steps, rate);
    if (peak.flop_per_s > 0)
        gr_note("MFU: %.1f %% of %.0f TF/s, dense bf16 at the highest clock; memory at best %.2f "
                "TB/s",
                100 * rate * 1e12 / peak.flop_per_s, peak.flop_per_s * 1e-12,
                peak.bytes_per_s * 1e-12);
}

void gr_step_profile_print(const struct gr_step_profile *p)
{
    int64_t total_ns = 0;
    double flop = 0;

    if (p->ops == NULL || gr_device_sync(p->engine->dev) != GR_OK)
        return;
    for (int i = 0; i < GR_PHASE_COUNT; i++)
        total_ns += p->ops->phase_ns[i];
    if (p->steps == 0 || total_ns == 0)
        return;
    gr_note("profile: %lld steps of %.1f ms, after %lld to warm up", (long long)p->steps,
            milliseconds(p, total_ns), (long long)p->skipped);
    for (int i = 0; i < GR_PHASE_COUNT; i++)
        print_line(p, phase_texts[i], p->ops->phase_ns[i], total_ns, "");
    gr_note("of which, by kind of op:");
    for (int64_t g = 0; g < GR_COUNT(groups); g++)
        flop += print_group(p, &groups[g], total_ns);
    if (gr_device_uses_host_memory(p->engine->dev))
        print_products(p, total_ns);
    print_model_rate(p, flop, total_ns);
}
