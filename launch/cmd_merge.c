/* graft merge: a model with an adapter added into its weights. */
#include "launch/cmd.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "trainer/model/merge.h"
#include "trainer/model/peft_files.h"
#include "trainer/run/device_config.h"

#include <string.h>

static const struct gr_option options[] = {
    {"model", 0, GR_OPTION_REQUIRED, "DIR", "Hugging Face directory of the base model", 0, 0},
    {"adapter", 0, GR_OPTION_REQUIRED, "DIR", "PEFT adapter directory", 0, 0},
    {"output", 'o', GR_OPTION_REQUIRED, "DIR", "where the merged model goes; must not exist", 0, 0},
    {"dtype", 0, GR_OPTION_TEXT, "f32", "write f32; without it the base's own dtype", 0, 0},
    {0},
};

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    const char *model = gr_args_text(args, "model"), *from = gr_args_text(args, "adapter");
    const char *output = gr_args_text(args, "output"), *dtype = gr_args_text(args, "dtype");
    struct gr_merge_options merge = {.to_f32 = dtype != NULL, .threads = gr_usable_cores()};
    struct gr_model_config config;
    struct gr_adapter *adapter = NULL;
    float *values = NULL;

    if (dtype != NULL && strcmp(dtype, "f32") != 0)
        GR_TRY(gr_fail(GR_ERR_USAGE, "--dtype", "leave it out for the base's own dtype",
                       "not a dtype to merge to (found %s, expected f32)", dtype));
    GR_TRY(gr_model_config_load(&config, model));
    GR_TRY(gr_peft_read(&adapter, &values, &config, from));
    GR_TRY(gr_merge(output, model, adapter, values, &merge));
    gr_note("merged %lld linears of %s: %s", (long long)adapter->count, model, output);
out:
    gr_free(values);
    gr_adapter_destroy(adapter);
    return status;
}

const struct gr_command gr_cmd_merge = {
    .name = "merge",
    .run = run,
    .usage = "--model DIR --adapter DIR -o DIR [--dtype f32]",
    .summary = "write a model with an adapter added into its weights",
    .details = "Computed in f32 and rounded once to what the base's files hold.  The result is a\n"
               "Hugging Face directory, sharded like the base, with its tokenizer.",
    .options = options,
    .is_alone = true,
};
