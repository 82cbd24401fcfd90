/* See fuzz.h. */
#include "tests/fuzz/fuzz.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/dev/shm/graft-fuzz-XXXXXX";

/* An exit would leave no artifact. */
static void crash(int exit_code)
{
    fprintf(stderr, "the program would have ended with %d\n", exit_code);
    abort();
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)kind, (void)where;
    return remove(path);
}

static void remove_folder(void)
{
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    gr_set_abort_hook(crash);
    gr_log_speaks(false);
    FUZZ_ASSERT(mkdtemp(folder) != NULL);
    atexit(remove_folder);
    return 0;
}

/* ---- parts ------------------------------------------------------------------------------ */

static const char mark[] = "==== ";

/* Where the next mark line begins, which is the end of the bytes where there is none. */
static const char *next_mark(const char *at, const char *begin, const char *end)
{
    for (; at < end; at++) {
        if ((at == begin || at[-1] == '\n') && end - at >= (int)strlen(mark) &&
            memcmp(at, mark, strlen(mark)) == 0)
            break;
    }
    return at;
}

/* A name that leads out of the folder, or is none, is "". */
static void take_name(char name[FUZZ_NAME_BYTES], const char *line, size_t length)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789/._-";

    name[0] = '\0';
    if (length >= FUZZ_NAME_BYTES)
        return;
    memcpy(name, line, length);
    name[length] = '\0';
    if (strspn(name, allowed) != length || name[0] == '/' || strstr(name, "..") != NULL)
        name[0] = '\0';
}

int fuzz_split(struct fuzz_part part[FUZZ_PARTS], const uint8_t *data, size_t size)
{
    const char *begin = (const char *)data, *end = begin + size;
    const char *at = next_mark(begin, begin, end);
    int count = 0;

    part[count++] = (struct fuzz_part){.bytes = begin, .count = (size_t)(at - begin)};
    while (at < end && count < FUZZ_PARTS) {
        const char *name = at + strlen(mark), *next = NULL;
        const char *line_end = memchr(name, '\n', (size_t)(end - name));

        if (line_end == NULL)
            line_end = end;
        next = next_mark(line_end, begin, end);
        take_name(part[count].name, name, (size_t)(line_end - name));
        part[count].bytes = line_end < end ? line_end + 1 : end;
        part[count].count = (size_t)(next - part[count].bytes);
        if (next < end && part[count].count > 0)
            part[count].count--; /* the newline before the mark */
        count++;
        at = next;
    }
    return count;
}

const struct fuzz_part *fuzz_find(const struct fuzz_part *part, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(part[i].name, name) == 0)
            return &part[i];
    }
    return NULL;
}

/* ---- files ------------------------------------------------------------------------------ */

const char *fuzz_folder(void)
{
    return folder;
}

void fuzz_write(const char *name, const void *bytes, size_t count)
{
    char *path = gr_format("%s/%s", folder, name);
    FILE *file = fopen(path, "wb");

    FUZZ_ASSERT(file != NULL && fwrite(bytes, 1, count, file) == count && fclose(file) == 0);
    gr_free(path);
}

void fuzz_write_part(const char *name, const struct fuzz_part *part)
{
    char *path = gr_format("%s/%s", folder, name);

    if (part == NULL)
        unlink(path);
    else
        fuzz_write(name, part->bytes, part->count);
    gr_free(path);
}

/* ---- the end of a call ------------------------------------------------------------------ */

/* It stays on its line and cannot speak to the terminal. */
static void check_printable(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        FUZZ_ASSERT((unsigned char)c[0] >= ' ' && c[0] != 0x7f);
        FUZZ_ASSERT((unsigned char)c[0] != 0xc2 ||
                    (c[1] & 0xe0) != 0x80); /* not U+0080 to U+009F */
    }
}

void fuzz_end(gr_status status)
{
    GR_CHECK(status != GR_ERR_BUG && gr_error_is_set() == (status != GR_OK), "%s: %s",
             gr_status_name(status), gr_error_message());
    FUZZ_ASSERT(status == GR_OK || gr_error_message()[0] != '\0');
    check_printable(gr_error_message());
    check_printable(gr_error_hint());
    gr_error_clear();
}
