/* Writing a token store: columns that grow by whole chunks.  See token_store.h. */
#include "data/store/file_error.h"
#include "data/token_layout.h"
#include "data/token_store.h"
#include "kernels/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS_PER_CHUNK = 1 << 16, DOCUMENTS_PER_CHUNK = 1 << 12 };

/* A dataset and the elements that do not fill a chunk yet. */
struct column {
    hid_t set;
    hid_t type; /* of an element in memory */
    int64_t bytes;
    int64_t chunk;   /* elements */
    int64_t written; /* elements in the file */
    int64_t used;    /* elements waiting */
    char *waiting;   /* [chunk] */
};

struct gr_token_writer {
    char *path;
    hid_t file, document_type, document_file_type;
    struct column tokens, labels, documents;
    bool is_finished;
    bool is_broken; /* a write failed: HDF5 must not be asked to write again, as closing would */
};

#define WORDS_OF(x) #x
#define WORDS(x)    WORDS_OF(x)

const char *gr_token_store_library(void)
{
    return WORDS(H5_VERS_MAJOR) "." WORDS(H5_VERS_MINOR) "." WORDS(H5_VERS_RELEASE);
}

/* HDF5 does not hand on why; the system's last error does in practice. */
static gr_status fail_write(struct gr_token_writer *w)
{
    w->is_broken = true;
    gr_hdf5_check_memory();
    return gr_file_error(w->path, "written", errno != 0 ? errno : EIO);
}

static bool begin_column(struct column *c, hid_t file, const char *name, hid_t file_type,
                         hid_t type, int64_t bytes, int64_t chunk)
{
    const hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk_size = (hsize_t)chunk;
    hid_t space = H5Screate_simple(1, &none, &unlimited);
    hid_t options = H5Pcreate(H5P_DATASET_CREATE);

    H5Pset_chunk(options, 1, &chunk_size);
    H5Pset_obj_track_times(options, false); /* the same tokens are the same bytes */
    *c = (struct column){.type = type, .bytes = bytes, .chunk = chunk};
    c->set = H5Dcreate2(file, name, file_type, space, H5P_DEFAULT, options, H5P_DEFAULT);
    c->waiting = gr_alloc(chunk, (size_t)bytes);
    H5Pclose(options);
    H5Sclose(space);
    return c->set >= 0;
}

static bool flush(struct column *c)
{
    const hsize_t begin = (hsize_t)c->written, count = (hsize_t)c->used, end = begin + count;
    hid_t memory, place;
    bool done;

    if (c->used == 0)
        return true;
    if (H5Dset_extent(c->set, &end) < 0)
        return false;
    memory = H5Screate_simple(1, &count, NULL);
    place = H5Dget_space(c->set);
    done = H5Sselect_hyperslab(place, H5S_SELECT_SET, &begin, NULL, &count, NULL) >= 0 &&
           H5Dwrite(c->set, c->type, memory, place, H5P_DEFAULT, c->waiting) >= 0;
    H5Sclose(place);
    H5Sclose(memory);
    c->written += c->used;
    c->used = 0;
    return done;
}

static bool append(struct column *c, const void *elements, int64_t count)
{
    const char *from = elements;

    while (count > 0) {
        int64_t fits = c->chunk - c->used < count ? c->chunk - c->used : count;

        memcpy(c->waiting + c->used * c->bytes, from, (size_t)(fits * c->bytes));
        c->used += fits;
        from += fits * c->bytes;
        count -= fits;
        if (c->used == c->chunk && !flush(c))
            return false;
    }
    return true;
}

static void end_column(struct column *c, bool closes)
{
    if (closes && c->set > 0)
        H5Dclose(c->set);
    gr_free(c->waiting);
    memset(c, 0, sizeof *c);
}

/* Closing writes what HDF5 holds back, and a close that fails leaves HDF5 in ruins: so everything
 * is written first, and a file for which that fails stays open, to the end of the process. */
static bool close_file(struct gr_token_writer *w)
{
    if (w->file > 0 && !w->is_broken)
        w->is_broken = H5Fflush(w->file, H5F_SCOPE_GLOBAL) < 0;
    end_column(&w->tokens, !w->is_broken);
    end_column(&w->labels, !w->is_broken);
    end_column(&w->documents, !w->is_broken);
    if (w->file > 0 && !w->is_broken)
        w->is_broken = H5Fclose(w->file) < 0;
    w->file = 0;
    return !w->is_broken;
}

gr_status gr_token_writer_create(struct gr_token_writer **writer, const char *path)
{
    struct gr_token_writer *w = GR_NEW(struct gr_token_writer);
    hid_t access;
    bool made;

    *writer = NULL;
    errno = 0;
    gr_hdf5_begin();
    access = gr_hdf5_access();
    w->path = gr_strdup(path);
    w->document_type = gr_token_document_type(true);
    w->document_file_type = gr_token_document_type(false);
    gr_hdf5_check_memory();
    errno = 0;
    w->file = H5Fcreate(path, H5F_ACC_EXCL, H5P_DEFAULT, access);
    H5Pclose(access);
    made = w->file >= 0 &&
           begin_column(&w->tokens, w->file, GR_TOKEN_TOKENS, H5T_STD_U32LE, H5T_NATIVE_UINT32,
                        sizeof(uint32_t), TOKENS_PER_CHUNK) &&
           begin_column(&w->labels, w->file, GR_TOKEN_LABELS, H5T_STD_U8LE, H5T_NATIVE_UINT8,
                        sizeof(uint8_t), TOKENS_PER_CHUNK) &&
           begin_column(&w->documents, w->file, GR_TOKEN_DOCUMENTS, w->document_file_type,
                        w->document_type, sizeof(struct gr_document), DOCUMENTS_PER_CHUNK);
    if (!made) {
        gr_status status = fail_write(w);

        w->is_finished = w->file < 0; /* what has the name is not ours */
        gr_token_writer_destroy(w);
        return status;
    }
    *writer = w;
    return GR_OK;
}

gr_status gr_token_writer_add(struct gr_token_writer *w, const uint32_t *tokens,
                              const uint8_t *labels, int32_t length, int32_t source)
{
    const struct gr_document document = {.offset = w->tokens.written + w->tokens.used,
                                         .length = length,
                                         .source = source,
                                         .weight = 1.0f};

    errno = 0;
    if (!append(&w->tokens, tokens, length) || !append(&w->labels, labels, length) ||
        !append(&w->documents, &document, 1))
        return fail_write(w);
    return GR_OK;
}

static bool write_about(const struct gr_token_writer *w, const json_t *settings,
                        const struct gr_sources *sources)
{
    json_t *about = json_pack("{s:i, s:O, s:o}", "version", GR_TOKEN_VERSION, "settings", settings,
                              "sources", gr_sources_to_json(sources));
    char *text = json_dumps(about, JSON_COMPACT | JSON_SORT_KEYS);
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    hid_t options = H5Pcreate(H5P_DATASET_CREATE), set = -1;
    bool done;

    GR_CHECK(text != NULL, "settings and sources are no JSON");
    H5Pset_obj_track_times(options, false);
    done = H5Tset_size(type, strlen(text)) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0 &&
           H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0;
    if (done)
        set = H5Dcreate2(w->file, GR_TOKEN_ABOUT, type, space, H5P_DEFAULT, options, H5P_DEFAULT);
    done = set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) >= 0;
    if (set >= 0)
        done = H5Dclose(set) >= 0 && done;
    H5Pclose(options);
    H5Tclose(type);
    H5Sclose(space);
    free(text);
    json_decref(about);
    return done;
}

gr_status gr_token_writer_finish(struct gr_token_writer *w, char hex[GR_SHA256_HEX_BYTES],
                                 const json_t *settings, const struct gr_sources *sources)
{
    gr_status status = GR_OK;
    int fd = -1;
    bool done;

    errno = 0;
    done = flush(&w->tokens) && flush(&w->labels) && flush(&w->documents) &&
           write_about(w, settings, sources) && close_file(w);
    gr_hdf5_check_memory();
    if (!done)
        return fail_write(w);
    fd = open(w->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        GR_TRY(fail_write(w));
    GR_TRY(gr_sha256_file(hex, w->path));
    w->is_finished = true;
out:
    if (fd >= 0)
        close(fd);
    return status;
}

void gr_token_writer_destroy(struct gr_token_writer *w)
{
    if (w == NULL)
        return;
    close_file(w);
    H5Tclose(w->document_type);
    H5Tclose(w->document_file_type);
    if (!w->is_finished)
        unlink(w->path);
    gr_free(w->path);
    gr_free(w);
}
