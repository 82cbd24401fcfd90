/* safetensors: what is refused and how, what is read, what is written, and the reference's opinion
 * of both. */
#include "data/safetensors.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"

#include <jansson.h>

/* The string of __metadata__ under `key`, NULL if none. */
static const char *metadata_of(const struct gr_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->json, "__metadata__"), key));
}

/* A file with one header and so many zero bytes of data, and the message it must get. */
static const struct hostile_file {
    const char *header;
    size_t data_bytes;
    const char *message;
} hostile_files[] = {
    {"", 0, "the header is empty (found 0 bytes, expected at least 2)"},
    {"[]", 0, "the header is no JSON object (found byte 0x5b, expected '{')"},
    {" {}", 0, "the header is no JSON object (found byte 0x20, expected '{')"},
    {"{\"a\":", 0, "the header is no valid JSON (byte 5: unexpected token near end of file)"},
    {"{}x", 0, "the header is no valid JSON (byte 3: end of file expected near 'x')"},
    {"{\"a\xff\":{}}", 0,
     "the header is no valid JSON (byte 3: unable to decode byte 0xff near '\"a')"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
     0, "the header is no valid JSON (byte 56: duplicate object key near '\"a\"')"},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
     "the header is no valid JSON (byte 26: duplicate object key near '\"dtype\"')"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is no JSON object"},
    {"{\"__metadata__\":{\"step\":3}}", 0, "__metadata__ \"step\" is no string"},
    {"{\"a\":7}", 0, "tensor \"a\": bad description (found 7, expected an object)"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "tensor \"a\": bad dtype (found nothing, expected F32, BF16, F16 or another of the format)"},
    {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "tensor \"a\": bad dtype (found \"F31\", expected F32, BF16, F16 or another of the format)"},
    {"{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "tensor \"a\": bad dtype (found 32, expected F32, BF16, F16 or another of the format)"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4,
     "tensor \"a\": bad shape (found nothing, expected a list of integers)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
     "tensor \"a\": bad shape (found -1, expected an integer >= 0)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4,
     "tensor \"a\": bad shape (found 1.0, expected an integer >= 0)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
     "tensor \"a\": bad shape (found [1,1,1,1,1,1,1,1,1], expected at most 8 numbers)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
     "tensor \"a\": data_offsets do not fit shape and dtype (found 4 bytes, expected 8)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
     "tensor \"a\": data_offsets do not fit shape and dtype (found 8 bytes, expected 4)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
     "tensor \"a\": bad shape (found [4294967296,4294967296], expected whole bytes, "
     "fewer than 2^60)"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1,
     "tensor \"a\": bad shape (found [3], expected whole bytes, fewer than 2^60)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4,
     "tensor \"a\": bad data_offsets (found [0], expected [begin, end], begin <= end)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
     "tensor \"a\": bad data_offsets (found [4,0], expected [begin, end], begin <= end)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
     "tensor \"a\": there is a hole before its bytes (found offset 4, expected 0)"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[5,7]}}",
     7, "tensor \"b\": there is a hole before its bytes (found offset 5, expected 4)"},
    {"{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
     7, "tensor \"a\": its bytes overlap those of another (found offset 3, expected 4)"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
     4, "tensor \"b\": its bytes overlap those of another (found offset 0, expected 4)"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 3,
     "the file is cut short (found 64 bytes, expected 65)"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 5,
     "the file goes on behind its last tensor (found 66 bytes, expected 65)"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775],\"data_offsets\":[0,9223372036854775]}"
     "}",
     4, "the file is cut short (found 95 bytes, expected 9223372036854866)"},
};

TEST(safetensors_hostile_header_is_refused_with_its_message)
{
    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(hostile_files); i++) {
        const struct hostile_file *hostile = &hostile_files[i];
        struct gr_safetensors file;
        char *message = gr_format("x.safetensors: %s", hostile->message);

        gr_test_write_safetensors("x.safetensors", hostile->header, NULL, hostile->data_bytes);
        ASSERT_MSG(gr_safetensors_open(&file, "x.safetensors") == GR_ERR_DATA, "opened: %s",
                   hostile->header);
        ASSERT_TEXT(gr_error_message(), message);
        ASSERT(gr_error_hint()[0] != '\0');
        ASSERT(file.map.data == NULL && file.entry == NULL && file.json == NULL);
        gr_error_clear();
        gr_free(message);
    }
}

TEST(safetensors_missing_short_and_overlong_files_are_refused)
{
    struct gr_safetensors file;
    char nine[9] = {0};
    uint64_t length = 100000001;

    gr_test_enter_folder();
    ASSERT_INT(gr_safetensors_open(&file, "x.safetensors"), GR_ERR_NOT_FOUND);
    ASSERT_TEXT(gr_error_message(),
                "x.safetensors: there is no such file (found nothing, expected a file)");
    gr_error_clear();
    ASSERT_INT(gr_safetensors_open(&file, "."), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), ".: not a regular file (found a directory, expected a file)");
    gr_error_clear();
    for (size_t bytes = 0; bytes < 8; bytes++) {
        gr_test_write_file("x.safetensors", nine, bytes);
        ASSERT_INT(gr_safetensors_open(&file, "x.safetensors"), GR_ERR_DATA);
        ASSERT(strstr(gr_error_message(), "bytes, expected at least 8)") != NULL);
        gr_error_clear();
    }
    memcpy(nine, &length, sizeof length);
    gr_test_write_file("x.safetensors", nine, sizeof nine);
    ASSERT_INT(gr_safetensors_open(&file, "x.safetensors"), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "x.safetensors: the header is too long (found 100000001 bytes, "
                                    "expected at most 100000000)");
    gr_error_clear();
    memset(nine, 0xff, 8);
    gr_test_write_file("x.safetensors", nine, sizeof nine);
    ASSERT_INT(gr_safetensors_open(&file, "x.safetensors"), GR_ERR_DATA);
    gr_error_clear();
    length = 2;
    memcpy(nine, &length, sizeof length);
    gr_test_write_file("x.safetensors", nine, sizeof nine);
    ASSERT_INT(gr_safetensors_open(&file, "x.safetensors"), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(),
                "x.safetensors: the file ends inside its header (found 9 bytes, expected at least "
                "10)");
}

/* What holds of every file that opens, whatever is in it. */
static void check_consistent(const struct gr_safetensors *file)
{
    volatile unsigned char sum = 0;

    for (int64_t i = 0; i < file->count; i++) {
        const struct gr_safetensors_entry *entry = &file->entry[i];
        const unsigned char *data = gr_safetensors_data(file, entry);

        ASSERT(entry->offset >= 8 && entry->bytes >= 0 && entry->ndim <= 8);
        ASSERT(entry->offset + entry->bytes <= file->map.identity.bytes);
        ASSERT(gr_safetensors_find(file, entry->name) == entry);
        ASSERT(i == 0 || strcmp(file->entry[i - 1].name, entry->name) < 0);
        for (int64_t k = 0; k < entry->bytes; k++)
            sum = (unsigned char)(sum + data[k]);
    }
}

/* Every bit of the length, the header and the first data byte, flipped alone: never a crash, and
 * what still opens is consistent. */
TEST(safetensors_every_flipped_header_bit_is_refused_or_consistent)
{
    const float data[6] = {1, 2, 3, 4, 5, 6};
    const struct gr_safetensors_item item[] = {
        {.name = "a", .dtype = GR_F32, .ndim = 2, .dim = {1, 2}, .data = data},
        {.name = "b", .dtype = GR_BF16, .ndim = 1, .dim = {3}, .data = data},
        {.name = "c", .dtype = GR_U8, .ndim = 0, .data = data}};
    struct gr_buffer bytes = {0};
    int opened = 0, refused = 0;

    gr_test_enter_folder();
    gr_safetensors_write(&bytes, item, GR_COUNT(item), NULL);
    for (size_t i = 0; i < bytes.length - 14; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct gr_safetensors file;

            bytes.data[i] = (char)(bytes.data[i] ^ (1 << bit));
            gr_test_write_file("x.safetensors", bytes.data, bytes.length);
            if (gr_safetensors_open(&file, "x.safetensors") == GR_OK) {
                opened++;
                check_consistent(&file);
                gr_safetensors_close(&file);
            } else {
                refused++;
                ASSERT(strncmp(gr_error_message(), "x.safetensors: ", 15) == 0);
                gr_error_clear();
            }
            bytes.data[i] = (char)(bytes.data[i] ^ (1 << bit));
        }
    }
    ASSERT(opened > 0 && refused > opened);
    gr_buffer_release(&bytes);
}

/* Cut anywhere, the file is refused. */
TEST(safetensors_every_truncation_is_refused)
{
    const float data[2] = {1, 2};
    const struct gr_safetensors_item item = {
        .name = "a", .dtype = GR_F32, .ndim = 1, .dim = {2}, .data = data};
    struct gr_buffer bytes = {0};
    struct gr_safetensors file;

    gr_test_enter_folder();
    gr_safetensors_write(&bytes, &item, 1, NULL);
    for (size_t length = 0; length < bytes.length; length++) {
        gr_test_write_file("x.safetensors", bytes.data, length);
        ASSERT_INT(gr_safetensors_open(&file, "x.safetensors"), GR_ERR_DATA);
        gr_error_clear();
    }
    gr_buffer_release(&bytes);
}

TEST(safetensors_foreign_dtypes_are_read_with_their_size)
{
    struct gr_safetensors file;
    const struct gr_safetensors_entry *entry = NULL;

    gr_test_enter_folder();
    gr_test_write_safetensors("x.safetensors",
                              "{\"i\":{\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                              "\"f\":{\"dtype\":\"F8_E4M3\",\"shape\":[],\"data_offsets\":[3,4]},"
                              "\"h\":{\"dtype\":\"F4\",\"shape\":[2,2],\"data_offsets\":[4,6]},"
                              "\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[6,6]},"
                              "\"b\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[6,7]},"
                              "\"u\":{\"dtype\":\"U16\",\"shape\":[2],\"data_offsets\":[7,11]}}",
                              NULL, 11);
    ASSERT_OK(gr_safetensors_open(&file, "x.safetensors"));
    ASSERT_INT(file.count, 6);
    check_consistent(&file);
    entry = gr_safetensors_find(&file, "h");
    ASSERT_TEXT(entry->dtype_name, "F4");
    ASSERT_INT(entry->dtype, GR_DTYPE_COUNT);
    ASSERT_INT(entry->bytes, 2);
    ASSERT_INT(gr_safetensors_find(&file, "f")->ndim, 0);
    ASSERT_INT(gr_safetensors_find(&file, "e")->bytes, 0);
    ASSERT(gr_safetensors_find(&file, "g") == NULL);
    ASSERT(metadata_of(&file, "format") == NULL);
    gr_safetensors_close(&file);
}

/* An empty tensor may stand where another begins or ends. */
TEST(safetensors_empty_tensors_fill_no_room)
{
    struct gr_safetensors file;

    gr_test_enter_folder();
    gr_test_write_safetensors("x.safetensors",
                              "{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                              "\"c\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]},"
                              "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                              NULL, 4);
    ASSERT_OK(gr_safetensors_open(&file, "x.safetensors"));
    ASSERT_INT(file.count, 3);
    check_consistent(&file);
    gr_safetensors_close(&file);
    gr_test_write_safetensors("x.safetensors", "{}", NULL, 0);
    ASSERT_OK(gr_safetensors_open(&file, "x.safetensors"));
    ASSERT_INT(file.count, 0);
    ASSERT(gr_safetensors_find(&file, "a") == NULL);
    gr_safetensors_close(&file);
}

/* One of each dtype of ours, names that need escapes, an empty tensor and a scalar. */
static const double numbers[4] = {1.5, -2.25, 3e100, 0};
static const struct gr_safetensors_item mixed_items[] = {
    {.name = "a.bytes", .dtype = GR_U8, .ndim = 1, .dim = {5}, .data = numbers},
    {.name = "scalar", .dtype = GR_F32, .ndim = 0, .data = numbers},
    {.name = "b", .dtype = GR_BF16, .ndim = 3, .dim = {1, 2, 3}, .data = numbers},
    {.name = "a\"\\\x01\xc3\xbc", .dtype = GR_F32, .ndim = 2, .dim = {2, 2}, .data = numbers},
    {.name = "empty", .dtype = GR_F16, .ndim = 2, .dim = {0, 3}, .data = numbers},
    {.name = "f64", .dtype = GR_F64, .ndim = 1, .dim = {4}, .data = numbers},
    {.name = "i32", .dtype = GR_I32, .ndim = 1, .dim = {3}, .data = numbers},
    {.name = "i64", .dtype = GR_I64, .ndim = 1, .dim = {2}, .data = numbers},
};
static const char *const mixed_metadata[] = {"step", "17", "who", "\"me\"", NULL};

TEST(safetensors_written_file_reads_back)
{
    struct gr_buffer bytes = {0};
    struct gr_safetensors file;
    uint64_t header_bytes = 0;

    gr_test_enter_folder();
    gr_buffer_add_text(&bytes, "what was there before");
    gr_safetensors_write(&bytes, mixed_items, GR_COUNT(mixed_items), mixed_metadata);
    memcpy(&header_bytes, bytes.data, sizeof header_bytes);
    ASSERT_INT(header_bytes % 8, 0);
    gr_test_write_file("x.safetensors", bytes.data, bytes.length);
    ASSERT_OK(gr_safetensors_open(&file, "x.safetensors"));
    ASSERT_INT(file.count, GR_COUNT(mixed_items));
    check_consistent(&file);
    for (int64_t i = 0; i < GR_COUNT(mixed_items); i++) {
        const struct gr_safetensors_item *item = &mixed_items[i];
        const struct gr_safetensors_entry *entry = gr_safetensors_find(&file, item->name);

        ASSERT_MSG(entry != NULL, "%s is missing", item->name);
        ASSERT_INT(entry->dtype, item->dtype);
        ASSERT_INT(entry->ndim, item->ndim);
        for (int k = 0; k < item->ndim; k++)
            ASSERT_INT(entry->dim[k], item->dim[k]);
        ASSERT(memcmp(gr_safetensors_data(&file, entry), item->data, (size_t)entry->bytes) == 0);
    }
    ASSERT_TEXT(metadata_of(&file, "format"), "pt");
    ASSERT_TEXT(metadata_of(&file, "who"), "\"me\"");
    gr_safetensors_close(&file);
    gr_buffer_release(&bytes);
}

/* The reference reads our file, and writes the same tensors back to the same bytes. */
TEST(safetensors_written_file_equals_the_references)
{
    struct gr_buffer bytes = {0};
    struct gr_safetensors file;

    gr_test_need_python();
    gr_test_enter_folder();
    gr_safetensors_write(&bytes, mixed_items, GR_COUNT(mixed_items), NULL);
    gr_test_write_file("ours.safetensors", bytes.data, bytes.length);
    gr_buffer_release(&bytes);
    gr_test_run_python("from safetensors.torch import load_file, save_file\n"
                       "import torch\n"
                       "t = load_file('ours.safetensors')\n"
                       "assert t['f64'].tolist() == [1.5, -2.25, 3e100, 0], t['f64']\n"
                       "assert t['b'].shape == (1, 2, 3) and t['b'].dtype == torch.bfloat16\n"
                       "assert t['a\"\\\\\\x01ü'].shape == (2, 2)\n"
                       "save_file(t, 'theirs.safetensors', metadata={'format': 'pt'})\n"
                       "assert open('ours.safetensors', 'rb').read() == "
                       "open('theirs.safetensors', 'rb').read()\n");
    ASSERT_OK(gr_safetensors_open(&file, "theirs.safetensors"));
    ASSERT_INT(file.count, GR_COUNT(mixed_items));
    gr_safetensors_close(&file);
}
