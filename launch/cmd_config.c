/* graft config: prints the configuration a run would have. */
#include "launch/cmd.h"

#include "kernels/base/env.h"
#include "kernels/device.h"
#include "trainer/config.h"
#include "trainer/run/compute_dtype.h"

#include <stdio.h>
#include <string.h>

static const struct gr_option options[] = {
    {"set", 0, GR_OPTION_REPEATED, "KEY=VALUE", "set a key, after the file and the environment", 0,
     0},
    {0},
};

/* As a comment, so that what is printed stays a configuration. */
static void print_auto_dtype(const struct gr_config *config)
{
    enum gr_dtype dtype = GR_F32;
    struct gr_device *dev = NULL;

    if (config->model == NULL || strcmp(config->device.dtype, "auto") != 0)
        return;
    if (gr_device_create(&dev, config->device.backend, 1, gr_env(GR_ENV_GRAFT_ISA)) == GR_OK &&
        gr_compute_dtype_resolve(&dtype, config, dev) == GR_OK)
        printf("# device.dtype: auto is %s here; a run keeps what it began with\n",
               gr_compute_dtype_word(dtype));
    else
        printf("# device.dtype: auto is chosen once the model can be read\n");
    gr_device_destroy(dev);
    gr_error_clear();
}

/* With a file: the resolved file.  Without: every key with its default, explained. */
static gr_status run(const struct gr_args *args)
{
    struct gr_config config;
    struct gr_buffer yaml = {0};
    int64_t set_count = 0;
    const char *const *sets = gr_args_list(args, "set", &set_count);
    const char *file = gr_args_positional(args, 0);
    gr_status status = GR_OK;

    GR_TRY(gr_config_resolve(&config, file, sets, set_count));
    gr_config_print(&yaml, &config, file == NULL);
    fputs(yaml.data, stdout);
    print_auto_dtype(&config);
out:
    gr_buffer_release(&yaml);
    gr_config_release(&config);
    return status;
}

const struct gr_command gr_cmd_config = {
    .name = "config",
    .run = run,
    .usage = "[run.yaml] [--set KEY=VALUE]...",
    .summary = "print the resolved configuration; without a file, every key explained",
    .details = "A key comes from its default, the file, the environment (KUBEFLOW_TRAINER_OPT_KEY) "
               "and --set;\n"
               "the later wins.  The value of --set is YAML: 8, 2.0e-4, true, text, [a, b]; a list "
               "also a,b,c.",
    .options = options,
    .is_alone = true,
    .most_positionals = 1,
};
