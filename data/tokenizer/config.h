/* What tokenizer_config.json says beside tokenizer.json: bos, eos and the chat template. */
#ifndef GR_DATA_TOKENIZER_CONFIG_H
#define GR_DATA_TOKENIZER_CONFIG_H

#include "data/json.h"

struct gr_tokenizer_config {
    struct gr_json json; /* none where there is no such file */
    char *bos, *eos;     /* texts; NULL: none */
    char *chat_template; /* NULL: none */
};

/* Reads directory/tokenizer_config.json and directory/chat_template.jinja, if they are there.
 * Errors: ERR_DATA naming file and key. */
gr_status gr_tokenizer_config_read(struct gr_tokenizer_config *config, const char *directory);
void gr_tokenizer_config_release(struct gr_tokenizer_config *config);

#endif
