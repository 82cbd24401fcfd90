/* Mapping files.  See file_map.h. */
#include "data/file_map.h"

#include "kernels/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

gr_status gr_file_fail(const char *path, const char *verb)
{
    int error = errno;

    if (error == ENOMEM)
        gr_no_memory(path);
    if (error == ENOENT || error == ENOTDIR)
        return gr_fail(GR_ERR_NOT_FOUND, path,
                       "check the path; a relative one starts at the working directory",
                       "there is no such file (found nothing, expected a file)");
    return gr_fail(GR_ERR_DATA, path, "check the permissions of the file and its folders",
                   "the file cannot be %s (%s)", verb, strerror(error));
}

static gr_status take_identity(struct gr_file_identity *identity, const char *path,
                               const struct stat *info)
{
    if (!S_ISREG(info->st_mode))
        return gr_fail(GR_ERR_DATA, path, "give the path of a file",
                       "not a regular file (found a %s, expected a file)",
                       S_ISDIR(info->st_mode) ? "directory" : "device, pipe or socket");
    *identity = (struct gr_file_identity){
        .device = info->st_dev,
        .inode = info->st_ino,
        .bytes = info->st_size,
        .mtime_ns = (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec,
        .ctime_ns = (int64_t)info->st_ctim.tv_sec * 1000000000 + info->st_ctim.tv_nsec};
    return GR_OK;
}

gr_status gr_file_identity(struct gr_file_identity *identity, const char *path)
{
    struct stat info;

    if (stat(path, &info) != 0)
        return gr_file_fail(path, "examined");
    return take_identity(identity, path, &info);
}

bool gr_file_identity_equal(const struct gr_file_identity *a, const struct gr_file_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

gr_status gr_file_map_open(struct gr_file_map *map, const char *path)
{
    gr_status status = GR_OK;
    struct stat info;
    void *data = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    memset(map, 0, sizeof *map);
    if (fd < 0)
        return gr_file_fail(path, "opened");
    if (fstat(fd, &info) != 0) {
        status = gr_file_fail(path, "examined");
        goto out;
    }
    GR_TRY(take_identity(&map->identity, path, &info));
    if (info.st_size == 0) /* nothing to map */
        goto out;
    data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        status = gr_file_fail(path, "mapped");
    else
        map->data = data;
out:
    close(fd);
    return status;
}

void gr_file_map_close(struct gr_file_map *map)
{
    if (map->data != NULL)
        munmap((void *)(uintptr_t)map->data, (size_t)map->identity.bytes);
    memset(map, 0, sizeof *map);
}

/* Of the pages that hold bytes [begin, end); a refusal costs memory or time alone. */
static void advise(const struct gr_file_map *map, int64_t begin, int64_t end, int advice)
{
    int64_t page = sysconf(_SC_PAGESIZE);
    int64_t first = begin / page * page;

    if (map->data != NULL && end > begin)
        madvise((void *)(uintptr_t)(map->data + first), (size_t)(end - first), advice);
}

void gr_file_map_forget(const struct gr_file_map *map, int64_t begin, int64_t end)
{
    advise(map, begin, end, MADV_DONTNEED);
}

void gr_file_map_expect(const struct gr_file_map *map, int64_t begin, int64_t end)
{
    advise(map, begin, end, MADV_WILLNEED);
}
