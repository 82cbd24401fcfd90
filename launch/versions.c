/* Versions of the program and its libraries, as they are loaded.  See versions.h. */
#include "launch/versions.h"

#include "data/token_store.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/device.h"
#include "launch/git_commit.h"

#include <jansson.h>
#include <mpi.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

/* The library's first words, "Open MPI v4.1.4" of a longer text. */
static void mpi_version(char *text, size_t size)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;

    MPI_Get_library_version(version, &length);
    snprintf(text, size, "%.*s", (int)strcspn(version, ",\n"), version);
}

void gr_versions_get(struct gr_versions *v, const char *isa)
{
    const struct gr_version rows[GR_VERSION_COUNT] = {
        {"graft", GR_VERSION},
        {"commit", GR_GIT_COMMIT},
        {"compiler", GR_COMPILER},
        {"isa", isa},
        {"libc", gr_device_libraries()},
        {"mpi", v->mpi},
        {"hdf5", gr_token_store_library()},
        {"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)},
        {"jansson", jansson_version_str()},
        {"libyaml", yaml_get_version_string()},
        {"oniguruma", gr_tokenizer_regex_library()},
        {"utf8proc", gr_tokenizer_unicode_library()},
    };

    mpi_version(v->mpi, sizeof v->mpi);
    memcpy(v->row, rows, sizeof rows);
}

const char *gr_program_name(void)
{
    return "graft " GR_VERSION " (" GR_GIT_COMMIT ")";
}
