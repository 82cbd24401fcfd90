/* graft version: what this program is made of. */
#include "launch/cmd.h"

#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "kernels/base/failpoint.h"
#include "kernels/device.h"
#include "launch/print_json.h"
#include "launch/versions.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const struct gr_option options[] = {
    {"json", 0, GR_OPTION_FLAG, NULL, "one JSON object", 0, 0},
    {"failpoints", 0, GR_OPTION_FLAG, NULL, "the places that GRAFT_FAIL knows, instead", 0, 0},
    {0},
};

static void print_rows(const struct gr_version *rows, int64_t count, bool is_json)
{
    json_t *object = json_object();
    int width = 0;

    for (int64_t i = 0; i < count; i++) {
        int length = (int)strlen(rows[i].name);

        width = length > width ? length : width;
        json_object_set_new(object, rows[i].name, json_string(rows[i].value));
    }
    for (int64_t i = 0; i < count && !is_json; i++)
        printf("%-*s %s\n", width, rows[i].name, rows[i].value);
    if (is_json)
        gr_print_json(object);
    json_decref(object);
}

static void print_versions(const char *isa, bool is_json)
{
    struct gr_versions versions;

    gr_versions_get(&versions, isa);
    print_rows(versions.row, GR_COUNT(versions.row), is_json);
}

static void print_failpoints(bool is_json)
{
    struct gr_version rows[GR_FAILPOINT_COUNT];

    for (int i = 0; i < GR_FAILPOINT_COUNT; i++)
        rows[i] = (struct gr_version){gr_failpoint_table[i].name, gr_failpoint_table[i].words};
    print_rows(rows, GR_COUNT(rows), is_json);
}

static gr_status run(const struct gr_args *args)
{
    struct gr_device *device = NULL;
    bool is_json = gr_args_flag(args, "json");
    gr_status status = GR_OK;

    if (gr_args_flag(args, "failpoints")) {
        print_failpoints(is_json);
        return GR_OK;
    }
    GR_TRY(gr_device_create(&device, "cpu", 1, gr_env(GR_ENV_GRAFT_ISA)));
    print_versions(gr_device_isa(device), is_json);
out:
    gr_device_destroy(device);
    return status;
}

const struct gr_command gr_cmd_version = {
    .name = "version",
    .run = run,
    .usage = "[--json] [--failpoints]",
    .summary = "print the version, the commit and the libraries",
    .options = options,
};
