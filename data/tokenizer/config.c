/* tokenizer_config.json and chat_template.jinja, as transformers 5 reads them.  See config.h. */
#include "data/tokenizer/config.h"

#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"

#include <stdio.h>
#include <string.h>

/* A token is written as its text or as an object with "content". */
static gr_status read_token(char **token, const json_t *root, const char *key, const char *place)
{
    const json_t *value = json_object_get(root, key);

    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (value == NULL || json_is_null(value))
        return GR_OK;
    if (!json_is_string(value))
        return gr_json_wrong(value, key, "a token", place);
    *token = gr_strdup(json_string_value(value));
    return GR_OK;
}

/* One template, or a list of named ones, of which "default" is used. */
static gr_status read_template(struct gr_tokenizer_config *config)
{
    const json_t *value = json_object_get(config->root, "chat_template");

    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));

        if (name != NULL && strcmp(name, "default") == 0)
            value = json_object_get(item, "template");
    }
    if (value == NULL || json_is_null(value) || json_is_array(value))
        return GR_OK;
    if (!json_is_string(value))
        return gr_json_wrong(value, "chat_template", "a text", config->path);
    config->chat_template = gr_strdup(json_string_value(value));
    return GR_OK;
}

static gr_status read_template_file(struct gr_tokenizer_config *config, const char *directory)
{
    char *path = gr_format("%s/chat_template.jinja", directory);
    struct gr_buffer text = {0};
    gr_status status = gr_file_read(&text, path);

    if (status == GR_OK) {
        gr_free(config->chat_template);
        config->chat_template = gr_strdup(text.data);
    } else if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
    }
    gr_buffer_release(&text);
    gr_free(path);
    return status;
}

gr_status gr_tokenizer_config_read(struct gr_tokenizer_config *config, const char *directory)
{
    gr_status status;

    config->path = gr_format("%s/tokenizer_config.json", directory);
    status = gr_json_read_file(&config->root, config->path);
    if (status == GR_ERR_NOT_FOUND)
        gr_error_clear();
    else
        GR_TRY(status);
    GR_TRY(read_token(&config->bos, config->root, "bos_token", config->path));
    GR_TRY(read_token(&config->eos, config->root, "eos_token", config->path));
    GR_TRY(read_template(config));
    GR_TRY(read_template_file(config, directory));
out:
    return status;
}

void gr_tokenizer_config_release(struct gr_tokenizer_config *config)
{
    gr_free(config->bos);
    gr_free(config->eos);
    gr_free(config->chat_template);
    gr_free(config->path);
    json_decref(config->root);
    memset(config, 0, sizeof *config);
}
