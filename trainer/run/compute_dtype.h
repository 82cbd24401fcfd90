/* device.dtype: what `auto` stands for, and how all ranks of a run know it. */
#ifndef GR_TRAINER_COMPUTE_DTYPE_H
#define GR_TRAINER_COMPUTE_DTYPE_H

#include "trainer/config.h"
#include "trainer/run/comm.h"

#include "kernels/device.h"

/* The word of the configuration for it: "f32", "bf16". */
const char *gr_compute_dtype_word(enum gr_dtype dtype);

/* What the configuration asks for.  auto: bf16 where the device prefers it, or where the weights as
 * f32 take more than the memory (bytes) there is for them, else f32. */
enum gr_dtype gr_compute_dtype_choose(const struct gr_config *config, bool prefers_bf16,
                                      int64_t f32_bytes, int64_t memory_bytes);

/* The same for config->model on this device; auto in an output that holds a run: what that run
 * began with.  CUDA computes in bf16 alone.  Errors: ERR_USAGE (f32 there), ERR_DATA, ERR_RETRY. */
gr_status gr_compute_dtype_resolve(enum gr_dtype *dtype, const struct gr_config *config,
                                   const struct gr_device *dev);

/* The I/O rank resolves, all ranks have its answer, or its failure. */
gr_status gr_compute_dtype_agree(enum gr_dtype *dtype, const struct gr_config *config,
                                 const struct gr_device *dev, struct gr_comm *comm);

#endif
