/* graft report: report.html of a run, whatever state it is in.  The page is trainer/report's. */
#include "launch/cmd.h"

#include "launch/run_folder.h"
#include "launch/versions.h"
#include "trainer/report/report.h"

#include <stdio.h>

static const double samples_seconds = 60;

static const struct gr_option options[] = {
    {"output", 'o', GR_OPTION_TEXT, "FILE", "write the page there (RUN/report.html)", 0, 0},
    {"samples", 0, GR_OPTION_INTEGER, "N",
     "answered with and without the adapter (3); 0: the model is not read", 0, 100},
    {0},
};

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_store *store = NULL;
    const char *url = gr_args_positional(args, 0), *path = gr_args_text(args, "output");
    struct gr_report_options report = {
        .program = gr_program_name(),
        .path = path,
        .samples = {.count = gr_args_integer(args, "samples", 3), .seconds = samples_seconds}};

    GR_TRY(gr_run_folder_open(&store, url));
    GR_TRY(gr_report_of_run(store, &report));
    if (path != NULL)
        printf("%s\n", path);
    else
        printf("%s/report.html\n", url);
out:
    gr_store_close(store);
    return status;
}

const struct gr_command gr_cmd_report = {
    .name = "report",
    .run = run,
    .usage = "RUN [-o FILE] [--samples N]",
    .summary = "write a page about a run: curves, samples, settings",
    .details =
        "RUN is a run's output directory, finished, going on or dead; the page needs no network.\n"
        "Samples need the model and the data where the run had them; after a minute no more words\n"
        "are generated.",
    .options = options,
    .is_alone = true,
    .least_positionals = 1,
    .most_positionals = 1,
};
