/* How tokens lie in an HDF5 file: private to token_write.c and token_read.c.
 *
 *   /tokens     u32 [tokens]      the documents, one behind the other
 *   /labels     u8  [tokens]      1: the token is supervised
 *   /documents      [documents]   {offset i64, length i32, source i32, weight f32}, 20 bytes
 *   /about      text              JSON: {"version", "settings", "sources"}; optional
 *
 * All little-endian, without filters: what is there can be counted before memory is taken for it.
 */
#ifndef GR_DATA_TOKEN_LAYOUT_H
#define GR_DATA_TOKEN_LAYOUT_H

#include "data/documents.h"
#include "kernels/base/alloc.h"

#include <errno.h>
#include <hdf5.h>
#include <stddef.h>

#define GR_TOKEN_TOKENS    "tokens"
#define GR_TOKEN_LABELS    "labels"
#define GR_TOKEN_DOCUMENTS "documents"
#define GR_TOKEN_ABOUT     "about"

enum { GR_TOKEN_VERSION = 1 };

/* member, type in the file, type in memory, bytes in the file */
#define GR_TOKEN_DOCUMENT_LIST(X)                                                                  \
    X(offset, H5T_STD_I64LE, H5T_NATIVE_INT64, 8)                                                  \
    X(length, H5T_STD_I32LE, H5T_NATIVE_INT32, 4)                                                  \
    X(source, H5T_STD_I32LE, H5T_NATIVE_INT32, 4)                                                  \
    X(weight, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 4)

/* The type of a document in the file (packed) or in memory; the caller closes it. */
static inline hid_t gr_token_document_type(bool in_memory)
{
    size_t at = 0;
#define X(member, in_file, native, bytes) +bytes
    size_t packed = 0 GR_TOKEN_DOCUMENT_LIST(X);
#undef X
    hid_t made = H5Tcreate(H5T_COMPOUND, in_memory ? sizeof(struct gr_document) : packed);

#define X(member, in_file, native, bytes)                                                          \
    H5Tinsert(made, #member, in_memory ? offsetof(struct gr_document, member) : at,                \
              in_memory ? native : in_file);                                                       \
    at += bytes;
    GR_TOKEN_DOCUMENT_LIST(X)
#undef X
    return made;
}

/* Before any other call.  HDF5 prints nothing, what goes wrong is said in our words; and it does
 * not clean up at exit, where it dies of files that could not be written. */
static inline void gr_hdf5_begin(void)
{
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* Behind calls before which errno was 0: HDF5 leaves its memory in disorder where it lacked some,
 * and not every call says so; the program ends. */
static inline void gr_hdf5_check_memory(void)
{
    if (errno == ENOMEM)
        gr_no_memory("HDF5 asked");
}

/* Locks of files are no business of HDF5's: a file is written once, under a name of its own. */
static inline hid_t gr_hdf5_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    H5Pset_file_locking(access, false, true);
    return access;
}

#endif
