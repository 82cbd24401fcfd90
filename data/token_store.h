/* Tokenized documents in an HDF5 file: made once, then loaded instead of the text.
 * The file and its SHA-256 belong together: nothing is read from a file whose hash does not fit.
 * Knows files by path; which of them are kept where is token_cache.c. */
#ifndef GR_DATA_TOKEN_STORE_H
#define GR_DATA_TOKEN_STORE_H

#include "data/data_files.h"
#include "data/records.h"

#include <jansson.h>

/* Everything that tokens depend on beside the data. */
struct gr_token_request {
    const struct gr_tokenizer *tokenizer;
    const char *tokenizer_hash; /* of its files, chat template included */
    const struct gr_records_options *options;
};

/* The request as a flat object of texts, written into stores and compared with theirs. */
json_t *gr_token_settings(const struct gr_token_request *request);

/* "1.10.8": of the HDF5 library. */
const char *gr_token_store_library(void);

/* ---- one file ---- */

struct gr_token_writer;
/* A new file; ERR_EXISTS is not told from other failures: names are new. */
gr_status gr_token_writer_create(struct gr_token_writer **writer, const char *path);
gr_status gr_token_writer_add(struct gr_token_writer *writer, const uint32_t *tokens,
                              const uint8_t *labels, int32_t length, int32_t source);
/* Closes the file, on the disk, and gives its SHA-256.  Errors, here and above: those of
 * gr_file_error. */
gr_status gr_token_writer_finish(struct gr_token_writer *writer, char hex[GR_SHA256_HEX_BYTES],
                                 const json_t *settings, const struct gr_sources *sources);
/* Removes a file that was not finished. */
void gr_token_writer_destroy(struct gr_token_writer *writer);

/* Appends the documents of a file that hashes to `hex`, and its sources.  *settings: what it was
 * made with, the caller's to json_decref; NULL where the file does not say (another program's).
 * documents NULL: only what the file says of itself.
 * Errors: ERR_DATA, ERR_NOT_FOUND; then nothing was appended. */
gr_status gr_token_file_read(struct gr_documents *documents, struct gr_sources *sources,
                             json_t **settings, const char *path, const char *hex);

/* ---- text to store, store to documents ---- */

/* Does the file begin as an HDF5 file does?  No: also where it cannot be read. */
bool gr_token_store_is(const char *path);

/* Reads text files (records.h) into a new store at `path`, and appends its sources to `sources`,
 * which is empty; memory does not grow with the files.
 * ERR_DATA too when a file changes meanwhile.  *is_place: the failure is one of the place where the
 * store was to be, not of the data. */
gr_status gr_token_store_make(char hex[GR_SHA256_HEX_BYTES], struct gr_sources *sources,
                              bool *is_place, const char *path,
                              const struct gr_token_request *request,
                              const struct gr_data_files *files);
/* The same to where a user wants it: `path` and `path`.sha256, each whole or not there; appends
 * its sources. */
gr_status gr_token_store_export(struct gr_sources *sources, const char *path,
                                const struct gr_token_request *request,
                                const struct gr_data_files *files);

/* The data.max_length a store was made with, which a run on it must have; 0: it does not say.
 * Errors: as gr_token_store_load's. */
gr_status gr_token_store_max_length(int64_t *max_length, const char *path);

/* Appends the documents of a store with FILE.sha256 beside it.  It must have been made with what
 * the request asks for; where data.format is "tokens" also one that does not say is taken.
 * Errors: ERR_DATA, ERR_NOT_FOUND. */
gr_status gr_token_store_load(struct gr_documents *documents, struct gr_sources *sources,
                              const char *path, const struct gr_token_request *request);

#endif
