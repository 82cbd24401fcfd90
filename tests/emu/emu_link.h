/* The emulator for a library that is opened at run time, as the doubles of NCCL and cuDNN are: the
 * plug-in does not give its names away, so they ask whoever calls it for this table. */
#ifndef EMU_LINK_H
#define EMU_LINK_H

#include "emu_queue.h"

struct emu_link {
    void (*fail)(const char *kind, const char *message);
    void (*enqueue_poll)(cudaStream_t stream, const char *name, std::function<bool()> poll);
    void (*dev_extent)(const void *p, size_t bytes, const char *what);
    void (*dev_touch)(const void *p, size_t bytes, emu::access_kind kind, const char *what);
    void (*device_properties)(cudaDeviceProp *properties);
};

/* Exported by every emulated plug-in. */
extern "C" const struct emu_link emu_link_table;

#endif
