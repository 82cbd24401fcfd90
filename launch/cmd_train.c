/* graft train: fine-tunes an adapter.  The work is trainer/run/train.c. */
#include "launch/cmd.h"

#include "launch/job.h"
#include "launch/signals.h"
#include "launch/terminal.h"
#include "launch/versions.h"
#include "trainer/config.h"
#include "trainer/run/train.h"

static const struct gr_option options[] = {
    {"set", 0, GR_OPTION_REPEATED, "KEY=VALUE", "set a key, after the file and the environment", 0,
     0},
    {"expect-ranks", 0, GR_OPTION_INTEGER, "N", "refuse to start with another number of ranks", 1,
     1e9},
    {"takeover", 0, GR_OPTION_FLAG, NULL, "fence another process that works in the same output", 0,
     0},
    {"profile", 0, GR_OPTION_FLAG, NULL, "tell at the end where the time of the steps went", 0, 0},
    {0},
};

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_config config;
    struct gr_comm *comm = NULL;
    const char *file = gr_args_positional(args, 0);
    int64_t set_count = 0;
    const char *const *sets = gr_args_list(args, "set", &set_count);
    struct gr_train_options train = {.expect_ranks = gr_args_integer(args, "expect-ranks", 0),
                                     .terminal = gr_terminal_of_stderr(),
                                     .program = gr_program_name(),
                                     .takeover = gr_args_flag(args, "takeover"),
                                     .profiles = gr_args_flag(args, "profile"),
                                     .stop_requested = gr_stop_requested};

    GR_TRY(gr_config_resolve(&config, file, sets, set_count));
    GR_TRY(gr_config_check(&config, file, GR_CONFIG_TO_TRAIN));
    gr_signals_hold_stop();
    GR_TRY(gr_job_join(&comm, (double)config.dist.timeout_seconds));
    GR_TRY(gr_train(comm, &config, &train));
out:
    gr_job_leave(comm, status);
    gr_config_release(&config);
    return status;
}

const struct gr_command gr_cmd_train = {
    .name = "train",
    .run = run,
    .usage = "run.yaml [--set KEY=VALUE]... [--expect-ranks N] [--takeover] [--profile]",
    .summary = "fine-tune a LoRA adapter; alone or under mpirun",
    .details =
        "The same run gives the same adapter, bit for bit, at any number of ranks and "
        "threads:\n"
        "  graft train run.yaml\n"
        "  mpirun -n 4 --bind-to none graft train run.yaml\n"
        "On GPUs that holds with device.deterministic: true.  Without it all ranks and starts "
        "of one run\nagree, but another run may not, nor any with cuDNN's attention.",
    .options = options,
    .least_positionals = 1,
    .most_positionals = 1,
    .more_help = gr_config_help,
};
