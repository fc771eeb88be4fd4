/* The dispatch table: one entry a kernel, filled from manifest.h, one table an instruction set.
 *
 * A file kernels/NAME.c is compiled once an instruction set, with ATTN_ISA set to its name;
 * it defines its functions as KERNEL(name). The rest of the core calls attn_kernel->name(...).
 */
#ifndef ATTN_KERNELS_H
#define ATTN_KERNELS_H

#include "../attnnet.h"
#include "../base/cpu.h"
#include "types.h"

#define ATTN_PASTE_(a, b) a##_##b
#define ATTN_PASTE(a, b) ATTN_PASTE_(a, b)
#define KERNEL(name) ATTN_PASTE(name, ATTN_ISA)

typedef struct {
#define X(type, name, arguments) type(*name) arguments;
#include "manifest.h"
#undef X
} attn_kernel_table;

/* The table in use; never NULL once attn_isa_select has run. */
extern const attn_kernel_table *attn_kernel;

/* NULL where this build does not contain the set. */
const attn_kernel_table *attn_kernels_for(attn_isa isa);

#ifdef ATTN_ISA /* inside a kernel file: declare this set's functions */
#define X(type, name, arguments) type KERNEL(name) arguments;
#include "manifest.h"
#undef X
#endif

#endif
