/* The CUDA backend is a plug-in, opened at run time: the program itself needs nothing of NVIDIA's.
 */
#ifndef GR_CUDA_PLUGIN_H
#define GR_CUDA_PLUGIN_H

#include "kernels/backend.h"

/* Opens libgraft_cuda.so (GRAFT_CUDA_PLUGIN, else beside the program, else ../lib of it) and the
 * GPU of process local_rank of this host.  Errors: ERR_DEVICE: no plug-in, a library it needs is
 * missing, no GPU. */
gr_status gr_cuda_plugin_open(struct gr_device *dev, int local_rank);
/* Whether that works; no message is left if it does not. */
bool gr_cuda_plugin_opens(struct gr_device *dev, int local_rank);

#endif
