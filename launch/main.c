/* The program: finds the command, reads its arguments, runs it, prints the message of a failure
 * once and ends with its exit code.  What a command does is in its cmd_*.c. */
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/env.h"
#include "kernels/base/failpoint.h"
#include "kernels/base/log.h"
#include "kernels/base/nearest.h"
#include "launch/cmd.h"
#include "launch/library_memory.h"
#include "launch/signals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A silent rank that failed gives the one that speaks this long to print the message. */
#define SPEAKER_FIRST_NS INT64_C(2000000000)

static const struct gr_command *const commands[] = {
    &gr_cmd_init,     &gr_cmd_train,  &gr_cmd_eval,        &gr_cmd_generate, &gr_cmd_merge,
    &gr_cmd_tokenize, &gr_cmd_data,   &gr_cmd_checkpoints, &gr_cmd_report,   &gr_cmd_config,
    &gr_cmd_estimate, &gr_cmd_doctor, &gr_cmd_version,
};

static void print_help(FILE *stream)
{
    fputs("usage: graft COMMAND [ARGUMENT]...\n\n"
          "Fine-tunes language models with LoRA.\n\ncommands:\n",
          stream);
    for (int64_t i = 0; i < GR_COUNT(commands); i++)
        fprintf(stream, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\ngraft COMMAND --help tells more about each.\n", stream);
}

static void print_command_help(const struct gr_command *command)
{
    struct gr_buffer text = {0};

    gr_command_help(&text, command);
    fputs(text.data, stdout);
    gr_buffer_release(&text);
}

static gr_status find_command(const struct gr_command **command, const char *name)
{
    const char *names[GR_COUNT(commands)];
    const char *nearest = NULL;

    for (int64_t i = 0; i < GR_COUNT(commands); i++) {
        *command = commands[i];
        names[i] = commands[i]->name;
        if (strcmp(names[i], name) == 0)
            return GR_OK;
    }
    *command = NULL;
    nearest = gr_nearest(name, names, GR_COUNT(commands));
    gr_fail(GR_ERR_USAGE, NULL, "graft --help lists the commands", "unknown command %s", name);
    if (nearest != NULL)
        gr_hint("did you mean graft %s?", nearest);
    return GR_ERR_USAGE;
}

/* Before anything is joined: all ranks refuse alike. */
static gr_status check_ranks(const struct gr_command *command)
{
    const char *ranks = gr_env(GR_ENV_OMPI_COMM_WORLD_SIZE);
    char place[32];

    if (!command->is_alone || ranks == NULL || strcmp(ranks, "1") == 0)
        return GR_OK;
    snprintf(place, sizeof place, "graft %s", command->name);
    return gr_fail(GR_ERR_USAGE, place, "start it without mpirun",
                   "this command runs alone (found %s ranks, expected 1)", ranks);
}

static gr_status run_command(const char *name, int argc, char **argv)
{
    const struct gr_command *command = NULL;
    struct gr_args *args = NULL;
    gr_status status = GR_OK;

    GR_TRY(find_command(&command, name));
    GR_TRY(gr_args_create(&args, command, argc, argv));
    if (gr_args_wants_help(args)) {
        print_command_help(command);
        goto out;
    }
    GR_TRY(check_ranks(command));
    status = command->run(args);
out:
    gr_args_destroy(args);
    return status;
}

static gr_status run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    bool asks = strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;

    if (name[0] == '\0') {
        print_help(stderr);
        return GR_ERR_USAGE;
    }
    if (asks && argc > 2) {
        char help[] = "--help", *help_argv[] = {help};

        return run_command(argv[2], 1, help_argv);
    }
    if (asks) {
        print_help(stdout);
        return GR_OK;
    }
    return run_command(strcmp(name, "--version") == 0 ? "version" : name, argc - 2, argv + 2);
}

/* Results must have reached stdout: a full disk or a closed pipe is no success. */
static gr_status close_stdout(void)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return GR_OK;
    return gr_fail(GR_ERR_USAGE, "stdout", "is the disk full?", "the output cannot be written");
}

/* The end of a rank that does not speak.  Where all ranks fail alike the one that speaks says why,
 * and mpirun ends the job while this one waits; who is still there has failed alone. */
static void fail_silently(const char *rank)
{
    gr_signals_release_stop();
    gr_sleep_ns(SPEAKER_FIRST_NS);
    if (gr_error_is_set() && !gr_error_is_shared())
        gr_print_error_of_rank(rank == NULL ? "unknown" : rank);
}

int main(int argc, char **argv)
{
    const char *rank = gr_env(GR_ENV_OMPI_COMM_WORLD_RANK);
    gr_status status = GR_OK;

    gr_library_memory_init();
    gr_signals_init();
    /* Before ranks can talk, what all of them would say the first one says. */
    gr_log_speaks(rank == NULL || strcmp(rank, "0") == 0);
    status = gr_failpoints_init(gr_env(GR_ENV_GRAFT_FAIL), rank == NULL ? 0 : atoi(rank));
    if (status == GR_OK)
        status = run(argc, argv);
    if (status == GR_OK)
        status = close_stdout();
    if (!gr_log_does_speak() && status != GR_OK)
        fail_silently(rank);
    else if (gr_error_is_set())
        gr_print_error();
    return gr_status_exit_code(status);
}
