/* Reading safetensors files, as hostile input, and writing them.  See safetensors.h. */
#include "data/safetensors.h"

#include "kernels/base/alloc.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the format is little-endian, and mapped");

enum {
    LENGTH_BYTES = 8, /* the number before the header; also what the header is padded to */
    MAX_HEADER_BYTES = 100000000,
    MAX_NDIM = sizeof((struct gr_safetensors_entry *)NULL)->dim / sizeof(int64_t),
};

#define METADATA_KEY "__metadata__"
#define HINT_AGAIN   "download or export the file again"

/* Every dtype of the format in the order of the reference writer: larger alignment first.
 * Columns: name, bits per element, our dtype. */
static const struct file_dtype {
    const char *name;
    int bits;
    enum gr_dtype dtype;
} file_dtypes[] = {
    {"U64", 64, GR_DTYPE_COUNT},
    {"I64", 64, GR_I64},
    {"F64", 64, GR_F64},
    {"C64", 64, GR_DTYPE_COUNT},
    {"F32", 32, GR_F32},
    {"U32", 32, GR_DTYPE_COUNT},
    {"I32", 32, GR_I32},
    {"BF16", 16, GR_BF16},
    {"F16", 16, GR_F16},
    {"U16", 16, GR_DTYPE_COUNT},
    {"I16", 16, GR_DTYPE_COUNT},
    {"F8_E5M2FNUZ", 8, GR_DTYPE_COUNT},
    {"F8_E4M3FNUZ", 8, GR_DTYPE_COUNT},
    {"F8_E8M0", 8, GR_DTYPE_COUNT},
    {"F8_E4M3", 8, GR_DTYPE_COUNT},
    {"F8_E5M2", 8, GR_DTYPE_COUNT},
    {"I8", 8, GR_DTYPE_COUNT},
    {"U8", 8, GR_U8},
    {"F6_E3M2", 6, GR_DTYPE_COUNT},
    {"F6_E2M3", 6, GR_DTYPE_COUNT},
    {"F4", 4, GR_DTYPE_COUNT},
    {"BOOL", 8, GR_DTYPE_COUNT},
};

static const struct file_dtype *file_dtype_named(const char *name)
{
    for (int64_t i = 0; i < GR_COUNT(file_dtypes); i++) {
        if (strcmp(file_dtypes[i].name, name) == 0)
            return &file_dtypes[i];
    }
    return NULL;
}

/* ---- reading ---------------------------------------------------------------------------- */

/* Finds the JSON text: *text, *text_bytes.  The data starts right behind it. */
static gr_status find_header(const struct gr_safetensors *file, const char **text,
                             int64_t *text_bytes)
{
    int64_t file_bytes = file->map.identity.bytes;
    uint64_t length = 0;

    if (file_bytes < LENGTH_BYTES)
        return gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
                       "too short for a safetensors file (found %" PRId64
                       " bytes, expected at least %d)",
                       file_bytes, LENGTH_BYTES);
    memcpy(&length, file->map.data, sizeof length);
    if (length > MAX_HEADER_BYTES)
        return gr_fail(GR_ERR_DATA, file->path, "check that this is a safetensors file",
                       "the header is too long (found %" PRIu64 " bytes, expected at most %d)",
                       length, MAX_HEADER_BYTES);
    if ((int64_t)length > file_bytes - LENGTH_BYTES)
        return gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
                       "the file ends inside its header (found %" PRId64
                       " bytes, expected at least %" PRIu64 ")",
                       file_bytes, length + LENGTH_BYTES);
    *text = (const char *)file->map.data + LENGTH_BYTES;
    *text_bytes = (int64_t)length;
    if (length == 0)
        return gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
                       "the header is empty (found 0 bytes, expected at least 2)");
    if ((*text)[0] != '{')
        return gr_fail(GR_ERR_DATA, file->path, "check that this is a safetensors file",
                       "the header is no JSON object (found byte 0x%02x, expected '{')",
                       (unsigned)(unsigned char)(*text)[0]);
    return GR_OK;
}

/* Refuses a JSON value (NULL: it is missing) at `key` of a tensor. */
static gr_status refuse(const struct gr_safetensors *file, const char *name, const char *key,
                        const json_t *value, const char *expected)
{
    char *found = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

    gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
            "tensor \"%.200s\": bad %s (found %.60s, expected %s)", name, key,
            found == NULL ? "nothing" : found, expected);
    free(found); /* jansson's */
    return GR_ERR_DATA;
}

/* A list of integers >= 0 at `key` of a tensor. */
static gr_status read_sizes(const struct gr_safetensors *file, const char *name,
                            const json_t *tensor, const char *key, int64_t *size, int *count)
{
    const json_t *list = json_object_get(tensor, key);

    if (!json_is_array(list))
        return refuse(file, name, key, list, "a list of integers");
    if (json_array_size(list) > MAX_NDIM)
        return refuse(file, name, key, list, "at most 8 numbers");
    *count = (int)json_array_size(list);
    for (int i = 0; i < *count; i++) {
        const json_t *number = json_array_get(list, (size_t)i);

        if (!json_is_integer(number) || json_integer_value(number) < 0)
            return refuse(file, name, key, number, "an integer >= 0");
        size[i] = json_integer_value(number);
    }
    return GR_OK;
}

/* The bytes of a shape; false when they do not fit an int64_t or end inside a byte. */
static bool shape_bytes(int64_t *bytes, const struct gr_safetensors_entry *e, int bits)
{
    int64_t total = bits;

    for (int i = 0; i < e->ndim; i++) {
        if (__builtin_mul_overflow(total, e->dim[i], &total))
            return false;
    }
    *bytes = total / 8;
    return total % 8 == 0;
}

/* One tensor of the header.  entry->offset still counts from the start of the data. */
static gr_status read_tensor(const struct gr_safetensors *file, struct gr_safetensors_entry *entry,
                             const char *name, const json_t *tensor)
{
    gr_status status = GR_OK;
    const struct file_dtype *dtype = NULL;
    const json_t *dtype_name = json_object_get(tensor, "dtype");
    int64_t range[MAX_NDIM] = {0};
    int64_t bytes = 0;
    int range_count = 0;

    entry->name = name;
    if (!json_is_object(tensor))
        return refuse(file, name, "description", tensor, "an object");
    if (json_is_string(dtype_name))
        dtype = file_dtype_named(json_string_value(dtype_name));
    if (dtype == NULL)
        return refuse(file, name, "dtype", dtype_name, "F32, BF16, F16 or another of the format");
    entry->dtype_name = dtype->name;
    entry->dtype = dtype->dtype;
    GR_TRY(read_sizes(file, name, tensor, "shape", entry->dim, &entry->ndim));
    GR_TRY(read_sizes(file, name, tensor, "data_offsets", range, &range_count));
    if (range_count != 2 || range[0] > range[1])
        return refuse(file, name, "data_offsets", json_object_get(tensor, "data_offsets"),
                      "[begin, end], begin <= end");
    if (!shape_bytes(&bytes, entry, dtype->bits))
        return refuse(file, name, "shape", json_object_get(tensor, "shape"),
                      "whole bytes, fewer than 2^60");
    entry->offset = range[0];
    entry->bytes = range[1] - range[0];
    if (entry->bytes != bytes)
        status =
            gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
                    "tensor \"%.200s\": data_offsets do not fit shape and dtype (found %" PRId64
                    " bytes, expected %" PRId64 ")",
                    name, entry->bytes, bytes);
out:
    return status;
}

/* Metadata is text by text, or the file is refused. */
static gr_status check_metadata(const struct gr_safetensors *file, json_t *metadata)
{
    const char *key = NULL;
    json_t *value = NULL;

    if (!json_is_object(metadata))
        return gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN, METADATA_KEY " is no JSON object");
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
                           METADATA_KEY " \"%.200s\" is no string", key);
    }
    return GR_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct gr_safetensors_entry *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors first */
}

static int by_name(const void *a, const void *b)
{
    const struct gr_safetensors_entry *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* The tensors must follow each other from the first byte of the data to the last of the file. */
static gr_status check_layout(const struct gr_safetensors *file, int64_t data_begin)
{
    int64_t end = 0, expected_bytes = 0;

    for (int64_t i = 0; i < file->count; i++) {
        const struct gr_safetensors_entry *entry = &file->entry[i];

        if (entry->offset != end)
            return gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
                           "tensor \"%.200s\": %s (found offset %" PRId64 ", expected %" PRId64 ")",
                           entry->name,
                           entry->offset < end ? "its bytes overlap those of another"
                                               : "there is a hole before its bytes",
                           entry->offset, end);
        end += entry->bytes; /* <= the end in data_offsets: no overflow */
    }
    if (__builtin_add_overflow(data_begin, end, &expected_bytes))
        expected_bytes = INT64_MAX;
    if (file->map.identity.bytes != expected_bytes)
        return gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
                       "the file %s (found %" PRId64 " bytes, expected %" PRId64 ")",
                       file->map.identity.bytes < expected_bytes ? "is cut short"
                                                                 : "goes on behind its last tensor",
                       file->map.identity.bytes, expected_bytes);
    return GR_OK;
}

static gr_status read_header(struct gr_safetensors *file)
{
    gr_status status = GR_OK;
    const char *text = NULL, *name = NULL;
    int64_t text_bytes = 0;
    json_error_t where;
    json_t *value = NULL;

    GR_TRY(find_header(file, &text, &text_bytes));
    file->json = json_loadb(text, (size_t)text_bytes, JSON_REJECT_DUPLICATES, &where);
    if (file->json == NULL) {
        status = gr_fail(GR_ERR_DATA, file->path, HINT_AGAIN,
                         "the header is no valid JSON (byte %d: %s)", where.position, where.text);
        goto out;
    }
    file->entry = GR_NEW_ARRAY(struct gr_safetensors_entry, (int64_t)json_object_size(file->json));
    json_object_foreach(file->json, name, value)
    {
        if (strcmp(name, METADATA_KEY) == 0)
            GR_TRY(check_metadata(file, value));
        else
            GR_TRY(read_tensor(file, &file->entry[file->count++], name, value));
    }
    qsort(file->entry, (size_t)file->count, sizeof *file->entry, by_offset);
    GR_TRY(check_layout(file, LENGTH_BYTES + text_bytes));
    for (int64_t i = 0; i < file->count; i++)
        file->entry[i].offset += LENGTH_BYTES + text_bytes;
    qsort(file->entry, (size_t)file->count, sizeof *file->entry, by_name);
out:
    return status;
}

gr_status gr_safetensors_open(struct gr_safetensors *file, const char *path)
{
    gr_status status = GR_OK;

    memset(file, 0, sizeof *file);
    file->path = gr_strdup(path);
    GR_TRY(gr_file_map_open(&file->map, path));
    GR_TRY(read_header(file));
out:
    if (status != GR_OK)
        gr_safetensors_close(file);
    return status;
}

gr_status gr_safetensors_parse(struct gr_safetensors *file, const void *bytes, int64_t count,
                               const char *place)
{
    gr_status status = GR_OK;

    memset(file, 0, sizeof *file);
    file->path = gr_strdup(place);
    file->is_borrowed = true;
    file->map.data = bytes;
    file->map.identity.bytes = count;
    GR_TRY(read_header(file));
out:
    if (status != GR_OK)
        gr_safetensors_close(file);
    return status;
}

void gr_safetensors_close(struct gr_safetensors *file)
{
    if (!file->is_borrowed)
        gr_file_map_close(&file->map);
    json_decref(file->json);
    gr_free(file->entry);
    gr_free(file->path);
    memset(file, 0, sizeof *file);
}

const struct gr_safetensors_entry *gr_safetensors_find(const struct gr_safetensors *file,
                                                       const char *name)
{
    struct gr_safetensors_entry key = {.name = name};

    return bsearch(&key, file->entry, (size_t)file->count, sizeof *file->entry, by_name);
}

const void *gr_safetensors_data(const struct gr_safetensors *file,
                                const struct gr_safetensors_entry *entry)
{
    return file->map.data + entry->offset;
}

/* ---- writing ---------------------------------------------------------------------------- */

int64_t gr_safetensors_item_bytes(const struct gr_safetensors_item *item)
{
    int64_t bytes = gr_dtype_bytes(item->dtype);

    for (int i = 0; i < item->ndim; i++)
        bytes = gr_mul(bytes, item->dim[i]);
    return bytes;
}

static int64_t dtype_place(enum gr_dtype dtype)
{
    return file_dtype_named(gr_dtype_name(dtype)) - file_dtypes;
}

/* Order in the file: by dtype, then by name. */
static int by_file_order(const struct gr_safetensors_item *a, const struct gr_safetensors_item *b)
{
    int64_t place_a = dtype_place(a->dtype), place_b = dtype_place(b->dtype);

    if (place_a != place_b)
        return place_a < place_b ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Searching each time needs no memory: files are written in the middle of training. */
const struct gr_safetensors_item *gr_safetensors_next(const struct gr_safetensors_item *item,
                                                      int64_t count,
                                                      const struct gr_safetensors_item *previous)
{
    const struct gr_safetensors_item *next = NULL;

    for (int64_t i = 0; i < count; i++) {
        if (previous != NULL && by_file_order(&item[i], previous) <= 0)
            continue;
        if (next == NULL || by_file_order(&item[i], next) < 0)
            next = &item[i];
    }
    return next;
}

static void add_json_string(struct gr_buffer *bytes, const char *text)
{
    gr_buffer_add_text(bytes, "\"");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            gr_buffer_add_format(bytes, "\\%c", *c);
        else if ((unsigned char)*c < ' ')
            gr_buffer_add_format(bytes, "\\u%04x", (unsigned)*c);
        else
            gr_buffer_add(bytes, c, 1);
    }
    gr_buffer_add_text(bytes, "\"");
}

static void add_header_item(struct gr_buffer *bytes, const struct gr_safetensors_item *item,
                            int64_t begin)
{
    gr_buffer_add_text(bytes, ",");
    add_json_string(bytes, item->name);
    gr_buffer_add_format(bytes, ":{\"dtype\":\"%s\",\"shape\":[", gr_dtype_name(item->dtype));
    for (int i = 0; i < item->ndim; i++)
        gr_buffer_add_format(bytes, "%s%" PRId64, i == 0 ? "" : ",", item->dim[i]);
    gr_buffer_add_format(bytes, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", begin,
                         begin + gr_safetensors_item_bytes(item));
}

void gr_safetensors_write_header(struct gr_buffer *bytes, const struct gr_safetensors_item *item,
                                 int64_t count, const char *const *metadata)
{
    const struct gr_safetensors_item *next = NULL;
    int64_t data_bytes = 0, written = 0;
    uint64_t header_bytes = 0;

    gr_buffer_clear(bytes);
    gr_buffer_add(bytes, &header_bytes, sizeof header_bytes); /* filled in below */
    gr_buffer_add_text(bytes, "{\"" METADATA_KEY "\":{\"format\":\"pt\"");
    for (const char *const *pair = metadata; pair != NULL && pair[0] != NULL; pair += 2) {
        gr_buffer_add_text(bytes, ",");
        add_json_string(bytes, pair[0]);
        gr_buffer_add_text(bytes, ":");
        add_json_string(bytes, pair[1]);
    }
    gr_buffer_add_text(bytes, "}");
    while ((next = gr_safetensors_next(item, count, next)) != NULL) {
        add_header_item(bytes, next, data_bytes);
        data_bytes += gr_safetensors_item_bytes(next);
        written++;
    }
    GR_CHECK(written == count, "two tensors to write have one name");
    gr_buffer_add_text(bytes, "}");
    while (bytes->length % LENGTH_BYTES != 0)
        gr_buffer_add_text(bytes, " ");
    header_bytes = bytes->length - LENGTH_BYTES;
    memcpy(bytes->data, &header_bytes, sizeof header_bytes);
}

void gr_safetensors_write(struct gr_buffer *bytes, const struct gr_safetensors_item *item,
                          int64_t count, const char *const *metadata)
{
    const struct gr_safetensors_item *next = NULL;
    int64_t data_bytes = 0;

    gr_safetensors_write_header(bytes, item, count, metadata);
    for (int64_t i = 0; i < count; i++)
        data_bytes += gr_safetensors_item_bytes(&item[i]);
    gr_buffer_reserve(bytes, bytes->length + (size_t)data_bytes);
    while ((next = gr_safetensors_next(item, count, next)) != NULL)
        gr_buffer_add(bytes, next->data, (size_t)gr_safetensors_item_bytes(next));
}
