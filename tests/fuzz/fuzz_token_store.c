/* An HDF5 file that HDF5 can read, of any datasets and contents, with the hash of its bytes:
 * refused, or its documents cover its tokens.  The file is written by HDF5, as the description in
 * the input says: headers that are hostile to HDF5 itself are not made for it (README), and not
 * tried here. Parts: tokens, labels, documents, about.  The first line is "TYPE LAYOUT SHAPE",
 * words of the tables below; then tokens: a byte each; labels: a digit each; documents: lines
 * "offset length source weight"; about: the text. */
#include "data/hash.h"
#include "data/token_layout.h"
#include "data/token_store.h"
#include "kernels/base/alloc.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { WORD_BYTES = 16, DOCUMENTS = 64 };

static const char *const columns[] = {GR_TOKEN_TOKENS, GR_TOKEN_LABELS, GR_TOKEN_DOCUMENTS,
                                      GR_TOKEN_ABOUT};

struct dataset {
    const char *name;
    char type[WORD_BYTES], layout[WORD_BYTES], shape[WORD_BYTES];
    struct fuzz_part content;
    struct gr_buffer elements; /* the content in memory, of the type that the layout has */
    hsize_t count;
};

/* ---- the description ---------------------------------------------------------------------- */

static void read_description(struct dataset *d, const char *name, const struct fuzz_part *part)
{
    const char *line_end = memchr(part->bytes, '\n', part->count);
    size_t line = line_end == NULL ? part->count : (size_t)(line_end - part->bytes);
    char *words = gr_strndup(part->bytes, line);

    memset(d, 0, sizeof *d);
    d->name = name;
    sscanf(words, "%15s %15s %15s", d->type, d->layout, d->shape);
    d->content.bytes = part->bytes + line + (line_end != NULL);
    d->content.count = part->count - line - (line_end != NULL);
    gr_free(words);
}

static void add_documents(struct dataset *d)
{
    char *text = gr_strndup(d->content.bytes, d->content.count), *rest = NULL;

    for (char *line = strtok_r(text, "\n", &rest); line != NULL && d->count < DOCUMENTS;
         line = strtok_r(NULL, "\n", &rest)) {
        struct gr_document one = {0};
        long long offset = 0;

        sscanf(line, "%18lld %9d %9d %f", &offset, &one.length, &one.source, &one.weight);
        one.offset = offset;
        gr_buffer_add(&d->elements, &one, sizeof one);
        d->count++;
    }
    gr_free(text);
}

static void read_elements(struct dataset *d)
{
    gr_buffer_add(&d->elements, "", 0);
    if (strcmp(d->name, GR_TOKEN_DOCUMENTS) == 0) {
        add_documents(d);
        return;
    }
    for (size_t i = 0; i < d->content.count; i++) {
        uint32_t token = (uint8_t)d->content.bytes[i];
        uint8_t label = (uint8_t)(d->content.bytes[i] - '0');

        if (strcmp(d->name, GR_TOKEN_TOKENS) == 0)
            gr_buffer_add(&d->elements, &token, sizeof token);
        else
            gr_buffer_add(&d->elements, &label, sizeof label);
        d->count++;
    }
    if (strcmp(d->name, GR_TOKEN_ABOUT) == 0) {
        gr_buffer_clear(&d->elements);
        gr_buffer_add(&d->elements, d->content.bytes, d->content.count);
    }
}

/* ---- the file ----------------------------------------------------------------------------- */

static hid_t text_type(size_t bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);

    H5Tset_size(type, bytes);
    return type;
}

static hid_t make_type(const struct dataset *d)
{
    const char *word = d->type;

    if (strcmp(word, "documents") == 0)
        return gr_token_document_type(false);
    if (strcmp(word, "in_memory") == 0)
        return gr_token_document_type(true);
    if (strcmp(word, "text") == 0)
        return text_type(d->content.count > 0 ? d->content.count : 1);
    if (strcmp(word, "variable") == 0)
        return text_type(H5T_VARIABLE);
    if (strcmp(word, "u8") == 0)
        return H5Tcopy(H5T_STD_U8LE);
    if (strcmp(word, "u64") == 0)
        return H5Tcopy(H5T_STD_U64LE);
    if (strcmp(word, "big_endian") == 0)
        return H5Tcopy(H5T_STD_U32BE);
    if (strcmp(word, "real") == 0)
        return H5Tcopy(H5T_IEEE_F32LE);
    return H5Tcopy(H5T_STD_U32LE);
}

static hid_t make_space(const struct dataset *d)
{
    const hsize_t two[] = {d->count, 1}, huge = 1ULL << 60;
    const hsize_t most[] = {H5S_UNLIMITED, H5S_UNLIMITED}; /* of chunked ones */
    bool grows = strcmp(d->layout, "chunked") == 0 || strcmp(d->layout, "deflated") == 0;

    if (strcmp(d->shape, "scalar") == 0)
        return H5Screate(H5S_SCALAR);
    if (strcmp(d->shape, "null") == 0)
        return H5Screate(H5S_NULL);
    if (strcmp(d->shape, "two") == 0)
        return H5Screate_simple(2, two, grows ? most : NULL);
    return H5Screate_simple(1, strcmp(d->shape, "huge") == 0 ? &huge : &d->count,
                            grows ? most : NULL);
}

static hid_t make_options(const struct dataset *d)
{
    const hsize_t chunk[] = {16, 1};
    hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    int rank = strcmp(d->shape, "two") == 0 ? 2 : 1;

    if (strcmp(d->layout, "compact") == 0)
        H5Pset_layout(options, H5D_COMPACT);
    if (strcmp(d->layout, "chunked") == 0 || strcmp(d->layout, "deflated") == 0)
        H5Pset_chunk(options, rank, chunk);
    if (strcmp(d->layout, "deflated") == 0)
        H5Pset_deflate(options, 1);
    if (strcmp(d->layout, "external") == 0) {
        char *path = gr_format("%s/elsewhere", fuzz_folder());

        H5Pset_external(options, path, 0, H5F_UNLIMITED);
        gr_free(path);
    }
    return options;
}

/* What a dataset of graft's own type takes; others keep their fill value. */
static void write_elements(const struct dataset *d, hid_t set, hid_t type, hid_t space)
{
    bool is_text = strcmp(d->name, GR_TOKEN_ABOUT) == 0;
    hid_t memory = is_text                                    ? H5Tcopy(type)
                   : strcmp(d->name, GR_TOKEN_DOCUMENTS) == 0 ? gr_token_document_type(true)
                   : strcmp(d->name, GR_TOKEN_LABELS) == 0    ? H5Tcopy(H5T_NATIVE_UINT8)
                                                              : H5Tcopy(H5T_NATIVE_UINT32);
    hssize_t points = H5Sget_simple_extent_npoints(space);
    size_t bytes = points < 0 ? 0 : (size_t)points * H5Tget_size(memory);

    if (H5Tis_variable_str(type) <= 0 && bytes > 0 && bytes <= d->elements.length)
        H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, d->elements.data);
    H5Tclose(memory);
}

static void write_dataset(hid_t file, const struct dataset *d)
{
    hid_t type, space, options, set;

    if (strcmp(d->layout, "group") == 0) {
        H5Gclose(H5Gcreate2(file, d->name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        return;
    }
    if (strcmp(d->layout, "link") == 0) {
        H5Lcreate_soft("/tokens", file, d->name, H5P_DEFAULT, H5P_DEFAULT);
        return;
    }
    type = make_type(d);
    space = make_space(d);
    options = make_options(d);
    set = H5Dcreate2(file, d->name, type, space, H5P_DEFAULT, options, H5P_DEFAULT);
    if (set >= 0) {
        write_elements(d, set, type, space);
        H5Dclose(set);
    }
    H5Pclose(options);
    H5Sclose(space);
    H5Tclose(type);
}

static void write_file(const char *path, const struct fuzz_part *part, int count)
{
    hid_t access = gr_hdf5_access(), file;

    H5Pset_fapl_core(access, 1 << 16, true);
    file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    FUZZ_ASSERT(file >= 0);
    for (int i = 0; i < GR_COUNT(columns); i++) {
        const struct fuzz_part *found = fuzz_find(part, count, columns[i]);
        struct dataset d;

        if (found == NULL)
            continue;
        read_description(&d, columns[i], found);
        read_elements(&d);
        write_dataset(file, &d);
        gr_buffer_release(&d.elements);
    }
    FUZZ_ASSERT(H5Fclose(file) >= 0);
    H5Pclose(access);
}

/* ---- reading it --------------------------------------------------------------------------- */

static void check_documents(const struct gr_documents *d, const struct gr_sources *sources)
{
    int64_t at = 0, supervised = 0;

    for (int64_t i = 0; i < d->count; i++) {
        FUZZ_ASSERT(d->document[i].offset == at && d->document[i].length >= 1);
        FUZZ_ASSERT(d->document[i].source >= 0 && d->document[i].source < sources->count);
        FUZZ_ASSERT(d->labels[at] == 0);
        at += d->document[i].length;
        FUZZ_ASSERT(at <= d->token_count);
    }
    FUZZ_ASSERT(at == d->token_count);
    for (int64_t t = 0; t < at; t++) {
        FUZZ_ASSERT(d->labels[t] <= 1);
        supervised += d->labels[t];
    }
    FUZZ_ASSERT(supervised == d->supervised_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part[FUZZ_PARTS];
    int count = fuzz_split(part, data, size);
    char *path = gr_format("%s/store.h5", fuzz_folder());
    char hex[GR_SHA256_HEX_BYTES];
    struct gr_documents documents = {0};
    struct gr_sources sources = {0};

    gr_hdf5_begin();
    write_file(path, part, count);
    FUZZ_ASSERT(gr_sha256_file(hex, path) == GR_OK);
    for (int time = 0; time < 3; time++) { /* without documents, then behind those there are */
        json_t *settings = NULL;

        fuzz_end(gr_token_file_read(time == 0 ? NULL : &documents, &sources, &settings, path, hex));
        check_documents(&documents, &sources);
        json_decref(settings);
    }
    gr_documents_release(&documents);
    gr_sources_release(&sources);
    gr_free(path);
    return 0;
}
