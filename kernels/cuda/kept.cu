/* Files of the cache folder.  See kept.h. */
#include "kernels/cuda/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAGIC_BYTES = 8 };

/* FNV-1a */
static uint64_t hash_of(const void *bytes, int64_t count)
{
    const unsigned char *next = (const unsigned char *)bytes;
    uint64_t hash = 0xcbf29ce484222325u;

    for (int64_t i = 0; i < count; i++)
        hash = (hash ^ next[i]) * 0x100000001b3u;
    return hash;
}

/* The path of the file; the caller frees it. */
static char *path_of(const struct gr_cuda *c, const struct gr_cuda_kept *what, const char *folder)
{
    char gpu[sizeof c->isa], version[32] = "";
    int driver = 0;

    snprintf(gpu, sizeof gpu, "%s", c->isa);
    for (char *letter = gpu; *letter != '\0'; letter++) {
        const bool is_plain = (*letter >= '0' && *letter <= '9') ||
                              (*letter >= 'A' && *letter <= 'Z') ||
                              (*letter >= 'a' && *letter <= 'z');

        if (!is_plain)
            *letter = '_';
    }
    cudaDriverGetVersion(&driver);
    if (what->version != 0)
        snprintf(version, sizeof version, "-library%zu", what->version);
    return gr_format("%s/%s/%s-driver%d%s/%016llx", folder, what->library, gpu, driver, version,
                     (unsigned long long)hash_of(what->key, what->key_bytes));
}

/* All of a file, for the caller to free; NULL: none, or not to be read. */
static unsigned char *read_file(int64_t *bytes, const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    unsigned char *data = NULL;
    struct stat about;

    *bytes = 0;
    if (fd < 0)
        return NULL;
    if (fstat(fd, &about) == 0) {
        data = (unsigned char *)gr_alloc(about.st_size + 1, 1);
        while (*bytes < about.st_size) {
            const ssize_t got = read(fd, data + *bytes, (size_t)(about.st_size - *bytes));

            if (got <= 0)
                break;
            *bytes += got;
        }
    }
    close(fd);
    return data;
}

void *gr_cuda_kept_load(int64_t *bytes, const struct gr_cuda *c, const struct gr_cuda_kept *what,
                        const char *folder)
{
    const int64_t before = MAGIC_BYTES + what->key_bytes;
    char *path = path_of(c, what, folder);
    int64_t size;
    unsigned char *data = read_file(&size, path);
    uint64_t sum = 0;
    const int64_t kept = size - before - (int64_t)sizeof sum;

    gr_free(path);
    if (data != NULL && kept >= 0)
        memcpy(&sum, data + before + kept, sizeof sum);
    if (data == NULL || kept < 0 || memcmp(data, what->magic, MAGIC_BYTES) != 0 ||
        memcmp(data + MAGIC_BYTES, what->key, (size_t)what->key_bytes) != 0 ||
        sum != hash_of(data, before + kept)) {
        gr_free(data);
        return NULL;
    }
    memmove(data, data + before, (size_t)kept);
    data[kept] = 0;
    *bytes = kept;
    return data;
}

/* The folders a path goes through. */
static void make_folders(const char *path)
{
    char *part = gr_strdup(path);

    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(part, 0777);
        *slash = '/';
    }
    gr_free(part);
}

/* A whole file in a place of its own beside `path`, named in `beside`. */
static bool write_beside(char *beside, const void *bytes, size_t count)
{
    const int fd = mkostemp(beside, O_CLOEXEC);
    bool is_whole = fd >= 0 && write(fd, bytes, count) == (ssize_t)count && fchmod(fd, 0644) == 0;

    if (fd >= 0 && close(fd) != 0)
        is_whole = false;
    return is_whole;
}

bool gr_cuda_kept_save(const struct gr_cuda *c, const struct gr_cuda_kept *what, const char *folder,
                       const void *data, int64_t bytes, bool replaces)
{
    const int64_t before = MAGIC_BYTES + what->key_bytes;
    char *path = path_of(c, what, folder), *beside = gr_format("%s.XXXXXX", path);
    unsigned char *all = (unsigned char *)gr_alloc(before + bytes + (int64_t)sizeof(uint64_t), 1);
    uint64_t sum;
    bool is_there = false;

    memcpy(all, what->magic, MAGIC_BYTES);
    memcpy(all + MAGIC_BYTES, what->key, (size_t)what->key_bytes);
    memcpy(all + before, data, (size_t)bytes);
    sum = hash_of(all, before + bytes);
    memcpy(all + before + bytes, &sum, sizeof sum);
    make_folders(path);
    if (write_beside(beside, all, (size_t)(before + bytes) + sizeof sum)) {
        if (replaces)
            rename(beside, path);
        else
            is_there = link(beside, path) != 0 && errno == EEXIST;
    }
    unlink(beside);
    gr_free(all);
    gr_free(beside);
    gr_free(path);
    return !is_there;
}
