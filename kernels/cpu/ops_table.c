/* The table of the CPU backend for one instruction set; device.c chooses among them. */
#include "kernels/cpu/cpu.h"

const struct gr_ops GR_CPU(ops) = {
#define X(type, name, parameters) .name = GR_CPU(name),
    GR_BACKEND_LIST(X)
#undef X
};
