/* Opening the CUDA plug-in.  See cuda_plugin.h. */
#include "kernels/cuda_plugin.h"

#include "kernels/base/alloc.h"
#include "kernels/base/env.h"

#include <dlfcn.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static const char file_name[] = "libgraft_cuda.so";

/* The folder of the program, without a slash; for the caller to free. */
static char *program_folder(void)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    char *slash;

    if (length <= 0 || length == (ssize_t)sizeof path)
        return gr_strdup(".");
    path[length] = '\0';
    slash = strrchr(path, '/');
    *slash = '\0';
    return gr_strdup(path);
}

/* The plug-in's path, for the caller to free; NULL: there is none. */
static char *find_file(const char *program)
{
    static const char *const folders[] = {"", "/../lib"};
    const char *named = gr_env(GR_ENV_GRAFT_CUDA_PLUGIN);

    if (named != NULL)
        return gr_strdup(named);
    for (int64_t i = 0; i < GR_COUNT(folders); i++) {
        char *path = gr_format("%s%s/%s", program, folders[i], file_name);

        if (access(path, F_OK) == 0)
            return path;
        gr_free(path);
    }
    return NULL;
}

/* Never closed again: CUDA does not come back in a process that has left it. */
gr_status gr_cuda_plugin_open(struct gr_device *dev, int local_rank)
{
    gr_status status = GR_OK;
    char *program = program_folder(), *path = find_file(program);
    void *plugin = NULL, *symbol;
    gr_cuda_open_function *open;

    if (path == NULL)
        GR_TRY(gr_fail(GR_ERR_DEVICE, "device.backend",
                       "build graft where there is an nvcc, or set device.backend to cpu",
                       "there is no CUDA plug-in (found no %s in %s)", file_name, program));
    plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (plugin == NULL)
        GR_TRY(gr_fail(GR_ERR_DEVICE, "device.backend",
                       "install the CUDA libraries it names, or add their folder to "
                       "LD_LIBRARY_PATH, or set device.backend to cpu",
                       "the CUDA plug-in cannot be loaded (found %s)", dlerror()));
    symbol = dlsym(plugin, "gr_cuda_open");
    if (symbol == NULL)
        GR_TRY(gr_fail(GR_ERR_DEVICE, "device.backend", "unset GRAFT_CUDA_PLUGIN, or correct it",
                       "this is not graft's CUDA plug-in (found %s)", path));
    memcpy(&open, &symbol, sizeof open); /* ISO C has no cast between the two */
    GR_TRY(open(dev, local_rank));
    dev->plugin = gr_strdup(path);
out:
    gr_free(path);
    gr_free(program);
    return status;
}

bool gr_cuda_plugin_opens(struct gr_device *dev, int local_rank)
{
    bool is_named = gr_env(GR_ENV_GRAFT_CUDA_PLUGIN) != NULL, opens;

    /* Without a driver there is no GPU: that is known at once, where loading cuBLASLt takes a tenth
     * of a second.  A plug-in that is named may be one that needs no driver. */
    if (!is_named && dlopen("libcuda.so.1", RTLD_LAZY) == NULL)
        return false;
    opens = gr_cuda_plugin_open(dev, local_rank) == GR_OK;
    if (!opens)
        gr_error_clear();
    return opens;
}
