/* Names of the CPU backend.  Each file in kernels/cpu is compiled once per instruction set, with
 * -DGR_ISA=v3, v4 or baseline; every symbol that is not static is named by GR_CPU so that the
 * objects can be linked together: GR_CPU(rope) is gr_cpu_rope_v3. */
#ifndef GR_CPU_ISA_H
#define GR_CPU_ISA_H

#define GR_ISA_JOIN_(name, isa) gr_cpu_##name##_##isa
#define GR_ISA_JOIN(name, isa)  GR_ISA_JOIN_(name, isa)
#define GR_CPU(name)            GR_ISA_JOIN(name, GR_ISA)

#define GR_ISA_TEXT_(isa) #isa
#define GR_ISA_TEXT(isa)  GR_ISA_TEXT_(isa)
#define GR_ISA_NAME       GR_ISA_TEXT(GR_ISA) /* "v3" */

#endif
