/* The table of keys, defaults, the order of sources, and the checks between keys.  Reading is in
 * config_load.c and config_value.c, writing in config_print.c. */
#include "trainer/config.h"

#include "kernels/base/alloc.h"
#include "trainer/config_table.h"

#include <inttypes.h>
#include <string.h>

#define IDENTITY true
#define FREE     false
#define ROW(section, name, type, default_text, range, unit, is_identity, help)                     \
    {#section #name, GR_CONFIG_##type, default_text, range,                                        \
     unit,           is_identity,      help,         offsetof(struct gr_config, section name)},
const struct gr_config_field gr_config_field_table[GR_CONFIG_FIELD_COUNT] = {GR_CONFIG_FIELDS(ROW)};
#undef ROW
#undef IDENTITY
#undef FREE

const struct gr_config_field *gr_config_find(const char *key)
{
    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        if (strcmp(gr_config_field_table[i].key, key) == 0)
            return &gr_config_field_table[i];
    }
    return NULL;
}

const char *gr_config_last_name(const char *key)
{
    const char *dot = strrchr(key, '.');

    return dot == NULL ? key : dot + 1;
}

void gr_config_init(struct gr_config *config)
{
    memset(config, 0, sizeof *config);
    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++) {
        const struct gr_config_field *field = &gr_config_field_table[i];
        char *assignment = gr_format("%s=%s", field->key, field->default_text);
        gr_status status = gr_config_set(config, assignment);

        GR_CHECK(status == GR_OK, "default of the table: %s", gr_error_message());
        gr_free(assignment);
    }
}

void gr_config_release(struct gr_config *config)
{
    for (int i = 0; i < GR_CONFIG_FIELD_COUNT; i++)
        gr_config_release_value(config, &gr_config_field_table[i]);
    memset(config, 0, sizeof *config);
}

/* file:///runs/x is /runs/x: part of what is written there is no store's. */
static void as_path(char *place)
{
    static const char scheme[] = "file://";
    size_t length = strlen(scheme);

    if (place != NULL && strncmp(place, scheme, length) == 0)
        memmove(place, place + length, strlen(place + length) + 1);
}

gr_status gr_config_resolve(struct gr_config *config, const char *file, const char *const *sets,
                            int64_t set_count)
{
    gr_status status = GR_OK;

    gr_config_init(config);
    if (file != NULL)
        GR_TRY(gr_config_load_file(config, file));
    GR_TRY(gr_config_load_env(config));
    for (int64_t i = 0; i < set_count; i++)
        GR_TRY(gr_config_set(config, sets[i]));
    as_path(config->output);
out:
    return status;
}

static gr_status fail_missing(const char *place, const char *key, const char *expected)
{
    gr_status status = gr_fail(GR_ERR_USAGE, place, NULL,
                               "%s is missing (found nothing, expected %s)", key, expected);

    gr_hint("write `%s` into the file, or give --set %s=...", key, key);
    return status;
}

/* What is known before there is a device. */
static gr_status check_all_reduce(const struct gr_config *config, const char *place)
{
    static const char hint[] = "set dist.reduce to tree";

    if (strcmp(config->device.backend, "cpu") == 0)
        return gr_fail(GR_ERR_USAGE, place, hint,
                       "dist.reduce all_reduce is NCCL's, between GPUs (found device.backend cpu, "
                       "expected cuda or auto)");
    if (strcmp(config->dist.backend, "mpi") == 0)
        return gr_fail(GR_ERR_USAGE, place, hint,
                       "dist.reduce all_reduce is NCCL's (found dist.backend mpi, expected nccl or "
                       "auto)");
    return GR_OK;
}

gr_status gr_config_check(const struct gr_config *config, const char *place,
                          enum gr_config_purpose purpose)
{
    bool trains = purpose == GR_CONFIG_TO_TRAIN, reads = trains || purpose == GR_CONFIG_TO_READ;
    bool evaluates = config->data.eval.count > 0 || config->data.eval_split > 0.0;

    if (config->model == NULL)
        return fail_missing(place, "model", "a Hugging Face model directory");
    if (trains && config->output == NULL)
        return fail_missing(place, "output", "a run directory");
    if (reads && config->data.train.count == 0)
        return fail_missing(place, "data.train", "at least one file to train on");
    if (config->data.eval.count > 0 && config->data.eval_split > 0.0)
        return gr_fail(GR_ERR_USAGE, place, "leave one of them out",
                       "data.eval and data.eval_split both name an evaluation set (found %" PRId64
                       " files and %g, expected one of them)",
                       config->data.eval.count, config->data.eval_split);
    if (trains && config->train.early_stopping_patience > 0 && !evaluates)
        return gr_fail(GR_ERR_USAGE, place, "set data.eval or data.eval_split",
                       "train.early_stopping_patience needs an evaluation set (found none, "
                       "expected data.eval or data.eval_split)");
    if (trains && strcmp(config->dist.reduce, "all_reduce") == 0)
        return check_all_reduce(config, place);
    return GR_OK;
}

void gr_text_list_clear(struct gr_text_list *list)
{
    for (int64_t i = 0; i < list->count; i++)
        gr_free(list->item[i]);
    list->count = 0;
}

void gr_text_list_set(struct gr_text_list *list, const char *text)
{
    gr_text_list_clear(list);
    list->item = gr_realloc(list->item, 1, sizeof *list->item);
    list->item[0] = gr_strdup(text);
    list->count = 1;
}
