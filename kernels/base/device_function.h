/* How a function is compiled that kernels call too: kernels/cuda/cuda.h adds the GPU. */
#ifndef GR_BASE_DEVICE_FUNCTION_H
#define GR_BASE_DEVICE_FUNCTION_H

#ifndef GR_DEVICE_FUNCTION
#define GR_DEVICE_FUNCTION static inline
#endif

#endif
