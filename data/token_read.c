/* Reading a token store.  See token_store.h.
 * The hash is checked first, so HDF5 sees what its writer wrote; whether that writer knew the
 * layout is checked here, before memory is taken for what a header claims. */
#include "data/token_layout.h"
#include "data/token_store.h"
#include "kernels/base/alloc.h"

#include <string.h>

#define HINT_LAYOUT                                                                                \
    "a token store has /tokens (u32), /labels (u8) and /documents {offset i64, length i32, "       \
    "source i32, weight f32}, uncompressed; graft data prepare makes one"

/* A dataset that was looked at.  Zeroed: none. */
struct column {
    hid_t set;
    int64_t count;
};

static gr_status refuse(const char *path, const char *name, const char *found, const char *expected)
{
    return gr_fail(GR_ERR_DATA, path, HINT_LAYOUT,
                   "/%s is not that of a token store (found %s, expected %s)", name, found,
                   expected);
}

static void close_column(struct column *column)
{
    if (column->set > 0)
        H5Dclose(column->set);
    column->set = 0;
}

/* Stored in this file, in one of the plain layouts, as many bytes as it claims. */
static const char *check_storage(hid_t set, int64_t count, size_t bytes)
{
    hid_t options = H5Dget_create_plist(set);
    H5D_layout_t layout = H5Pget_layout(options);
    const char *wrong = NULL;

    if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED)
        wrong = "a virtual dataset";
    else if (H5Pget_external_count(options) != 0)
        wrong = "elements in another file";
    else if (H5Pget_nfilters(options) != 0)
        wrong = "compressed elements";
    else if ((double)H5Dget_storage_size(set) < (double)count * (double)bytes)
        wrong = "fewer elements than it claims";
    H5Pclose(options);
    return wrong;
}

/* Opens /name, which must be a list of `type`. */
static gr_status open_column(struct column *column, hid_t file, const char *path, const char *name,
                             hid_t type)
{
    gr_status status = GR_OK;
    H5L_info_t link;
    hid_t space = -1, found = -1;
    hsize_t count = 0;
    const char *wrong = NULL;

    if (H5Lexists(file, name, H5P_DEFAULT) <= 0)
        return refuse(path, name, "nothing", "a dataset");
    if (H5Lget_info(file, name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
        return refuse(path, name, "a link", "a dataset");
    column->set = H5Dopen2(file, name, H5P_DEFAULT);
    if (column->set < 0)
        return refuse(path, name, "something HDF5 does not open", "a dataset");
    space = H5Dget_space(column->set);
    found = H5Dget_type(column->set);
    if (H5Sget_simple_extent_ndims(space) != 1 ||
        H5Sget_simple_extent_dims(space, &count, NULL) != 1 || count > INT64_MAX / 64)
        status = refuse(path, name, "another shape", "one dimension");
    else if (H5Tequal(found, type) <= 0)
        status = refuse(path, name, "elements of another type", "those of the layout");
    if (status == GR_OK) {
        column->count = (int64_t)count;
        wrong = check_storage(column->set, column->count, H5Tget_size(type));
    }
    if (wrong != NULL)
        status = refuse(path, name, wrong, "plain elements");
    if (found >= 0)
        H5Tclose(found);
    if (space >= 0)
        H5Sclose(space);
    return status;
}

static gr_status read_column(void *elements, const struct column *column, hid_t type,
                             const char *path, const char *name)
{
    if (column->count > 0 &&
        H5Dread(column->set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, elements) < 0)
        return refuse(path, name, "elements HDF5 cannot read", "whole ones");
    return GR_OK;
}

/* *text <- the bytes of /about; NULL if there is none. */
static gr_status read_about_text(char **text, size_t *length, hid_t file, const char *path)
{
    enum { MOST_BYTES = 64 << 20 };
    gr_status status = GR_OK;
    hid_t set = -1, type = -1, space = -1;
    H5L_info_t link;
    const char *wrong = "something else";

    *text = NULL;
    if (H5Lexists(file, GR_TOKEN_ABOUT, H5P_DEFAULT) <= 0)
        return GR_OK;
    if (H5Lget_info(file, GR_TOKEN_ABOUT, &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD)
        set = H5Dopen2(file, GR_TOKEN_ABOUT, H5P_DEFAULT);
    if (set >= 0) {
        type = H5Dget_type(set);
        space = H5Dget_space(set);
        *length = H5Tget_size(type);
        if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
            H5Sget_simple_extent_type(space) == H5S_SCALAR && *length <= MOST_BYTES)
            wrong = check_storage(set, 1, *length);
    }
    if (wrong == NULL) {
        *text = gr_alloc((int64_t)*length + 1, 1);
        if (H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *text) < 0)
            wrong = "text HDF5 cannot read";
    }
    if (wrong != NULL)
        status = refuse(path, GR_TOKEN_ABOUT, wrong, "a text");
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (set >= 0)
        H5Dclose(set);
    return status;
}

/* Settings and sources, if the file says them. */
static gr_status read_about(json_t **settings, struct gr_sources *sources, hid_t file,
                            const char *path)
{
    gr_status status = GR_OK;
    char *text = NULL;
    size_t length = 0;
    json_t *about = NULL, *version;

    GR_TRY(read_about_text(&text, &length, file, path));
    if (text == NULL)
        goto out;
    about = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    version = json_object_get(about, "version");
    if (!json_is_integer(version) || json_integer_value(version) != GR_TOKEN_VERSION) {
        status = gr_fail(GR_ERR_DATA, path, "prepare it again: graft data prepare",
                         "a token store of another version (found %lld, expected %d)",
                         (long long)json_integer_value(version), GR_TOKEN_VERSION);
        goto out;
    }
    *settings = json_incref(json_object_get(about, "settings"));
    if (!json_is_object(*settings))
        GR_TRY(refuse(path, GR_TOKEN_ABOUT, "no settings", "an object"));
    GR_TRY(gr_sources_from_json(sources, json_object_get(about, "sources"), path));
out:
    json_decref(about);
    gr_free(text);
    return status;
}

/* Documents lie one behind the other and cover all tokens; only then they count. */
static gr_status take_documents(struct gr_documents *d, int64_t count, int64_t tokens,
                                const struct gr_sources *sources, int32_t first_source,
                                const char *path)
{
    struct gr_document *document = d->document + d->count;
    uint8_t *labels = d->labels + d->token_count;
    int64_t at = 0, supervised = 0;

    for (int64_t i = 0; i < count; i++) {
        struct gr_document *one = &document[i];
        bool good = one->offset == at && one->length >= 1 && one->length <= tokens - at &&
                    one->source >= 0 && one->source < sources->count && one->weight == 1.0f;

        if (!good)
            return gr_fail(GR_ERR_DATA, path, HINT_LAYOUT,
                           "/documents[%lld] does not fit (found offset %lld, length %d, source "
                           "%d, weight %g; expected offset %lld, at least one and at most %lld "
                           "tokens, a source of %lld, weight 1)",
                           (long long)i, (long long)one->offset, one->length, one->source,
                           (double)one->weight, (long long)at, (long long)(tokens - at),
                           (long long)sources->count);
        labels[at] = 0; /* a document's first token is never a target */
        one->offset += d->token_count;
        one->source += first_source;
        at += one->length;
    }
    if (at != tokens)
        return gr_fail(GR_ERR_DATA, path, HINT_LAYOUT,
                       "/documents cover a part of /tokens (found %lld tokens, expected %lld)",
                       (long long)at, (long long)tokens);
    for (int64_t t = 0; t < tokens; t++) {
        if (labels[t] > 1)
            return refuse(path, GR_TOKEN_LABELS, "a label above 1", "0 and 1");
        supervised += labels[t];
    }
    d->count += count;
    d->token_count += tokens;
    d->supervised_count += supervised;
    return GR_OK;
}

/* A file that does not say where it comes from is its own source. */
static void add_own_source(struct gr_sources *sources, const char *path, const char *hex)
{
    struct gr_source *own = gr_sources_add(sources, path);

    gr_source_set(&own->sha256, hex);
    gr_source_set(&own->format, "tokens");
}

static void count_own_source(struct gr_source *own, const struct gr_documents *before,
                             const struct gr_documents *after)
{
    own->records = own->documents = after->count - before->count;
    own->tokens = after->token_count - before->token_count;
    own->supervised = after->supervised_count - before->supervised_count;
}

static gr_status read_columns(struct gr_documents *d, const struct gr_sources *sources,
                              int32_t first_source, hid_t file, const char *path)
{
    gr_status status = GR_OK;
    struct column tokens = {0}, labels = {0}, documents = {0};
    hid_t file_type = gr_token_document_type(false), type = gr_token_document_type(true);

    GR_TRY(open_column(&tokens, file, path, GR_TOKEN_TOKENS, H5T_STD_U32LE));
    GR_TRY(open_column(&labels, file, path, GR_TOKEN_LABELS, H5T_STD_U8LE));
    GR_TRY(open_column(&documents, file, path, GR_TOKEN_DOCUMENTS, file_type));
    if (labels.count != tokens.count)
        GR_TRY(refuse(path, GR_TOKEN_LABELS, "another length", "that of /tokens"));
    gr_documents_reserve(d, tokens.count, documents.count);
    GR_TRY(
        read_column(d->tokens + d->token_count, &tokens, H5T_NATIVE_UINT32, path, GR_TOKEN_TOKENS));
    GR_TRY(
        read_column(d->labels + d->token_count, &labels, H5T_NATIVE_UINT8, path, GR_TOKEN_LABELS));
    GR_TRY(read_column(d->document + d->count, &documents, type, path, GR_TOKEN_DOCUMENTS));
    status = take_documents(d, documents.count, tokens.count, sources, first_source, path);
out:
    close_column(&tokens);
    close_column(&labels);
    close_column(&documents);
    H5Tclose(type);
    H5Tclose(file_type);
    return status;
}

static gr_status check_hash(const char *path, const char *hex)
{
    gr_status status = GR_OK;
    char found[GR_SHA256_HEX_BYTES];

    GR_TRY(gr_sha256_file(found, path));
    if (strcmp(found, hex) != 0)
        status = gr_fail(GR_ERR_DATA, path,
                         "the file is damaged or cut off: copy it or prepare it again",
                         "not the file that was hashed (found other bytes, expected those of its "
                         "SHA-256)");
out:
    return status;
}

gr_status gr_token_file_read(struct gr_documents *documents, struct gr_sources *sources,
                             json_t **settings, const char *path, const char *hex)
{
    gr_status status = GR_OK;
    struct gr_sources own = {0};
    struct gr_documents before = {0};
    hid_t access = -1, file = -1;

    *settings = NULL;
    errno = 0;
    GR_TRY(check_hash(path, hex));
    gr_hdf5_begin();
    access = gr_hdf5_access();
    file = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (file < 0)
        GR_TRY(gr_fail(GR_ERR_DATA, path, HINT_LAYOUT,
                       "HDF5 does not read it (found something else, expected an HDF5 file)"));
    GR_TRY(read_about(settings, &own, file, path));
    if (*settings == NULL)
        add_own_source(&own, path, hex);
    if (documents != NULL) {
        before = *documents;
        GR_TRY(read_columns(documents, &own, (int32_t)sources->count, file, path));
    }
    if (*settings == NULL && documents != NULL)
        count_own_source(&own.item[0], &before, documents);
    gr_sources_move(sources, &own);
out:
    gr_hdf5_check_memory();
    if (status != GR_OK) {
        json_decref(*settings);
        *settings = NULL;
    }
    gr_sources_release(&own);
    if (file >= 0)
        H5Fclose(file);
    if (access >= 0)
        H5Pclose(access);
    return status;
}
