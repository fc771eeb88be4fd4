/* Compiled once an instruction set: the table of that set's kernels. */
#include "kernels.h"

extern const attn_kernel_table KERNEL(attn_table);
const attn_kernel_table KERNEL(attn_table) = {
#define X(type, name, arguments) .name = KERNEL(name),
#include "manifest.h"
#undef X
};
