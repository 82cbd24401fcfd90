/* Scratch folders, files and python for tests.  See files.h. */
#include "tests/files.h"

#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/graft-test-XXXXXX";
static pid_t owner;

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static void remove_folder(void)
{
    if (getpid() == owner) /* not in children that a case forked */
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void gr_test_enter_folder(void)
{
    ASSERT_MSG(mkdtemp(folder) != NULL && chdir(folder) == 0, "%s: %s", folder, strerror(errno));
    owner = getpid();
    atexit(remove_folder);
}

void gr_test_write_file(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");

    ASSERT_MSG(file != NULL, "%s: %s", path, strerror(errno));
    ASSERT(fwrite(bytes, 1, count, file) == count);
    ASSERT(fclose(file) == 0);
}

void gr_test_write_text(const char *path, const char *text)
{
    gr_test_write_file(path, text, strlen(text));
}

void gr_test_write_safetensors(const char *path, const char *header, const void *data,
                               size_t data_count)
{
    struct gr_buffer file = {0};
    uint64_t length = strlen(header);

    gr_buffer_add(&file, &length, sizeof length);
    gr_buffer_add_text(&file, header);
    gr_buffer_reserve(&file, file.length + data_count);
    if (data != NULL)
        gr_buffer_add(&file, data, data_count);
    else
        memset(file.data + file.length, 0, data_count);
    if (data == NULL)
        file.length += data_count;
    gr_test_write_file(path, file.data, file.length);
    gr_buffer_release(&file);
}

int64_t gr_test_count_names(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    int64_t count = 0;

    ASSERT_MSG(directory != NULL, "%s: %s", path, strerror(errno));
    while ((entry = readdir(directory)) != NULL)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(directory);
    return count;
}

void gr_test_forbid(long call, int error)
{
    uint32_t action = error == 0 ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | (uint32_t)error;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = (unsigned short)GR_COUNT(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        SKIP("seccomp filters are not allowed here (%s)", strerror(errno));
}

void gr_test_need_python(void)
{
    const char *python = getenv("GRAFT_PEFT_PYTHON");

    if (python == NULL || access(python, X_OK) != 0)
        SKIP("GRAFT_PEFT_PYTHON names no python with torch and safetensors");
}

void gr_test_run_python(const char *script)
{
    char *command = gr_format("'%s' script.py >&2", getenv("GRAFT_PEFT_PYTHON"));

    gr_test_write_text("script.py", script);
    ASSERT_MSG(system(command) == 0, "script.py failed");
    gr_free(command);
}
