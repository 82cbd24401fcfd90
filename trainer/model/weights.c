/* From a Hugging Face directory to the tensors of a model.  See weights.h. */
#include "trainer/model/weights.h"

#include "data/hash.h"
#include "data/model_files.h"
#include "data/weights_host.h"
#include "kernels/base/alloc.h"

#include <stdio.h>
#include <string.h>

#define HINT_TOGETHER                                                                              \
    "config.json and the weights do not belong together, or a file is incomplete: download both "  \
    "again"

enum size {
#define X(name, value) SIZE_##name,
    GR_SIZE_LIST(X)
#undef X
        SIZE_COUNT
};

/* One tensor the model must have. */
struct wanted {
    char name[96];
    int64_t rows, columns; /* columns 0: one dimension */
    gr_tensor *tensor;
};
struct wanted_list {
    struct wanted *item;
    int64_t count;
};

static void want(struct wanted_list *list, gr_tensor *tensor, const char *prefix, const char *name,
                 int64_t rows, int64_t columns)
{
    struct wanted *item = &list->item[list->count++];

    snprintf(item->name, sizeof item->name, "%s%s", prefix, name);
    item->rows = rows;
    item->columns = columns;
    item->tensor = tensor;
}

static void list_wanted(struct wanted_list *list, struct gr_weights *weights,
                        const struct gr_model_config *c)
{
    const int64_t size[SIZE_COUNT] = {
#define X(name, value) [SIZE_##name] = (value),
        GR_SIZE_LIST(X)
#undef X
    };
    int64_t per_layer = 0;

#define X(field, name, rows, columns, present) per_layer++;
    GR_LAYER_TENSOR_LIST(X)
#undef X
    list->item = GR_NEW_ARRAY(struct wanted, gr_mul(per_layer, c->layers) + 8);
#define X(field, name, rows, columns, present)                                                     \
    if (present)                                                                                   \
        want(list, &weights->field, "", name, size[SIZE_##rows], size[SIZE_##columns]);
    GR_MODEL_TENSOR_LIST(X)
#undef X
    for (int64_t i = 0; i < c->layers; i++) {
        struct gr_layer_weights *layer = &weights->layer[i];
        char prefix[48];

        snprintf(prefix, sizeof prefix, "model.layers.%lld.", (long long)i);
#define X(field, name, rows, columns, present)                                                     \
    if (present)                                                                                   \
        want(list, &layer->field, prefix, name, size[SIZE_##rows], size[SIZE_##columns]);
        GR_LAYER_TENSOR_LIST(X)
#undef X
    }
}

int64_t gr_weights_bytes(const struct gr_model_config *config, enum gr_dtype dtype)
{
    struct gr_weights weights = {.layer = GR_NEW_ARRAY(struct gr_layer_weights, config->layers)};
    struct wanted_list list = {0};
    int64_t elements = 0;

    list_wanted(&list, &weights, config);
    for (int64_t i = 0; i < list.count; i++)
        elements += gr_mul(list.item[i].rows, list.item[i].columns == 0 ? 1 : list.item[i].columns);
    gr_free(list.item);
    gr_free(weights.layer);
    return elements * gr_dtype_bytes(dtype);
}

static const char *wanted_shape(const struct wanted *w, char *text, size_t size)
{
    const int64_t dim[2] = {w->rows, w->columns};

    return gr_shape_describe(dim, w->columns == 0 ? 1 : 2, text, size);
}

static gr_status check_shape(const struct wanted *w, const struct gr_safetensors *file,
                             const struct gr_safetensors_entry *entry)
{
    char found[200], expected[64];

    gr_shape_describe(entry->dim, entry->ndim, found, sizeof found);
    wanted_shape(w, expected, sizeof expected);
    if (strcmp(found, expected) == 0)
        return GR_OK;
    return gr_fail(GR_ERR_DATA, file->path, HINT_TOGETHER,
                   "tensor \"%s\" has the wrong shape (found %s, expected %s)", w->name, found,
                   expected);
}

/* Tensors some exporters add and no model computes with. */
static bool is_ignored(const char *name, const struct gr_model_config *c)
{
    size_t length = strlen(name), suffix = strlen(".rotary_emb.inv_freq");

    if (c->tie_word_embeddings && strcmp(name, "lm_head.weight") == 0)
        return true;
    return length > suffix && strcmp(name + length - suffix, ".rotary_emb.inv_freq") == 0;
}

static bool is_wanted(const struct wanted_list *list, const char *name)
{
    for (int64_t i = 0; i < list->count; i++) {
        if (strcmp(list->item[i].name, name) == 0)
            return true;
    }
    return false;
}

static gr_status check_tensors(const struct wanted_list *list, const struct gr_model_files *files,
                               const struct gr_model_config *c)
{
    gr_status status = GR_OK;
    char shape[200];

    for (int64_t i = 0; i < list->count; i++) {
        const struct gr_model_tensor *tensor = gr_model_files_find(files, list->item[i].name);

        if (tensor == NULL)
            GR_TRY(gr_fail(GR_ERR_DATA, files->directory, HINT_TOGETHER,
                           "tensor \"%s\" is missing (found nothing, expected shape %s)",
                           list->item[i].name, wanted_shape(&list->item[i], shape, sizeof shape)));
        GR_TRY(check_shape(&list->item[i], tensor->file, tensor->entry));
    }
    for (int64_t i = 0; i < files->count; i++) {
        const struct gr_safetensors_entry *entry = files->tensor[i].entry;

        if (!is_wanted(list, entry->name) && !is_ignored(entry->name, c))
            GR_TRY(gr_fail(GR_ERR_DATA, files->tensor[i].file->path, HINT_TOGETHER,
                           "tensor \"%.200s\" is not part of the model (found shape %s, expected "
                           "no such tensor in a %s model with num_hidden_layers %lld)",
                           entry->name,
                           gr_shape_describe(entry->dim, entry->ndim, shape, sizeof shape),
                           c->model_type, (long long)c->layers));
    }
out:
    return status;
}

/* The hash over config.json, which says what is computed with the weights, and all files of
 * weights in the order of their paths; finds weights that are not finite. */
static gr_status hash_model(char hash[65], const struct gr_model_files *files,
                            const struct gr_weight_sharing *sharing)
{
    gr_status status = GR_OK;
    struct gr_hash_options options = {.cache_dir = sharing->cache_dir, .threads = sharing->threads};
    struct gr_buffer list = {0};
    char *config = gr_format("%s/config.json", files->directory);
    char hex[GR_SHA256_HEX_BYTES];

    GR_TRY(gr_hash_list_add_file(&list, "config.json", config, &options));
    for (int64_t i = 0; i < files->file_count; i++) {
        GR_TRY(gr_hash_weights(hex, &files->file[i], &options));
        gr_hash_list_add(&list, "", hex);
    }
    gr_sha256_hex(hash, list.data, (int64_t)list.length);
out:
    gr_free(config);
    gr_buffer_release(&list);
    return status;
}

/* What keeps the tensors' memory alive. */
struct gr_weight_source {
    struct gr_model_files files;
    struct gr_weights_host *host;
};

static struct gr_weights_host_options host_options(const struct gr_weight_sharing *sharing)
{
    return (struct gr_weights_host_options){.dtype = sharing->dtype,
                                            .local_rank = sharing->local_rank,
                                            .local_size = sharing->local_size,
                                            .job_key = sharing->job_key,
                                            .threads = sharing->threads,
                                            .timeout_s = sharing->timeout_s};
}

/* The caller frees the array, not the texts. */
static const char **wanted_names(const struct wanted_list *list)
{
    const char **name = GR_NEW_ARRAY(const char *, list->count);

    for (int64_t i = 0; i < list->count; i++)
        name[i] = list->item[i].name;
    return name;
}

static gr_status create_host_weights(struct gr_weight_source *source,
                                     const struct wanted_list *list,
                                     const struct gr_weight_sharing *sharing)
{
    struct gr_weights_host_options options = host_options(sharing);
    const char **name = wanted_names(list);
    gr_status status;

    status = gr_weights_host_create(&source->host, &source->files, name, list->count, &options);
    gr_free(name);
    return status;
}

gr_status gr_weights_load(struct gr_weights *weights, char hash[65],
                          const struct gr_model_config *config, const char *directory,
                          const struct gr_weight_sharing *sharing)
{
    gr_status status = GR_OK;
    struct wanted_list list = {0};

    memset(weights, 0, sizeof *weights);
    weights->layer = GR_NEW_ARRAY(struct gr_layer_weights, config->layers);
    weights->source = GR_NEW(struct gr_weight_source);
    list_wanted(&list, weights, config);
    GR_TRY(gr_model_files_open(&weights->source->files, directory));
    GR_TRY(check_tensors(&list, &weights->source->files, config));
    GR_TRY(hash_model(hash, &weights->source->files, sharing));
    GR_TRY(create_host_weights(weights->source, &list, sharing));
out:
    gr_free(list.item);
    return status;
}

gr_status gr_weights_share(struct gr_weights *weights, const struct gr_model_config *config,
                           const struct gr_weight_sharing *sharing)
{
    gr_status status = GR_OK;
    struct wanted_list list = {0};
    struct gr_weights_host_options options = host_options(sharing);

    GR_TRY(gr_weights_host_share(weights->source->host, &options));
    list_wanted(&list, weights, config);
    for (int64_t i = 0; i < list.count; i++) {
        const struct wanted *w = &list.item[i];
        union {
            const void *mapped; /* read-only: ops never write weights */
            void *data;
        } memory = {.mapped = gr_weights_host_data(weights->source->host, i)};

        *w->tensor = w->columns == 0
                         ? gr_tensor_1d(memory.data, sharing->dtype, w->rows)
                         : gr_tensor_2d(memory.data, sharing->dtype, w->rows, w->columns);
        weights->bytes += gr_tensor_count(*w->tensor) * gr_dtype_bytes(sharing->dtype);
    }
    if (config->tie_word_embeddings)
        weights->head = weights->embedding;
out:
    gr_free(list.item);
    return status;
}

void gr_weights_release(struct gr_weights *weights)
{
    if (weights->source != NULL) {
        gr_weights_host_destroy(weights->source->host);
        gr_model_files_close(&weights->source->files);
    }
    gr_free(weights->source);
    gr_free(weights->layer);
    memset(weights, 0, sizeof *weights);
}

gr_status gr_weights_examine(int64_t *bytes, const struct gr_model_config *config,
                             const char *directory, const struct gr_weight_sharing *sharing,
                             bool reads_values)
{
    gr_status status = GR_OK;
    struct gr_weights shapes = {.layer = GR_NEW_ARRAY(struct gr_layer_weights, config->layers)};
    struct wanted_list list = {0};
    struct gr_model_files files = {0};
    const char **name = NULL;
    int64_t converted = 0;
    char hash[GR_SHA256_HEX_BYTES];

    *bytes = gr_weights_bytes(config, sharing->dtype);
    list_wanted(&list, &shapes, config);
    name = wanted_names(&list);
    GR_TRY(gr_model_files_open(&files, directory));
    GR_TRY(check_tensors(&list, &files, config));
    GR_TRY(gr_weights_host_measure(&converted, &files, name, list.count,
                                   sharing->dtype)); /* for its refusals */
    if (reads_values)
        GR_TRY(hash_model(hash, &files, sharing));
out:
    gr_model_files_close(&files);
    gr_free(name);
    gr_free(list.item);
    gr_free(shapes.layer);
    return status;
}
