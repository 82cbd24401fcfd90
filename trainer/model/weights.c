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

int64_t gr_weights_parameters(const struct gr_model_config *config)
{
    struct gr_weights weights = {.layer = GR_NEW_ARRAY(struct gr_layer_weights, config->layers)};
    struct wanted_list list = {0};
    int64_t elements = 0;

    list_wanted(&list, &weights, config);
    for (int64_t i = 0; i < list.count; i++)
        elements += gr_mul(list.item[i].rows, list.item[i].columns == 0 ? 1 : list.item[i].columns);
    gr_free(list.item);
    gr_free(weights.layer);
    return elements;
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
        enum gr_dtype dtype = gr_weights_host_dtype(weights->source->host, i);

        *w->tensor = w->columns == 0 ? gr_tensor_1d(memory.data, dtype, w->rows)
                                     : gr_tensor_2d(memory.data, dtype, w->rows, w->columns);
        weights->bytes += gr_tensor_count(*w->tensor) * gr_dtype_bytes(dtype);
    }
    weights->converted_bytes = gr_weights_host_converted_bytes(weights->source->host);
    if (config->tie_word_embeddings)
        weights->head = weights->embedding;
out:
    gr_free(list.item);
    return status;
}

/* The weights of linears that have their place in a joined matrix. */
static void place_joined(struct gr_weights *own, const struct gr_joined_weights *joined)
{
    for (int64_t layer = 0; layer < joined->layers; layer++) {
        struct gr_layer_weights *w = &own->layer[layer];
        gr_tensor *const weight[GR_MODULE_COUNT] = {
            [GR_MODULE_Q] = &w->q,       [GR_MODULE_K] = &w->k,       [GR_MODULE_V] = &w->v,
            [GR_MODULE_O] = &w->o,       [GR_MODULE_GATE] = &w->gate, [GR_MODULE_UP] = &w->up,
            [GR_MODULE_DOWN] = &w->down,
        };

        for (int m = 0; m < GR_MODULE_COUNT; m++)
            *weight[m] = gr_joined_weights_parts(joined, layer, (enum gr_module)m).weight;
    }
}

/* What goes to the device is announced to the disk this far ahead, which keeps a fast one busy, and
 * copied in pieces, so that the announcing goes on within a large tensor. */
enum { AHEAD_BYTES = 64 << 20, PIECE_BYTES = 4 << 20 };

/* The tensors of `from`, one behind the other. */
struct weight_stream {
    const struct gr_weights_host *host;
    const struct wanted_list *from;
    int64_t read;       /* bytes that have been copied */
    int64_t announced;  /* bytes that the disk knows of */
    int64_t tensor, at; /* where these end */
};

static int64_t wanted_bytes(const struct wanted *w)
{
    return gr_tensor_count(*w->tensor) * gr_dtype_bytes(w->tensor->dtype);
}

static void announce(struct weight_stream *s)
{
    while (s->tensor < s->from->count && s->announced < s->read + AHEAD_BYTES) {
        int64_t rest = wanted_bytes(&s->from->item[s->tensor]) - s->at;
        int64_t piece = rest < PIECE_BYTES ? rest : PIECE_BYTES;

        gr_weights_host_expect(s->host, s->tensor, s->at, s->at + piece);
        s->announced += piece;
        s->at += piece;
        if (piece == rest) {
            s->tensor++;
            s->at = 0;
        }
    }
}

static void upload_tensor(struct weight_stream *s, struct gr_device *dev, gr_tensor to,
                          const unsigned char *from)
{
    int64_t row_bytes = gr_tensor_row_size(to) * gr_dtype_bytes(to.dtype);
    int64_t most = row_bytes < PIECE_BYTES ? PIECE_BYTES / row_bytes : 1, rows = to.dim[0];

    for (int64_t row = 0; row < rows; row += most) {
        int64_t end = row + most < rows ? row + most : rows;

        announce(s);
        gr_device_upload(dev, gr_tensor_rows(to, row, end), from + row * row_bytes);
        s->read += (end - row) * row_bytes;
    }
}

/* The host's copies are done with: an upload has taken what it got. */
static void forget_host(struct gr_weight_source *source)
{
    gr_weights_host_destroy(source->host);
    source->host = NULL;
    gr_model_files_close(&source->files);
}

static void upload_weights(struct gr_weights *weights, const struct wanted_list *to,
                           const struct wanted_list *from, struct gr_device *dev)
{
    struct weight_stream stream = {.host = weights->source->host, .from = from};

    for (int64_t i = 0; i < to->count; i++)
        upload_tensor(&stream, dev, *to->item[i].tensor, from->item[i].tensor->data);
    for (int64_t i = 0; i < to->count; i++)
        *from->item[i].tensor = *to->item[i].tensor;
    forget_host(weights->source);
}

void gr_weights_layout(struct gr_weights *weights, const struct gr_model_config *config,
                       const struct gr_joined_weights *joined, struct gr_device *dev,
                       struct gr_arena *arena)
{
    struct gr_weights own = {.layer = GR_NEW_ARRAY(struct gr_layer_weights, config->layers)};
    struct wanted_list from = {0}, to = {0};

    list_wanted(&from, weights, config);
    list_wanted(&to, &own, config);
    place_joined(&own, joined);
    for (int64_t i = 0; i < to.count; i++) {
        const struct wanted *w = &to.item[i];
        const gr_tensor *host = from.item[i].tensor;

        if (w->tensor->ndim == 0)
            *w->tensor = w->columns == 0
                             ? gr_arena_tensor_1d(arena, host->dtype, w->rows)
                             : gr_arena_tensor_2d(arena, host->dtype, w->rows, w->columns);
        GR_CHECK(w->tensor->dtype == host->dtype, "%s is %s", w->name, gr_dtype_name(host->dtype));
    }
    if (!gr_arena_measures(arena)) {
        upload_weights(weights, &to, &from, dev);
        if (config->tie_word_embeddings)
            weights->head = weights->embedding;
    }
    gr_free(from.item);
    gr_free(to.item);
    gr_free(own.layer);
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
    int64_t converted = 0, mapped = 0;
    char hash[GR_SHA256_HEX_BYTES];

    list_wanted(&list, &shapes, config);
    name = wanted_names(&list);
    GR_TRY(gr_model_files_open(&files, directory));
    GR_TRY(check_tensors(&list, &files, config));
    GR_TRY(gr_weights_host_measure(&converted, &mapped, &files, name, list.count, sharing->dtype));
    *bytes = converted + mapped;
    if (reads_values)
        GR_TRY(hash_model(hash, &files, sharing));
out:
    gr_model_files_close(&files);
    gr_free(name);
    gr_free(list.item);
    gr_free(shapes.layer);
    return status;
}
