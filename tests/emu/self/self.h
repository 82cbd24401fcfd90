/* The cases the emulator is tested with: planted faults that must be found, legal programs that
 * must stay silent.  Each runs in a process of its own (self_main.cpp). */
#ifndef EMU_SELF_H
#define EMU_SELF_H

#include "kernels/cuda/cuda.h"

/* Where a case must end. */
enum outcome {
    SILENT,        /* returns true */
    WRONG,         /* returns false: values are wrong */
    FOUND,         /* the checked build reports the finding */
    FOUND_BY_BOTH, /* the fast one too */
};

struct self_case {
    const char *name;
    enum outcome outcome;
    const char *finding;              /* NULL: any */
    bool (*run)(cudaStream_t stream); /* true: as expected */
};

/* Ends a table. */
#define END_OF_CASES                                                                               \
    {                                                                                              \
        NULL, SILENT, NULL, NULL                                                                   \
    }

/* A finding's report must name a line that has this comment: // found */
extern const struct self_case kernel_faults[], warp_faults[], host_faults[], library_faults[],
    legal_programs[], fragments[], counts[];

enum { SELF_COUNT = 100 }; /* floats of the memory that most cases use; no multiple of 64 */

/* Device memory that holds 0, 1, 2 ..., or nothing yet. */
float *self_numbers(cudaStream_t stream, int count);
float *self_memory(int count);
/* Copies to pinned memory of its own, and waits. */
float *self_fetch(cudaStream_t stream, const void *device, int count);
bool self_wait(cudaStream_t stream); /* true */

#endif
