/* The tensors of a Hugging Face directory: model.safetensors, or the shards that
 * model.safetensors.index.json lists.  Knows names and bytes; what a model needs, and in which
 * shapes, is the trainer's. */
#ifndef GR_DATA_MODEL_FILES_H
#define GR_DATA_MODEL_FILES_H

#include "data/safetensors.h"

struct gr_model_tensor {
    const struct gr_safetensors *file;
    const struct gr_safetensors_entry *entry; /* its name is entry->name */
};

struct gr_model_files {
    char *directory;
    struct gr_safetensors *file; /* [file_count] sorted by path, open */
    int64_t file_count;
    struct gr_model_tensor *tensor; /* [count] sorted by name, over all files */
    int64_t count;
};

/* Errors: ERR_NOT_FOUND, ERR_DATA when it is not a directory.  What a model's reader calls first.
 */
gr_status gr_model_directory_check(const char *directory);

/* Opens all files.  Each shard must hold exactly the tensors that the index says.
 * Errors: ERR_NOT_FOUND (no directory, no weights, a shard is missing), ERR_DATA. */
gr_status gr_model_files_open(struct gr_model_files *model, const char *directory);
void gr_model_files_close(struct gr_model_files *model); /* a zeroed one is fine */

/* NULL if there is no such tensor. */
const struct gr_model_tensor *gr_model_files_find(const struct gr_model_files *model,
                                                  const char *name);
const void *gr_model_tensor_data(const struct gr_model_tensor *tensor);

#endif
