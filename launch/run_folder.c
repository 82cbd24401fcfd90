/* Opening a run that must be there.  See run_folder.h. */
#include "launch/run_folder.h"

#include "trainer/state/state.h"

#include <string.h>
#include <sys/stat.h>

/* Opening a store makes its folder, which a mistyped name should not. */
gr_status gr_run_folder_open(struct gr_store **store, const char *url)
{
    static const char scheme[] = "file://", hint[] = "give the run's output directory";
    const char *path = strncmp(url, scheme, strlen(scheme)) == 0 ? url + strlen(scheme) : url;
    char hash[GR_SHA256_HEX_BYTES];
    struct stat info;
    gr_status status = GR_OK;

    if (strstr(path, "://") == NULL && stat(path, &info) != 0)
        return gr_fail(GR_ERR_NOT_FOUND, url, hint, "there is no such directory");
    GR_TRY(gr_store_open(store, url));
    status = gr_state_run_hash(hash, *store);
    if (status == GR_ERR_NOT_FOUND)
        gr_hint("%s", hint);
out:
    return status;
}
