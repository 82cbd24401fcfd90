/* Memory of the libraries that let the program decide: they get it from kernels/base/alloc.h, so
 * that want of memory ends the program with graft's message and exit code instead of a crash
 * or a wrong word about the data. */
#ifndef GR_LAUNCH_LIBRARY_MEMORY_H
#define GR_LAUNCH_LIBRARY_MEMORY_H

/* Before any call of such a library. */
void gr_library_memory_init(void);

#endif
