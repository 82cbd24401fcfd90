/* Opening a model's files and joining their tensors.  See model_files.h. */
#include "data/model_files.h"

#include "data/json.h"
#include "kernels/base/alloc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE  "model.safetensors.index.json"
#define HINT_AGAIN  "download the model again, or save it again with save_pretrained"

static bool has_file(const char *directory, const char *name)
{
    struct stat info;
    char *path = gr_format("%s/%s", directory, name);
    bool found = lstat(path, &info) == 0; /* a broken link is an error of its own, later */

    gr_free(path);
    return found;
}

/* ---- the index -------------------------------------------------------------------------- */

/* Shards lie in the model's own directory. */
static bool is_shard_name(const char *name)
{
    static const char suffix[] = ".safetensors";
    size_t length = strlen(name);

    return length >= sizeof suffix && strchr(name, '/') == NULL && name[0] != '.' &&
           strcmp(name + length - (sizeof suffix - 1), suffix) == 0;
}

/* Reads the index: *root owns everything, *map is tensor -> file name, checked. */
static gr_status read_index(json_t **root, json_t **map, const char *path)
{
    gr_status status = GR_OK;
    struct gr_file_map file;
    json_error_t where;
    const char *tensor = NULL;
    json_t *shard = NULL;

    GR_TRY(gr_file_map_open(&file, path));
    *root = json_loadb(file.data == NULL ? "" : (const char *)file.data,
                       (size_t)file.identity.bytes, JSON_REJECT_DUPLICATES, &where);
    if (*root == NULL)
        GR_TRY(gr_json_fail_syntax(path, 1, &where, HINT_AGAIN));
    *map = json_object_get(*root, "weight_map");
    if (json_object_size(*map) == 0)
        GR_TRY(gr_fail(GR_ERR_DATA, path, HINT_AGAIN,
                       "weight_map names no tensors (found %s, expected an object)",
                       *map == NULL           ? "nothing"
                       : json_is_object(*map) ? "an empty one"
                                              : "another type"));
    json_object_foreach(*map, tensor, shard)
    {
        if (!json_is_string(shard) || !is_shard_name(json_string_value(shard)))
            GR_TRY(gr_fail(GR_ERR_DATA, path, HINT_AGAIN,
                           "tensor \"%.200s\": bad shard (found \"%.200s\", expected the name of a "
                           ".safetensors file beside the index)",
                           tensor, json_is_string(shard) ? json_string_value(shard) : ""));
    }
out:
    gr_file_map_close(&file);
    return status;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The shards of an index, each once, sorted; borrowed from `map`.  The caller frees the list. */
static const char **list_shards(int64_t *count, json_t *map)
{
    const char **name = GR_NEW_ARRAY(const char *, (int64_t)json_object_size(map));
    const char *tensor = NULL;
    json_t *shard = NULL;
    int64_t all = 0;

    json_object_foreach(map, tensor, shard) name[all++] = json_string_value(shard);
    qsort(name, (size_t)all, sizeof *name, by_text);
    *count = 0;
    for (int64_t i = 0; i < all; i++) {
        if (*count == 0 || strcmp(name[*count - 1], name[i]) != 0)
            name[(*count)++] = name[i];
    }
    return name;
}

/* Every tensor of the index is in its shard, and the shards hold no others. */
static gr_status check_shards(const struct gr_model_files *model, json_t *map,
                              const char *const *shard)
{
    for (int64_t i = 0; i < model->file_count; i++) {
        const struct gr_safetensors *file = &model->file[i];
        const char *tensor = NULL;
        json_t *expected = NULL;

        for (int64_t k = 0; k < file->count; k++) {
            const char *name = file->entry[k].name;
            const char *place = json_string_value(json_object_get(map, name));

            if (place == NULL || strcmp(place, shard[i]) != 0)
                return gr_fail(
                    GR_ERR_DATA, file->path, HINT_AGAIN,
                    "tensor \"%.200s\" is in the wrong file (found here, expected in %.200s as the "
                    "index says)",
                    name, place == NULL ? "no file" : place);
        }
        json_object_foreach(map, tensor, expected)
        {
            if (strcmp(json_string_value(expected), shard[i]) == 0 &&
                gr_safetensors_find(file, tensor) == NULL)
                return gr_fail(
                    GR_ERR_DATA, file->path, HINT_AGAIN,
                    "tensor \"%.200s\" is missing (found nothing, expected it here as the index "
                    "says)",
                    tensor);
        }
    }
    return GR_OK;
}

/* ---- opening ---------------------------------------------------------------------------- */

static gr_status open_file(struct gr_model_files *model, const char *name)
{
    char *path = gr_format("%s/%s", model->directory, name);
    gr_status status = gr_safetensors_open(&model->file[model->file_count], path);

    if (status == GR_OK)
        model->file_count++;
    gr_free(path);
    return status;
}

static gr_status open_shard(struct gr_model_files *model, const char *name)
{
    gr_status status = open_file(model, name);

    if (status == GR_ERR_NOT_FOUND)
        gr_hint(INDEX_FILE " lists this file: " HINT_AGAIN);
    return status;
}

static gr_status open_shards(struct gr_model_files *model)
{
    gr_status status = GR_OK;
    char *index = gr_format("%s/" INDEX_FILE, model->directory);
    json_t *root = NULL, *map = NULL;
    const char **shard = NULL;
    int64_t count = 0;

    GR_TRY(read_index(&root, &map, index));
    shard = list_shards(&count, map);
    model->file = GR_NEW_ARRAY(struct gr_safetensors, count);
    for (int64_t i = 0; i < count; i++)
        GR_TRY(open_shard(model, shard[i]));
    GR_TRY(check_shards(model, map, shard));
out:
    gr_free(shard);
    json_decref(root);
    gr_free(index);
    return status;
}

gr_status gr_model_directory_check(const char *directory)
{
    struct stat info;

    if (stat(directory, &info) != 0)
        return gr_fail(
            GR_ERR_NOT_FOUND, directory,
            "give a local directory; hf download ORG/NAME --local-dir DIRECTORY makes one",
            "there is no such model (found nothing, expected a directory)");
    if (!S_ISDIR(info.st_mode))
        return gr_fail(GR_ERR_DATA, directory,
                       "give the directory that holds config.json and the weights",
                       "not a model (found a file, expected a directory)");
    return GR_OK;
}

static gr_status open_files(struct gr_model_files *model)
{
    gr_status status = GR_OK;
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};

    GR_TRY(gr_model_directory_check(model->directory));
    if (has_file(model->directory, SINGLE_FILE)) {
        model->file = GR_NEW_ARRAY(struct gr_safetensors, 1);
        return open_file(model, SINGLE_FILE);
    }
    if (has_file(model->directory, INDEX_FILE))
        return open_shards(model);
    for (int64_t i = 0; i < GR_COUNT(pickles); i++) {
        if (has_file(model->directory, pickles[i]))
            return gr_fail(GR_ERR_DATA, model->directory,
                           "convert it in Python: from_pretrained(DIRECTORY).save_pretrained("
                           "DIRECTORY, safe_serialization=True)",
                           "the weights are not in safetensors (found %s, expected " SINGLE_FILE
                           ")",
                           pickles[i]);
    }
    status =
        gr_fail(GR_ERR_NOT_FOUND, model->directory,
                "give the directory that holds config.json and the weights",
                "there are no weights (found nothing, expected " SINGLE_FILE " or " INDEX_FILE ")");
out:
    return status;
}

static int by_name(const void *a, const void *b)
{
    const struct gr_model_tensor *x = a, *y = b;

    return strcmp(x->entry->name, y->entry->name);
}

static void join_tensors(struct gr_model_files *model)
{
    int64_t count = 0;

    for (int64_t i = 0; i < model->file_count; i++)
        count += model->file[i].count;
    model->tensor = GR_NEW_ARRAY(struct gr_model_tensor, count);
    for (int64_t i = 0; i < model->file_count; i++) {
        for (int64_t k = 0; k < model->file[i].count; k++)
            model->tensor[model->count++] =
                (struct gr_model_tensor){&model->file[i], &model->file[i].entry[k]};
    }
    qsort(model->tensor, (size_t)count, sizeof *model->tensor, by_name);
}

gr_status gr_model_files_open(struct gr_model_files *model, const char *directory)
{
    gr_status status = GR_OK;

    memset(model, 0, sizeof *model);
    model->directory = gr_strdup(directory);
    GR_TRY(open_files(model));
    join_tensors(model);
out:
    if (status != GR_OK)
        gr_model_files_close(model);
    return status;
}

void gr_model_files_close(struct gr_model_files *model)
{
    for (int64_t i = 0; i < model->file_count; i++)
        gr_safetensors_close(&model->file[i]);
    gr_free(model->file);
    gr_free(model->tensor);
    gr_free(model->directory);
    memset(model, 0, sizeof *model);
}

const struct gr_model_tensor *gr_model_files_find(const struct gr_model_files *model,
                                                  const char *name)
{
    struct gr_safetensors_entry entry = {.name = name};
    struct gr_model_tensor key = {NULL, &entry};

    return bsearch(&key, model->tensor, (size_t)model->count, sizeof *model->tensor, by_name);
}

const void *gr_model_tensor_data(const struct gr_model_tensor *tensor)
{
    return gr_safetensors_data(tensor->file, tensor->entry);
}
