/* jansson and OpenSSL.  See library_memory.h.  The others (HDF5, libyaml, Oniguruma, Open MPI)
 * report what they could not allocate, and who calls them passes it on. */
#include "launch/library_memory.h"

#include "kernels/base/alloc.h"

#include <jansson.h>
#include <openssl/crypto.h>

static void *take(size_t bytes)
{
    return gr_realloc(NULL, (int64_t)bytes, 1);
}

static void *openssl_take(size_t bytes, const char *file, int line)
{
    (void)file, (void)line;
    return take(bytes);
}

static void *openssl_retake(void *memory, size_t bytes, const char *file, int line)
{
    (void)file, (void)line;
    return gr_realloc(memory, (int64_t)bytes, 1);
}

static void openssl_free(void *memory, const char *file, int line)
{
    (void)file, (void)line;
    gr_free(memory);
}

void gr_library_memory_init(void)
{
    json_set_alloc_funcs(take, gr_free);
    CRYPTO_set_mem_functions(openssl_take, openssl_retake, openssl_free);
}
