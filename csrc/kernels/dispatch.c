#include "kernels.h"

const attn_kernel_table *attn_kernel;

extern const attn_kernel_table attn_table_baseline;
#ifdef ATTN_HAVE_X86_SETS
extern const attn_kernel_table attn_table_avx2, attn_table_avx512;
#endif

const attn_kernel_table *attn_kernels_for(attn_isa isa)
{
    switch (isa) {
    case ATTN_ISA_BASELINE:
        return &attn_table_baseline;
#ifdef ATTN_HAVE_X86_SETS
    case ATTN_ISA_AVX2:
        return &attn_table_avx2;
    case ATTN_ISA_AVX512:
        return &attn_table_avx512;
#endif
    default:
        return NULL;
    }
}
