/* graft version: what this program is made of. */
#include "launch/cmd.h"

#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "kernels/device.h"
#include "launch/git_commit.h"

#include <jansson.h>
#include <mpi.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

static const struct gr_option options[] = {
    {"json", 0, GR_OPTION_FLAG, NULL, "one JSON object", 0, 0},
    {0},
};

/* The library's first words, "Open MPI v4.1.4" of a longer text. */
static void mpi_version(char *text, size_t size)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;

    MPI_Get_library_version(version, &length);
    snprintf(text, size, "%.*s", (int)strcspn(version, ",\n"), version);
}

static void print_rows(const char *isa, bool is_json)
{
    char mpi[128];
    const struct {
        const char *name, *value;
    } rows[] = {
        {"graft", GR_VERSION},
        {"commit", GR_GIT_COMMIT},
        {"compiler", GR_COMPILER},
        {"isa", isa},
        {"onednn", GR_DNNL_VERSION},
        {"mpi", mpi},
        {"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)},
        {"jansson", jansson_version_str()},
        {"libyaml", yaml_get_version_string()},
    };
    json_t *object = json_object();
    char *json = NULL;

    mpi_version(mpi, sizeof mpi);
    for (int64_t i = 0; i < GR_COUNT(rows); i++) {
        json_object_set_new(object, rows[i].name, json_string(rows[i].value));
        if (!is_json)
            printf("%-9s %s\n", rows[i].name, rows[i].value);
    }
    json = json_dumps(object, JSON_COMPACT);
    if (is_json)
        printf("%s\n", json);
    free(json);
    json_decref(object);
}

static gr_status run(const struct gr_args *args)
{
    struct gr_device *device = NULL;
    gr_status status = gr_device_create(&device, "cpu", 1, gr_env(GR_ENV_GRAFT_ISA));

    if (status == GR_OK)
        print_rows(gr_device_isa(device), gr_args_flag(args, "json"));
    gr_device_destroy(device);
    return status;
}

const struct gr_command gr_cmd_version = {
    .name = "version",
    .run = run,
    .usage = "[--json]",
    .summary = "print the version, the commit and the libraries",
    .options = options,
};
