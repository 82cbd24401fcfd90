/* A scratch folder for one test case, whole files in it, and a kernel that refuses calls. */
#ifndef GR_TESTS_FILES_H
#define GR_TESTS_FILES_H

#include <stddef.h>
#include <stdint.h>

/* Makes a new empty folder and goes into it, so that a case can use short relative paths; it is
 * removed with all it holds when the case passes. */
void gr_test_enter_folder(void);

/* Writes a file as it is; fails the case when it cannot. */
void gr_test_write_file(const char *path, const void *bytes, size_t count);
void gr_test_write_text(const char *path, const char *text);
/* A safetensors file: the length of `header`, `header`, then `data_count` bytes (NULL: zeros). */
void gr_test_write_safetensors(const char *path, const char *header, const void *data,
                               size_t data_count);

/* How many names a folder holds. */
int64_t gr_test_count_names(const char *path);

/* From now on this process gets `error` from a system call; 0: it dies of it.  Skips the case where
 * seccomp is not allowed. */
void gr_test_forbid(long call, int error);

/* Skips the case unless GRAFT_PEFT_PYTHON names a python (one with torch and safetensors). */
void gr_test_need_python(void);
/* Runs a script with it in the current folder; the case fails unless it exits with 0. */
void gr_test_run_python(const char *script);

#endif
