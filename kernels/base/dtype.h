/* Element types of tensors, in memory and in files. */
#ifndef GR_BASE_DTYPE_H
#define GR_BASE_DTYPE_H

#include <stdint.h>

/* name, bytes per element */
#define GR_DTYPE_LIST(X)                                                                           \
    X(F32, 4)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(F16, 2)                                                                                      \
    X(F64, 8)                                                                                      \
    X(I32, 4)                                                                                      \
    X(I64, 8)                                                                                      \
    X(U8, 1)

enum gr_dtype {
#define X(name, bytes) GR_##name,
    GR_DTYPE_LIST(X)
#undef X
        GR_DTYPE_COUNT
};

int64_t gr_dtype_bytes(enum gr_dtype dtype);
const char *gr_dtype_name(enum gr_dtype dtype); /* "F32": as in safetensors */

#endif
