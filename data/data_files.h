/* The data files of a run with what they hold: hashed once, before they are read, and found
 * unchanged after. */
#ifndef GR_DATA_DATA_FILES_H
#define GR_DATA_DATA_FILES_H

#include "data/hash.h"

struct gr_data_files {
    const char *const *path; /* [count], borrowed */
    int64_t count;
    struct gr_file_identity *identity;
    char (*sha256)[GR_SHA256_HEX_BYTES];
};

/* Errors: those of gr_hash_file.  Must be released even then. */
gr_status gr_data_files_open(struct gr_data_files *files, const char *const *path, int64_t count,
                             const struct gr_hash_options *hashing);
/* ERR_DATA when one of them is not what it was. */
gr_status gr_data_files_check(const struct gr_data_files *files);
void gr_data_files_release(struct gr_data_files *files);

#endif
