/* Token stores of text files that graft has tokenized before, in the cache:
 *
 *   tokens/<key>-<uuid>.h5    written first, under a name nobody knows
 *   tokens/<key>.json         {"bytes", "file", "sha256"}, put if absent: what makes it count
 *   tokens/<key>.lock         one process makes a store, the others wait; freed by death
 *
 * key = SHA-256 of everything the tokens depend on: hashes of the data, tokenizer, settings and the
 * version of the layout.  A killed process leaves a file without a record, which is never read and
 * goes with the next making. */
#ifndef GR_DATA_TOKEN_CACHE_H
#define GR_DATA_TOKEN_CACHE_H

#include "data/token_store.h"

/* Appends the documents of text files and their sources, by way of the cache in `cache_dir`.  A
 * damaged store is made again; a cache that cannot be written is a warning, and the files are read
 * into memory.  Errors: those of records.h. */
gr_status gr_token_cache_load(struct gr_documents *documents, struct gr_sources *sources,
                              const struct gr_token_request *request,
                              const struct gr_data_files *files, const char *cache_dir);

/* Sees to it that a good store is there, and appends its sources; memory does not grow with the
 * files.  *path: where, the caller's to free; *was_there: it had been made before.  Errors: also
 * those of the cache. */
gr_status gr_token_cache_prepare(char **path, bool *was_there, struct gr_sources *sources,
                                 const struct gr_token_request *request,
                                 const struct gr_data_files *files, const char *cache_dir);

#endif
