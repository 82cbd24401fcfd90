/* What the CUDA backend keeps between runs: small files in the cache folder, by GPU, driver and
 * version of a library,
 *
 *     CACHE/LIBRARY/sm_90_NVIDIA_H100-driver13000-library130100/HASH
 *
 * each with the key it is for and a sum over all of it.  A file is written beside its place and put
 * there whole.  One that is damaged or of another key is as none. */
#ifndef GR_CUDA_KEPT_H
#define GR_CUDA_KEPT_H

#include "kernels/cuda/cuda.h"

struct gr_cuda_kept {
    const char *library; /* name of its folder */
    size_t version;      /* 0: what is kept says itself of which it is */
    char magic[9];   /* the first eight bytes of a file: what it is, and which version of that */
    const void *key; /* compared as bytes */
    int64_t key_bytes;
};

/* What is kept under that key: its bytes, with one of 0 behind them, for the caller to free, and
 * how many.  NULL: nothing that is whole. */
void *gr_cuda_kept_load(int64_t *bytes, const struct gr_cuda *c, const struct gr_cuda_kept *what,
                        const char *folder);
/* Keeps it, in the place of what is there or only if nothing is.  False: something is.  A folder
 * that cannot be written is no failure. */
bool gr_cuda_kept_save(const struct gr_cuda *c, const struct gr_cuda_kept *what, const char *folder,
                       const void *data, int64_t bytes, bool replaces);

#endif
