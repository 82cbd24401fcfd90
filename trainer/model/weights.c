/* From a Hugging Face directory to the tensors of a model.  See weights.h. */
#include "trainer/model/weights.h"

#include "data/safetensors.h"
#include "kernels/base/alloc.h"
#include "kernels/base/widen.h"

#include <stdio.h>
#include <string.h>

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

static gr_status check_shape(const struct wanted *w, const struct gr_safetensors *file,
                             const struct gr_safetensors_entry *entry)
{
    int ndim = w->columns == 0 ? 1 : 2;
    int64_t columns = ndim == 1 ? 1 : w->columns, found = entry->ndim > 1 ? entry->dim[1] : 1;

    if (entry->ndim == ndim && entry->dim[0] == w->rows && found == columns)
        return GR_OK;
    return gr_fail(GR_ERR_DATA, file->path, "config.json and the weights do not belong together",
                   "tensor %s: shape (found (%lld, %lld), expected (%lld, %lld))", w->name,
                   (long long)(entry->ndim > 0 ? entry->dim[0] : 1), (long long)found,
                   (long long)w->rows, (long long)columns);
}

gr_status gr_weights_load(struct gr_weights *weights, char hash[65], struct gr_device *dev,
                          const struct gr_model_config *config, const char *directory,
                          const struct gr_weight_sharing *sharing)
{
    gr_status status = GR_OK;
    struct wanted_list list = {0};
    struct gr_safetensors file[2] = {0};
    int files = 1;
    (void)dev;
    (void)sharing;
    hash[0] = 0;
    weights->layer = GR_NEW_ARRAY(struct gr_layer_weights, config->layers);
    list_wanted(&list, weights, config);
    if (gr_safetensors_open(&file[0], gr_format("%s/model.safetensors", directory))) {
        gr_error_clear();
        files = 2;
        GR_TRY(gr_safetensors_open(&file[0],
                                   gr_format("%s/model-00001-of-00002.safetensors", directory)));
        GR_TRY(gr_safetensors_open(&file[1],
                                   gr_format("%s/model-00002-of-00002.safetensors", directory)));
    }
    for (int64_t i = 0; i < list.count; i++) {
        struct wanted *w = &list.item[i];
        const struct gr_safetensors_entry *e = NULL;
        int f;
        for (f = 0; f < files && e == NULL; f++)
            e = gr_safetensors_find(&file[f], w->name);
        if (e == NULL)
            GR_TRY(gr_fail(GR_ERR_DATA, directory, "x", "tensor %s is missing", w->name));
        GR_TRY(check_shape(w, &file[f - 1], e));
        int64_t n = w->rows * (w->columns ? w->columns : 1);
        float *v = GR_NEW_ARRAY(float, n);
        gr_widen(v, gr_safetensors_data(&file[f - 1], e), e->dtype, n);
        *w->tensor = w->columns ? gr_tensor_2d(v, GR_F32, w->rows, w->columns)
                                : gr_tensor_1d(v, GR_F32, w->rows);
    }
    if (config->tie_word_embeddings)
        weights->head = weights->embedding;
out:
    return status;
}
void gr_weights_release(struct gr_weights *weights)
{
    gr_free(weights->layer);
}
