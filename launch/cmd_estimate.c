/* graft estimate: what a run would take and do, told by going through its start without its memory.
 */
#include "launch/cmd.h"

#include "kernels/base/log.h"
#include "launch/print_json.h"
#include "trainer/run/dry_run.h"

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
    bool is_limited;
    int64_t steps, tokens;
    double flop;
};

static void fill(struct estimate *e, struct gr_dry_run *run, int ranks)
{
    const struct gr_memory_plan *p = &run->plan;

    *e = (struct estimate){.plan = p, .ranks = ranks};
    e->optimizer_bytes = 2 * (int64_t)sizeof(float) * p->elements; /* AdamW's moments */
    e->adapter_bytes = p->state_bytes - p->gradient_bytes - e->optimizer_bytes;
    e->process_bytes = gr_memory_plan_process(p);
    e->host_bytes = gr_memory_plan_host(p, ranks);
    e->available_bytes = gr_memory_available(&e->is_limited) + gr_memory_resident();
    e->steps = run->total_steps;
    e->tokens = run->inputs.train.token_count;
    e->flop = gr_dry_run_step_flop(run);
}

static void print_json(const struct estimate *e)
{
    const struct gr_memory_plan *p = e->plan;
    json_t *object =
        json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "ranks",
                  e->ranks, "weights_bytes", (json_int_t)p->weight_bytes, "adapter_bytes",
                  (json_int_t)e->adapter_bytes, "optimizer_bytes", (json_int_t)e->optimizer_bytes,
                  "gradients_bytes", (json_int_t)p->gradient_bytes, "activations_bytes",
                  (json_int_t)p->step_bytes, "program_bytes", (json_int_t)p->program_bytes,
                  "process_bytes", (json_int_t)e->process_bytes, "saving_bytes",
                  (json_int_t)p->save_bytes, "host_bytes", (json_int_t)e->host_bytes,
                  "available_bytes", (json_int_t)e->available_bytes, "trained_parameters",
                  (json_int_t)p->elements, "steps", (json_int_t)e->steps, "flop_per_step", e->flop);

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

    print_size("weights", p->weight_bytes, "per host, shared by its processes");
    print_size("adapter", e->adapter_bytes, "per process");
    print_size("optimizer", e->optimizer_bytes, "per process");
    print_size("gradients", p->gradient_bytes, "per process: sums in a fixed order");
    print_size("activations", p->step_bytes, "per process, with scratch");
    print_size("program", p->program_bytes, "per process, with tokenizer and documents");
    print_size("saving", p->save_bytes, "in the one process that writes files");
    printf("%-12s %10.1f MiB  this host with %d process%s (%.1f MiB %s)\n", "total",
           (double)e->host_bytes / (1024 * 1024), e->ranks, e->ranks == 1 ? "" : "es",
           (double)e->available_bytes / (1024 * 1024),
           e->is_limited ? "available, limited by a cgroup" : "available");
    printf("\n%lld trained parameters, %lld steps, %.3g TFLOP per step\n", (long long)p->elements,
           (long long)e->steps, e->flop * 1e-12);
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
    fill(&estimate, &dry, ranks);
    if (gr_args_flag(args, "json"))
        print_json(&estimate);
    else
        print_table(&estimate);
    if (estimate.host_bytes > estimate.available_bytes && estimate.available_bytes > 0)
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
    .summary = "print what a run would take: memory, steps, arithmetic",
    .details =
        "Goes through the start of a run, data included, without the memory of its weights,\n"
        "and writes nothing.  Start it without mpirun: --ranks says how many processes.",
    .options = options,
    .is_alone = true,
    .least_positionals = 1,
    .most_positionals = 1,
};
