/* Model directories: one file, shards, and what is wrong with broken ones. */
#include "data/model_files.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const float ones[4] = {1, 2, 3, 4};

/* A file of tensors named by the letters of `names`, two f32 each. */
static void write_tensors(const char *path, const char *names)
{
    struct gr_safetensors_item item[8];
    char name[8][2] = {{0}};
    struct gr_buffer bytes = {0};
    int64_t count = (int64_t)strlen(names);

    for (int64_t i = 0; i < count; i++) {
        name[i][0] = names[i];
        item[i] = (struct gr_safetensors_item){
            .name = name[i], .dtype = GR_F32, .ndim = 1, .dim = {2}, .data = ones + i};
    }
    gr_safetensors_write(&bytes, item, count, NULL);
    gr_test_write_file(path, bytes.data, bytes.length);
    gr_buffer_release(&bytes);
}

static const char good_index[] =
    "{\"metadata\": {\"total_size\": 32}, \"weight_map\": {\"a\": \"s-1.safetensors\",\n"
    "\"b\": \"s-2.safetensors\", \"c\": \"s-1.safetensors\", \"d\": \"s-2.safetensors\"}}";

static void write_shards(void)
{
    ASSERT(mkdir("m", 0777) == 0);
    gr_test_write_text("m/model.safetensors.index.json", good_index);
    write_tensors("m/s-1.safetensors", "ac");
    write_tensors("m/s-2.safetensors", "bd");
}

static void assert_refused(const char *directory, gr_status expected, const char *message,
                           const char *hint_part)
{
    struct gr_model_files model;
    gr_status status = gr_model_files_open(&model, directory);

    ASSERT_MSG(status == expected, "%s: %s, expected %s", message, gr_status_name(status),
               gr_status_name(expected));
    ASSERT_TEXT(gr_error_message(), message);
    ASSERT_MSG(strstr(gr_error_hint(), hint_part) != NULL, "hint: %s", gr_error_hint());
    ASSERT(model.file == NULL && model.directory == NULL);
    gr_error_clear();
}

TEST(model_files_single_file_opens)
{
    struct gr_model_files model;
    const float *data = NULL;

    gr_test_enter_folder();
    ASSERT(mkdir("m", 0777) == 0);
    write_tensors("m/model.safetensors", "ba");
    ASSERT_OK(gr_model_files_open(&model, "m"));
    ASSERT_INT(model.file_count, 1);
    ASSERT_INT(model.count, 2);
    ASSERT_TEXT(model.tensor[0].entry->name, "a");
    data = gr_model_tensor_data(gr_model_files_find(&model, "a"));
    ASSERT_NEAR(data[1], 3, 0);
    ASSERT(gr_model_files_find(&model, "c") == NULL);
    gr_model_files_close(&model);
}

TEST(model_files_shards_open_as_one)
{
    struct gr_model_files model;

    gr_test_enter_folder();
    write_shards();
    ASSERT_OK(gr_model_files_open(&model, "m"));
    ASSERT_INT(model.file_count, 2);
    ASSERT_INT(model.count, 4);
    for (int64_t i = 0; i < 4; i++) {
        const struct gr_model_tensor *tensor = &model.tensor[i];

        ASSERT_INT(tensor->entry->name[0], 'a' + i);
        ASSERT(tensor->file == &model.file[i % 2]);
        ASSERT(gr_model_files_find(&model, tensor->entry->name) == tensor);
    }
    gr_model_files_close(&model);
}

/* An index and the message it gets; the shards are those of write_shards. */
static const struct bad_index {
    const char *text;
    const char *message;
} bad_indexes[] = {
    {"", "index.json:1: broken JSON in column 0 ('[' or '{' expected near end of file)"},
    {"{\"weight_map\":\n{\"a\":}}",
     "index.json:2: broken JSON in column 6 (unexpected token near '}')"},
    {"{\"weight_map\": {\"a\": \"x\", \"a\": \"y\"}}",
     "index.json:1: broken JSON in column 29 (duplicate object key near '\"a\"')"},
    {"{}", "index.json: weight_map names no tensors (found nothing, expected an object)"},
    {"{\"weight_map\": {}}",
     "index.json: weight_map names no tensors (found an empty one, expected an object)"},
    {"{\"weight_map\": [1]}",
     "index.json: weight_map names no tensors (found another type, expected an object)"},
    {"[]", "index.json: weight_map names no tensors (found nothing, expected an object)"},
    {"{\"weight_map\": {\"a\": 1}}",
     "index.json: tensor \"a\": bad shard (found \"\", expected the name of a .safetensors file "
     "beside the index)"},
    {"{\"weight_map\": {\"a\": \"../s.safetensors\"}}",
     "index.json: tensor \"a\": bad shard (found \"../s.safetensors\", expected the name of a "
     ".safetensors file beside the index)"},
    {"{\"weight_map\": {\"a\": \"/etc/s.safetensors\"}}",
     "index.json: tensor \"a\": bad shard (found \"/etc/s.safetensors\", expected the name of a "
     ".safetensors file beside the index)"},
    {"{\"weight_map\": {\"a\": \"s-1.bin\"}}",
     "index.json: tensor \"a\": bad shard (found \"s-1.bin\", expected the name of a .safetensors "
     "file beside the index)"},
    {"{\"weight_map\": {\"a\": \"s-1.safetensors\", \"b\": \"s-2.safetensors\", "
     "\"d\": \"s-2.safetensors\"}}",
     "s-1.safetensors: tensor \"c\" is in the wrong file (found here, expected in no file as the "
     "index "
     "says)"},
    {"{\"weight_map\": {\"a\": \"s-2.safetensors\", \"b\": \"s-2.safetensors\", "
     "\"c\": \"s-1.safetensors\", \"d\": \"s-2.safetensors\"}}",
     "s-1.safetensors: tensor \"a\" is in the wrong file (found here, expected in s-2.safetensors "
     "as the "
     "index says)"},
    {"{\"weight_map\": {\"a\": \"s-1.safetensors\", \"b\": \"s-2.safetensors\", "
     "\"c\": \"s-1.safetensors\", \"d\": \"s-2.safetensors\", \"e\": \"s-2.safetensors\"}}",
     "s-2.safetensors: tensor \"e\" is missing (found nothing, expected it here as the index "
     "says)"},
};

TEST(model_files_bad_index_is_refused)
{
    gr_test_enter_folder();
    write_shards();
    for (int64_t i = 0; i < GR_COUNT(bad_indexes); i++) {
        const char *message = bad_indexes[i].message;
        char *full = gr_format("m/%s%s", message[0] == 'i' ? "model.safetensors." : "", message);

        gr_test_write_text("m/model.safetensors.index.json", bad_indexes[i].text);
        assert_refused("m", GR_ERR_DATA, full, "again");
        gr_free(full);
    }
}

TEST(model_files_missing_parts_are_refused)
{
    gr_test_enter_folder();
    assert_refused("m", GR_ERR_NOT_FOUND,
                   "m: there is no such model (found nothing, expected a directory)",
                   "hf download");
    gr_test_write_text("f", "");
    assert_refused("f", GR_ERR_DATA, "f: not a model (found a file, expected a directory)",
                   "config.json");
    write_shards();
    ASSERT(unlink("m/s-2.safetensors") == 0);
    assert_refused("m", GR_ERR_NOT_FOUND,
                   "m/s-2.safetensors: there is no such file (found nothing, expected a file)",
                   "model.safetensors.index.json lists this file");
    ASSERT(unlink("m/model.safetensors.index.json") == 0);
    assert_refused("m", GR_ERR_NOT_FOUND,
                   "m: there are no weights (found nothing, expected model.safetensors or "
                   "model.safetensors.index.json)",
                   "config.json");
    gr_test_write_text("m/pytorch_model.bin", "PK");
    assert_refused("m", GR_ERR_DATA,
                   "m: the weights are not in safetensors (found pytorch_model.bin, expected "
                   "model.safetensors)",
                   "safe_serialization=True");
    ASSERT(symlink("nowhere", "m/model.safetensors") == 0);
    assert_refused("m", GR_ERR_NOT_FOUND,
                   "m/model.safetensors: there is no such file (found nothing, expected a file)",
                   "check the path");
}

/* A real model (vocabulary 512, width 64 as its config.json says). */
TEST(model_files_stories260k_opens)
{
    const char *source = getenv("GRAFT_SOURCE_DIR");
    char *path =
        gr_format("%s/../shared/fixtures/models/stories260k", source == NULL ? "." : source);
    struct gr_model_files model;
    const struct gr_model_tensor *tensor = NULL;

    if (access(path, R_OK) != 0)
        SKIP("%s is not there", path);
    ASSERT_OK(gr_model_files_open(&model, path));
    tensor = gr_model_files_find(&model, "model.embed_tokens.weight");
    ASSERT(tensor != NULL);
    ASSERT_INT(tensor->entry->ndim, 2);
    ASSERT_INT(tensor->entry->dim[0], 512);
    ASSERT_INT(tensor->entry->dim[1], 64);
    gr_model_files_close(&model);
    gr_free(path);
}
