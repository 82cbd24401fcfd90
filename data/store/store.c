/* Which store a place names.  The stores themselves are in store_*.c.  See store.h. */
#include "data/store/store.h"

#include "data/store/store_file.h"
#include "kernels/base/alloc.h"
#include "kernels/base/files.h"

#include <string.h>
#include <sys/stat.h>

gr_status gr_store_open(struct gr_store **store, const char *url)
{
    const char *scheme_end = strstr(url, "://");
    const char *path = url;

    *store = NULL;
    if (scheme_end != NULL) {
        if (strncmp(url, "file://", strlen("file://")) != 0)
            return gr_fail(GR_ERR_USAGE, url, "give a folder, as a path or as file:///path",
                           "no store has this scheme (found %.*s, expected file)",
                           (int)(scheme_end - url), url);
        path = scheme_end + strlen("://");
    }
    if (path[0] == '\0')
        return gr_fail(GR_ERR_USAGE, url, "give a folder, as a path or as file:///path",
                       "the place of the store is empty");
    return gr_store_file_open(store, url, path);
}

bool gr_store_is_there(const char *url)
{
    const char *scheme_end = strstr(url, "://");
    struct stat info;

    return stat(scheme_end == NULL ? url : scheme_end + strlen("://"), &info) == 0;
}

void gr_store_close(struct gr_store *store)
{
    if (store != NULL)
        store->ops->destroy(store);
}

gr_status gr_store_put_path(const char *path, const void *bytes, int64_t count, bool is_new)
{
    gr_status status = GR_OK;
    struct gr_store *store = NULL;
    const char *name = gr_path_name(path);
    char *folder = gr_path_folder(path);

    GR_TRY(gr_store_open(&store, folder));
    GR_TRY(is_new ? store->ops->put_if_absent(store, name, bytes, count)
                  : store->ops->put(store, name, bytes, count));
out:
    gr_store_close(store);
    gr_free(folder);
    return status;
}

void gr_store_list_release(struct gr_store_list *list)
{
    for (int64_t i = 0; i < list->count; i++)
        gr_free(list->entry[i].key);
    gr_free(list->entry);
    memset(list, 0, sizeof *list);
}
