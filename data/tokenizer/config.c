/* tokenizer_config.json and chat_template.jinja, as transformers 5 reads them.  See config.h. */
#include "data/tokenizer/config.h"

#include "data/file_map.h"
#include "data/tokenizer/strict_json.h"
#include "kernels/base/alloc.h"

#include <string.h>

/* A token is written as its text or as an object with "content". */
static gr_status read_token(char **token, const struct gr_json *json, const char *key)
{
    const json_t *value = json_object_get(json->value, key);

    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (value == NULL || json_is_null(value))
        return GR_OK;
    if (!json_is_string(value))
        return gr_json_wrong(json, key, value, "a token");
    *token = gr_strdup(json_string_value(value));
    return GR_OK;
}

/* One template, or a list of named ones, of which "default" is used. */
static gr_status read_template(struct gr_tokenizer_config *config)
{
    const json_t *list = json_object_get(config->json.value, "chat_template");
    const json_t *value = json_is_array(list) ? NULL : list;

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(item, "name"));

        if (name != NULL && strcmp(name, "default") == 0)
            value = json_object_get(item, "template");
    }
    if (value == NULL || json_is_null(value))
        return GR_OK;
    if (!json_is_string(value))
        return gr_json_wrong(&config->json, "chat_template", value, "a text");
    config->chat_template = gr_strdup(json_string_value(value));
    return GR_OK;
}

static gr_status read_template_file(struct gr_tokenizer_config *config, const char *directory)
{
    char *path = gr_format("%s/chat_template.jinja", directory);
    struct gr_file_map map = {0};
    gr_status status = gr_file_map_open(&map, path);

    if (status == GR_OK) {
        gr_free(config->chat_template);
        config->chat_template =
            gr_strndup(map.data == NULL ? "" : (const char *)map.data, (size_t)map.identity.bytes);
    } else if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
    }
    gr_file_map_close(&map);
    gr_free(path);
    return status;
}

gr_status gr_tokenizer_config_read(struct gr_tokenizer_config *config, const char *directory)
{
    char *path = gr_format("%s/tokenizer_config.json", directory);
    gr_status status;

    /* Reals: model_max_length is often a number of 31 digits. */
    status = gr_json_load_reals(&config->json, path);
    if (status == GR_ERR_NOT_FOUND)
        gr_error_clear();
    else
        GR_TRY(status);
    GR_TRY(read_token(&config->bos, &config->json, "bos_token"));
    GR_TRY(read_token(&config->eos, &config->json, "eos_token"));
    GR_TRY(read_template(config));
    GR_TRY(read_template_file(config, directory));
out:
    gr_free(path);
    return status;
}

void gr_tokenizer_config_release(struct gr_tokenizer_config *config)
{
    gr_json_release(&config->json);
    gr_free(config->bos);
    gr_free(config->eos);
    gr_free(config->chat_template);
    memset(config, 0, sizeof *config);
}
