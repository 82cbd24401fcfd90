/* graft estimate: what a run would take and do, told by going through its start without its memory.
 */
#include "launch/cmd.h"

#include "kernels/base/alloc.h"
#include "kernels/base/duration.h"
#include "kernels/base/log.h"
#include "launch/print_json.h"
#include "trainer/run/speed.h"

#include <jansson.h>
#include <stdio.h>

static const struct gr_option options[] = {
    {"set", 0, GR_OPTION_REPEATED, "KEY=VALUE", "set a key, after the file and the environment", 0,
     0},
    {"ranks", 'n', GR_OPTION_INTEGER, "N", "processes of the job, all on this host (1)", 1, 4096},
    {"json", 0, GR_OPTION_FLAG, NULL, "print one JSON object, sizes in bytes", 0, 0},
    {0},
};

/* What is printed: the one list for both forms.  adapter: with the optimizer and the gradients it
 * makes up state_bytes. */
struct estimate {
    const struct gr_memory_plan *plan;
    int ranks;
    int64_t optimizer_bytes, adapter_bytes, process_bytes, host_bytes, available_bytes;
    int64_t device_bytes, device_available_bytes; /* of a GPU's own memory; 0, -1: there is none */
    bool is_limited;
    int64_t steps;
    double flop;
    struct gr_speed speed;
    struct gr_run_time time;
};

static gr_status fill(struct estimate *e, struct gr_dry_run *run, int ranks)
{
    gr_status status = GR_OK;
    const struct gr_memory_plan *p = &run->plan;

    *e = (struct estimate){.plan = p, .ranks = ranks};
    e->optimizer_bytes = 2 * (int64_t)sizeof(float) * p->elements; /* AdamW's moments */
    e->adapter_bytes = p->state_bytes - p->gradient_bytes - e->optimizer_bytes;
    e->process_bytes = gr_memory_plan_process(p);
    e->host_bytes = gr_memory_plan_host(p, ranks);
    e->available_bytes = gr_memory_available_after(&e->is_limited);
    e->device_bytes = gr_memory_plan_device(p) * gr_device_processes(run->dev);
    e->device_available_bytes = gr_device_memory_available(run->dev);
    e->steps = run->total_steps;
    e->flop = gr_dry_run_step_flop(run);
    GR_TRY(gr_speed_measure(&e->speed, run, ranks));
    gr_run_time_estimate(&e->time, &e->speed, run, ranks);
out:
    return status;
}

static void print_json(const struct estimate *e)
{
    const struct gr_memory_plan *p = e->plan;
    json_t *redone = json_object();
    json_t *available = e->available_bytes < 0 ? json_null() : json_integer(e->available_bytes);
    json_t *object = json_pack(
        "{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:f, s:f, s:f, s:f, "
        "s:f}",
        "ranks", e->ranks, "weights_bytes", (json_int_t)p->weight_bytes, "adapter_bytes",
        (json_int_t)e->adapter_bytes, "optimizer_bytes", (json_int_t)e->optimizer_bytes,
        "gradients_bytes", (json_int_t)p->gradient_bytes, "activations_bytes",
        (json_int_t)p->step_bytes, "program_bytes", (json_int_t)p->program_bytes, "process_bytes",
        (json_int_t)e->process_bytes, "saving_bytes", (json_int_t)p->save_bytes, "host_bytes",
        (json_int_t)e->host_bytes, "available_bytes", available, "trained_parameters",
        (json_int_t)p->elements, "steps", (json_int_t)e->steps, "flop_per_step", e->flop,
        "flop_per_second", e->speed.flop_per_s, "step_seconds", e->time.step_s, "eval_seconds",
        e->time.eval_s, "run_seconds", e->time.run_s);

    for (int64_t i = 0; i < GR_STAGE_COUNT; i++)
        json_object_set_new(redone, gr_memory_stage_names[i], json_integer(p->redone[i]));
    json_object_set_new(object, "device_bytes", json_integer(e->device_bytes));
    json_object_set_new(object, "device_available_bytes",
                        p->is_apart ? json_integer(e->device_available_bytes) : json_null());
    json_object_set_new(object, "recomputed_layers", redone);
    json_object_set_new(object, "offloaded_layers", json_integer(p->away_layers));
    json_object_set_new(object, "offloaded_bytes", json_integer(p->away_bytes));
    gr_print_json(object);
    json_decref(object);
}

static void print_size(const char *name, int64_t bytes, const char *what)
{
    printf("%-12s %10.1f MiB  %s\n", name, (double)bytes / (1024 * 1024), what);
}

static void print_table(const struct estimate *e)
{
    const struct gr_memory_plan *p = e->plan;
    char *redone = gr_memory_plan_redone(p);
    const char *where = p->is_apart ? "on the GPU" : "per process";

    print_size("weights", p->weight_bytes,
               p->is_apart ? where : "per host, shared by its processes");
    print_size("adapter", e->adapter_bytes, where);
    print_size("optimizer", e->optimizer_bytes, where);
    print_size("gradients", p->gradient_bytes,
               p->is_apart ? where : "per process: sums in a fixed order");
    print_size("activations", p->step_bytes,
               p->is_apart ? "on the GPU, with scratch" : "per process, with scratch");
    if (p->away_layers > 0)
        print_size("offloaded", p->away_bytes,
                   "per process: inputs of layers, in the host's memory");
    print_size("program", p->program_bytes, "per process, with tokenizer and documents");
    print_size("saving", p->save_bytes, "in the one process that writes files");
    if (p->is_apart)
        printf("%-12s %10.1f MiB  of each GPU (%.1f MiB available)\n", "total",
               (double)e->device_bytes / (1024 * 1024),
               (double)e->device_available_bytes / (1024 * 1024));
    printf("%-12s %10.1f MiB  this host with %d process%s (", "total",
           (double)e->host_bytes / (1024 * 1024), e->ranks, e->ranks == 1 ? "" : "es");
    if (e->available_bytes < 0)
        printf("what is available is not known)\n");
    else
        printf("%.1f MiB available%s)\n", (double)e->available_bytes / (1024 * 1024),
               e->is_limited ? ", limited by a cgroup" : "");
    if (redone != NULL)
        printf("computed again in the backward, to fit: %s\n", redone);
    gr_free(redone);
    printf("\n%lld trained parameters, %lld steps, %.3g TFLOP per step\n", (long long)p->elements,
           (long long)e->steps, e->flop * 1e-12);
}

static void print_time(const struct estimate *e)
{
    char run[32], step[32], eval[32], with[32];

    printf("about %s on an idle machine like this one: %s a step",
           gr_duration_words(run, e->time.run_s), gr_duration_words(step, e->time.step_s));
    if (e->time.evals > 0)
        printf(", %lld evaluation%s of %s", (long long)e->time.evals, e->time.evals == 1 ? "" : "s",
               gr_duration_words(eval, e->time.eval_s));
    if (e->speed.threads == 0)
        snprintf(with, sizeof with, "%d GPU%s", e->ranks, e->ranks == 1 ? "" : "s");
    else
        snprintf(with, sizeof with, "%d thread%s", e->speed.threads,
                 e->speed.threads == 1 ? "" : "s");
    printf(
        "\n(matrix products: %.0f GFLOP/s with %s, measured just now; taken to be %.0f %% of the "
        "time)\n",
        e->speed.flop_per_s * 1e-9, with, 100 * GR_SPEED_SHARE);
}

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_config config;
    struct gr_dry_run dry = {0};
    struct estimate estimate;
    int ranks = (int)gr_args_integer(args, "ranks", 1);
    int64_t set_count = 0;
    const char *const *sets = gr_args_list(args, "set", &set_count);
    const char *file = gr_args_positional(args, 0);

    GR_TRY(gr_config_resolve(&config, file, sets, set_count));
    GR_TRY(gr_config_check(&config, file, GR_CONFIG_TO_TRAIN));
    GR_TRY(gr_dry_run_load(&dry, &config, ranks, false));
    GR_TRY(gr_dry_run_plan(&dry, ranks));
    GR_TRY(fill(&estimate, &dry, ranks));
    if (gr_args_flag(args, "json")) {
        print_json(&estimate);
    } else {
        print_table(&estimate);
        print_time(&estimate);
    }
    if ((estimate.host_bytes > estimate.available_bytes && estimate.available_bytes >= 0) ||
        (dry.plan.is_apart && estimate.device_bytes > estimate.device_available_bytes))
        gr_warn("the run does not fit: lower data.max_length, train.micro_batch_size or --ranks");
out:
    gr_dry_run_release(&dry);
    gr_config_release(&config);
    return status;
}

const struct gr_command gr_cmd_estimate = {
    .name = "estimate",
    .run = run,
    .usage = "run.yaml [--set KEY=VALUE]... [--ranks N] [--json]",
    .summary = "print what a run would take: memory, steps, time",
    .details =
        "Goes through the start of a run, data included, without the memory of its weights,\n"
        "and writes nothing.  Start it without mpirun: --ranks says how many processes.\n"
        "The time comes from the arithmetic and the rate of matrix products on this machine, "
        "which\n"
        "is measured for about a second; other programs that run here make both slower.",
    .options = options,
    .is_alone = true,
    .least_positionals = 1,
    .most_positionals = 1,
};
