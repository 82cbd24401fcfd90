/* Names and sizes of element types.  See dtype.h. */
#include "kernels/base/dtype.h"

int64_t gr_dtype_bytes(enum gr_dtype dtype)
{
    static const int64_t bytes[GR_DTYPE_COUNT] = {
#define X(name, bytes) [GR_##name] = bytes,
        GR_DTYPE_LIST(X)
#undef X
    };
    return bytes[dtype];
}

const char *gr_dtype_name(enum gr_dtype dtype)
{
    static const char *const names[GR_DTYPE_COUNT] = {
#define X(name, bytes) [GR_##name] = #name,
        GR_DTYPE_LIST(X)
#undef X
    };
    return names[dtype];
}
