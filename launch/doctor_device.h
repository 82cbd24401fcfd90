/* graft doctor --device cuda: the GPU, whether it computes as the CPU does, its libraries and what
 * they reach; whose attention this machine uses is found out and recorded. */
#ifndef GR_LAUNCH_DOCTOR_DEVICE_H
#define GR_LAUNCH_DOCTOR_DEVICE_H

#include "kernels/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* rows: of the longest attention, and of the matrices; rounded down to a multiple of 256.  Errors:
 * ERR_DEVICE without a GPU or its driver, or where it fails; ERR_USAGE, also where an op is wrong.
 */
gr_status gr_doctor_device(const char *kind, int64_t rows, bool is_json);

#endif
