/* Data files that must not change while they are read.  See data_files.h. */
#include "data/data_files.h"

#include "kernels/base/alloc.h"

#include <string.h>

gr_status gr_data_files_open(struct gr_data_files *files, const char *const *path, int64_t count,
                             const struct gr_hash_options *hashing)
{
    gr_status status = GR_OK;

    *files = (struct gr_data_files){.path = path, .count = count};
    files->identity = GR_NEW_ARRAY(struct gr_file_identity, count);
    files->sha256 = gr_alloc(count, sizeof *files->sha256);
    for (int64_t i = 0; i < count; i++) {
        GR_TRY(gr_file_identity(&files->identity[i], path[i]));
        GR_TRY(gr_hash_file(files->sha256[i], path[i], hashing));
    }
    GR_TRY(gr_data_files_check(files));
out:
    return status;
}

gr_status gr_data_files_check(const struct gr_data_files *files)
{
    gr_status status = GR_OK;

    for (int64_t i = 0; i < files->count; i++) {
        struct gr_file_identity now;

        GR_TRY(gr_file_identity(&now, files->path[i]));
        if (!gr_file_identity_equal(&now, &files->identity[i]))
            GR_TRY(gr_fail(GR_ERR_DATA, files->path[i],
                           "leave the inputs of a run alone while it starts",
                           "the file changed while it was read"));
    }
out:
    return status;
}

void gr_data_files_release(struct gr_data_files *files)
{
    gr_free(files->identity);
    gr_free(files->sha256);
    memset(files, 0, sizeof *files);
}
