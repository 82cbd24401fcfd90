/* A C library that says it is another one: preloaded into one rank, whose results might differ. */
#include <gnu/libc-version.h>

const char *gnu_get_libc_version(void)
{
    return "0.0";
}
