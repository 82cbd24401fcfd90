/* What the emulated GPU did, counted; exported by the emulated plug-ins, for tests that dlsym it.
 *
 * Bytes are the distinct bytes of device memory that an operation really loaded and stored, from
 * the checked plug-in's shadow of every access (0 in the fast one), never from annotations.
 * Products of library calls count each operand once, and no workspace.  FLOPs: 2 m n k of library
 * calls and of mma.
 */
#ifndef EMU_COUNT_H
#define EMU_COUNT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emu_operation {
    const char *name; /* of the kernel, the library call or the copy */
    int32_t is_kernel;
    int64_t loaded, stored; /* distinct bytes, in units of 2 */
    double flops;
    int64_t m, n, k; /* of a product by cuBLASLt, in its order; else 0 */
};

/* What the host did meanwhile. */
struct emu_host {
    int64_t waits;       /* until something queued was done, by waiting or by asking until it was */
    int64_t allocations; /* of device or pinned memory, taken or given back */
    int64_t ranges;      /* of NVTX, begun */
    int64_t open;        /* of them, not ended; below 0: ended, but not begun */
};

/* Forgets what was counted, and counts from here on (on) or not. */
void emu_count(int32_t on);
/* What has been counted since; operations that are still queued are not there yet. */
int64_t emu_counted(void);
/* The i-th; valid until the next emu_count. */
struct emu_operation emu_counted_operation(int64_t i);

struct emu_host emu_counted_host(void);

#ifdef __cplusplus
}
#endif

#endif
