/* Merging an adapter into its base.  See merge.h. */
#include "trainer/model/merge.h"

#include "data/json.h"
#include "data/model_files.h"
#include "data/staged_folder.h"
#include "data/threads.h"
#include "kernels/base/alloc.h"
#include "kernels/base/files.h"
#include "kernels/base/widen.h"

#include <dirent.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INDEX "model.safetensors.index.json"

enum { ROWS_AT_ONCE = 16 };

struct merge {
    const struct gr_adapter *adapter;
    const float *values;
    const struct gr_merge_options *options;
    struct gr_model_files files;
    struct gr_staged_folder *folder;
    struct gr_buffer bytes; /* of the tensor being made */
    int64_t data_bytes;     /* of all tensors written */
};

/* ---- one tensor ------------------------------------------------------------------------- */

/* What the threads share while they make the rows of one linear. */
struct product {
    const struct gr_lora_matrix *m;
    const float *a, *b; /* A (r, in), B (out, r) */
    const unsigned char *from;
    unsigned char *to;
    enum gr_dtype dtype, to_dtype;
    atomic_llong next_row;
    atomic_bool is_not_finite;
};

static void make_row(struct product *p, int64_t row, float *delta, float *weight)
{
    const struct gr_lora_matrix *m = p->m;
    bool is_finite = true;

    memset(delta, 0, (size_t)m->in * sizeof *delta);
    for (int64_t k = 0; k < m->r; k++) {
        const float factor = p->b[row * m->r + k], *a = p->a + k * m->in;

        for (int64_t i = 0; i < m->in; i++)
            delta[i] += factor * a[i];
    }
    gr_widen(weight, p->from + row * m->in * gr_dtype_bytes(p->dtype), p->dtype, m->in);
    for (int64_t i = 0; i < m->in; i++)
        weight[i] += m->scale * delta[i];
    gr_narrow(p->to + row * m->in * gr_dtype_bytes(p->to_dtype), weight, p->to_dtype, m->in);
    gr_widen(weight, p->to + row * m->in * gr_dtype_bytes(p->to_dtype), p->to_dtype, m->in);
    for (int64_t i = 0; i < m->in; i++)
        is_finite = is_finite && isfinite(weight[i]);
    if (!is_finite)
        atomic_store(&p->is_not_finite, true);
}

static void make_rows(void *context)
{
    struct product *p = context;
    float *scratch = GR_NEW_ARRAY(float, 2 * p->m->in);
    int64_t row;

    while ((row = atomic_fetch_add(&p->next_row, ROWS_AT_ONCE)) < p->m->out) {
        for (int64_t i = row; i < row + ROWS_AT_ONCE && i < p->m->out; i++)
            make_row(p, i, scratch, scratch + p->m->in);
    }
    gr_free(scratch);
}

static const struct gr_lora_matrix *matrix_of(const struct gr_adapter *adapter, const char *tensor)
{
    char name[64];

    for (int64_t i = 0; i < adapter->count; i++) {
        size_t length;

        gr_lora_matrix_name(name, &adapter->matrix[i]);
        length = strlen(name);
        if (strncmp(tensor, name, length) == 0 && strcmp(tensor + length, ".weight") == 0)
            return &adapter->matrix[i];
    }
    return NULL;
}

static gr_status add_product(struct merge *merge, const struct gr_lora_matrix *m,
                             const struct gr_safetensors *file,
                             const struct gr_safetensors_entry *entry, enum gr_dtype to_dtype)
{
    struct product p = {.m = m,
                        .a = merge->values + m->a_begin,
                        .b = merge->values + m->b_begin,
                        .from = gr_safetensors_data(file, entry),
                        .to = (unsigned char *)merge->bytes.data,
                        .dtype = entry->dtype,
                        .to_dtype = to_dtype};

    if (entry->ndim != 2 || entry->dim[0] != m->out || entry->dim[1] != m->in)
        return gr_fail(GR_ERR_DATA, file->path, "the adapter was trained on another model",
                       "tensor \"%s\" has the wrong shape (expected (%lld, %lld))", entry->name,
                       (long long)m->out, (long long)m->in);
    gr_run_threads(merge->options->threads, make_rows, &p);
    if (atomic_load(&p.is_not_finite))
        return gr_fail(GR_ERR_DATA, file->path, "merge with --dtype f32",
                       "tensor \"%s\" with the adapter is not finite in %s", entry->name,
                       gr_dtype_name(to_dtype));
    return GR_OK;
}

static bool is_real(enum gr_dtype dtype)
{
    return dtype == GR_F32 || dtype == GR_F16 || dtype == GR_BF16;
}

static gr_status write_tensor(struct merge *merge, const struct gr_safetensors *file,
                              const struct gr_safetensors_item *item)
{
    gr_status status = GR_OK;
    const struct gr_safetensors_entry *entry = gr_safetensors_find(file, item->name);
    const struct gr_lora_matrix *m = matrix_of(merge->adapter, item->name);
    int64_t bytes = gr_safetensors_item_bytes(item);
    const void *data = gr_safetensors_data(file, entry);

    merge->data_bytes += bytes;
    if (m == NULL && entry->dtype == item->dtype)
        return gr_staged_folder_write(merge->folder, data, bytes);
    gr_buffer_clear(&merge->bytes);
    gr_buffer_reserve(&merge->bytes, (size_t)bytes);
    if (m == NULL)
        gr_widen((void *)merge->bytes.data, data, entry->dtype, bytes / (int64_t)sizeof(float));
    else
        GR_TRY(add_product(merge, m, file, entry, item->dtype));
    GR_TRY(gr_staged_folder_write(merge->folder, merge->bytes.data, bytes));
out:
    return status;
}

/* ---- files ------------------------------------------------------------------------------ */

static gr_status write_shard(struct merge *merge, const struct gr_safetensors *file)
{
    gr_status status = GR_OK;
    struct gr_safetensors_item *item = GR_NEW_ARRAY(struct gr_safetensors_item, file->count);
    const struct gr_safetensors_item *next = NULL;

    for (int64_t i = 0; i < file->count; i++) {
        const struct gr_safetensors_entry *entry = &file->entry[i];
        bool widens = merge->options->to_f32 && is_real(entry->dtype);

        if (entry->dtype == GR_DTYPE_COUNT)
            GR_TRY(gr_fail(GR_ERR_DATA, file->path, "convert the model to a usual dtype",
                           "tensor \"%s\" cannot be copied (found dtype %s)", entry->name,
                           entry->dtype_name));
        item[i].name = entry->name;
        item[i].dtype = widens ? GR_F32 : entry->dtype;
        item[i].ndim = entry->ndim;
        memcpy(item[i].dim, entry->dim, sizeof item[i].dim);
    }
    GR_TRY(gr_staged_folder_begin(merge->folder, gr_path_name(file->path)));
    gr_safetensors_write_header(&merge->bytes, item, file->count, NULL);
    GR_TRY(gr_staged_folder_write(merge->folder, merge->bytes.data, (int64_t)merge->bytes.length));
    while ((next = gr_safetensors_next(item, file->count, next)) != NULL)
        GR_TRY(write_tensor(merge, file, next));
out:
    gr_free(item);
    return status;
}

static gr_status write_json(struct merge *merge, const char *name, const json_t *object)
{
    gr_status status = GR_OK;
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);

    GR_TRY(gr_staged_folder_begin(merge->folder, name));
    GR_TRY(gr_staged_folder_write(merge->folder, text, (int64_t)strlen(text)));
    GR_TRY(gr_staged_folder_write(merge->folder, "\n", 1));
out:
    free(text); /* jansson's allocation */
    return status;
}

/* The base's list of tensors by shard stands; their size may be another. */
static gr_status write_index(struct merge *merge, const char *path)
{
    gr_status status = GR_OK;
    struct gr_json index = {0};
    json_t *metadata;

    GR_TRY(gr_json_load(&index, path));
    metadata = json_object_get(index.value, "metadata");
    if (json_is_object(metadata))
        json_object_set_new(metadata, "total_size", json_integer(merge->data_bytes));
    GR_TRY(write_json(merge, INDEX, index.value));
out:
    gr_json_release(&index);
    return status;
}

static gr_status write_config(struct merge *merge, const char *path)
{
    gr_status status = GR_OK;
    static const char *const keys[] = {"dtype", "torch_dtype"};
    struct gr_json config = {0};

    GR_TRY(gr_json_load(&config, path));
    for (int64_t i = 0; i < GR_COUNT(keys); i++) {
        if (json_object_get(config.value, keys[i]) != NULL)
            json_object_set_new(config.value, keys[i], json_string("float32"));
    }
    GR_TRY(write_json(merge, "config.json", config.value));
out:
    gr_json_release(&config);
    return status;
}

static gr_status copy_file(struct merge *merge, const char *name, const char *path)
{
    gr_status status = GR_OK;
    struct gr_file_map map = {0};

    GR_TRY(gr_file_map_open(&map, path));
    GR_TRY(gr_staged_folder_begin(merge->folder, name));
    GR_TRY(gr_staged_folder_write(merge->folder, map.data, map.identity.bytes));
out:
    gr_file_map_close(&map);
    return status;
}

/* Weights in whatever format: they would be the base's. */
static bool holds_weights(const char *name)
{
    static const char *const endings[] = {
        ".safetensors",   ".bin",     ".pt", ".pth",  ".gguf",
        ".onnx",          ".msgpack", ".h5", ".ckpt", ".safetensors.index.json",
        ".bin.index.json"};

    for (int64_t i = 0; i < GR_COUNT(endings); i++) {
        size_t length = strlen(name), ending = strlen(endings[i]);

        if (length >= ending && strcmp(name + length - ending, endings[i]) == 0)
            return true;
    }
    return false;
}

static gr_status write_other_file(struct merge *merge, const char *name)
{
    gr_status status = GR_OK;
    char *path = gr_format("%s/%s", merge->files.directory, name);
    struct stat file;

    if (stat(path, &file) != 0 || !S_ISREG(file.st_mode))
        goto out;
    if (strcmp(name, INDEX) == 0)
        GR_TRY(write_index(merge, path));
    else if (strcmp(name, "config.json") == 0 && merge->options->to_f32)
        GR_TRY(write_config(merge, path));
    else if (!holds_weights(name))
        GR_TRY(copy_file(merge, name, path));
out:
    gr_free(path);
    return status;
}

static gr_status write_other_files(struct merge *merge)
{
    gr_status status = GR_OK;
    DIR *folder = opendir(merge->files.directory);
    struct dirent *entry;

    if (folder == NULL)
        return gr_file_fail(merge->files.directory, "read");
    while ((entry = readdir(folder)) != NULL)
        GR_TRY(write_other_file(merge, entry->d_name));
out:
    closedir(folder);
    return status;
}

/* A linear that the base's files lack would silently stay out. */
static gr_status check_linears(const struct merge *merge)
{
    for (int64_t i = 0; i < merge->adapter->count; i++) {
        char linear[64], name[80];

        gr_lora_matrix_name(linear, &merge->adapter->matrix[i]);
        snprintf(name, sizeof name, "%s.weight", linear);
        if (gr_model_files_find(&merge->files, name) == NULL)
            return gr_fail(GR_ERR_DATA, merge->files.directory,
                           "the adapter was trained on another model",
                           "tensor \"%s\" is missing (found nothing, expected the linear the "
                           "adapter adapts)",
                           name);
    }
    return GR_OK;
}

gr_status gr_merge(const char *output, const char *base, const struct gr_adapter *adapter,
                   const float *values, const struct gr_merge_options *options)
{
    gr_status status = GR_OK;
    struct merge merge = {.adapter = adapter, .values = values, .options = options};

    GR_TRY(gr_model_files_open(&merge.files, base));
    GR_TRY(check_linears(&merge));
    GR_TRY(gr_staged_folder_create(&merge.folder, output));
    for (int64_t i = 0; i < merge.files.file_count; i++)
        GR_TRY(write_shard(&merge, &merge.files.file[i]));
    GR_TRY(write_other_files(&merge));
    GR_TRY(gr_staged_folder_commit(merge.folder));
out:
    gr_staged_folder_destroy(merge.folder);
    gr_model_files_close(&merge.files);
    gr_buffer_release(&merge.bytes);
    return status;
}
