/* What the fuzz targets share.  A target is one file fuzz_<unit>.c with LLVMFuzzerTestOneInput,
 * which libFuzzer calls with bytes of its invention; whatever they are, the code under test must
 * end with a status and its message.  An assertion of graft, a failed FUZZ_ASSERT and a request for
 * more memory than the process may have are crashes. */
#ifndef GR_TESTS_FUZZ_H
#define GR_TESTS_FUZZ_H

#include "kernels/base/status.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input that is several files: each begins behind a line "==== NAME"; what stands before the
 * first such line has the name "".  The newline before such a line belongs to it. */
enum { FUZZ_NAME_BYTES = 200, FUZZ_PARTS = 24 };
struct fuzz_part {
    char name[FUZZ_NAME_BYTES]; /* of letters, digits and "/._-", so that it is a relative path */
    const char *bytes;          /* not NUL-terminated */
    size_t count;
};
/* The number of parts, at most FUZZ_PARTS; those after them are left out. */
int fuzz_split(struct fuzz_part part[FUZZ_PARTS], const uint8_t *data, size_t size);
/* NULL if there is no such part. */
const struct fuzz_part *fuzz_find(const struct fuzz_part *part, int count, const char *name);

/* A folder in memory, new for the process and gone with it. */
const char *fuzz_folder(void);
/* Writes a file there. */
void fuzz_write(const char *name, const void *bytes, size_t count);
/* The same with a part; NULL: there is no such file then. */
void fuzz_write_part(const char *name, const struct fuzz_part *part);

/* After a call that ended with `status`: it left a message exactly if it failed.  Clears it. */
void fuzz_end(gr_status status);

#define FUZZ_ASSERT(condition) GR_CHECK(condition, "fuzz")

#endif
