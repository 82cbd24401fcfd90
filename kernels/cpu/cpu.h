/* The functions of the CPU backend, one per entry of the table: GR_CPU(rope) and so on.
 * Arguments have been checked by ops.c; what stands in index tensors has not. */
#ifndef GR_CPU_CPU_H
#define GR_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

#define X(type, name, parameters) type GR_CPU(name) parameters;
GR_BACKEND_LIST(X)
#undef X

extern const struct gr_ops GR_CPU(ops);

#endif
