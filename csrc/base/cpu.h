/* Which instruction sets this CPU and operating system really offer. */
#ifndef ATTN_CPU_H
#define ATTN_CPU_H

#include "../attnnet.h"

typedef enum { ATTN_ISA_BASELINE = 0, ATTN_ISA_AVX2, ATTN_ISA_AVX512, ATTN_ISA_COUNT } attn_isa;

const char *attn_isa_name(attn_isa isa); /* "baseline", "avx2", "avx512" */

/* The best instruction set that CPUID and XGETBV report and this build contains. */
attn_isa attn_isa_detect(void);

/* The set in use, chosen once by attn_isa_select. */
attn_isa attn_isa_current(void);

/* Chooses: `wanted` is a name or NULL for the best. Fails on unknown or unavailable names. */
attn_status attn_isa_select(const char *wanted);

/* The core type to ask OpenBLAS for where its own choice is a bad one; NULL: it chooses.
 * Release 0.3.34 takes Haswell kernels on x86 CPUs of family 26, half as fast as its AVX-512 ones,
 * and multiplies wrongly with its SME kernels on aarch64. */
const char *attn_cpu_blas_core(void);

#endif
