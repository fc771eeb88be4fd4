#include "cpu.h"

#include "../kernels/kernels.h"

#include <string.h>

static const char *const names[ATTN_ISA_COUNT] = {"baseline", "avx2", "avx512"};
static attn_isa chosen = ATTN_ISA_BASELINE;

const char *attn_isa_name(attn_isa isa) { return names[isa]; }

#if defined(__x86_64__)
#include <cpuid.h>

/* A register that the operating system does not save is not there, whatever CPUID says. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

static bool cpu_has(attn_isa isa)
{
    unsigned a, b, c, d;
    if (isa == ATTN_ISA_BASELINE)
        return true;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return false;
    bool osxsave = c & (1u << 27), fma = c & (1u << 12), avx = c & (1u << 28);
    if (!osxsave || !fma || !avx || (saved_state() & 0x6) != 0x6)
        return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return false;
    if (isa == ATTN_ISA_AVX2)
        return b & (1u << 5);
    const unsigned needed = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31); /* F, DQ, BW, VL */
    return (b & needed) == needed && (saved_state() & 0xe6) == 0xe6;
}
#else
static bool cpu_has(attn_isa isa) { return isa == ATTN_ISA_BASELINE; }
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

const char *attn_cpu_blas_core(void)
{
    const unsigned long sme = 1ul << 23; /* HWCAP2_SME */
    return getauxval(AT_HWCAP2) & sme ? "ARMV8" : NULL;
}
#else
const char *attn_cpu_blas_core(void)
{
    return attn_isa_detect() == ATTN_ISA_AVX512 ? "SkylakeX" : NULL;
}
#endif

attn_isa attn_isa_detect(void)
{
    for (int isa = ATTN_ISA_COUNT - 1; isa > 0; isa--)
        if (attn_kernels_for((attn_isa)isa) && cpu_has((attn_isa)isa))
            return (attn_isa)isa;
    return ATTN_ISA_BASELINE;
}

attn_isa attn_isa_current(void) { return chosen; }

attn_status attn_isa_select(const char *wanted)
{
    attn_isa isa = attn_isa_detect();
    if (wanted && *wanted) {
        int found = -1;
        for (int i = 0; i < ATTN_ISA_COUNT; i++)
            if (strcmp(wanted, names[i]) == 0)
                found = i;
        if (found < 0)
            return attn_fail(ATTN_BAD_VALUE,
                             "ATTNNET_ISA is '%s', expected baseline, avx2 or avx512", wanted);
        if (!attn_kernels_for((attn_isa)found) || !cpu_has((attn_isa)found))
            return attn_fail(ATTN_BAD_VALUE,
                             "ATTNNET_ISA is '%s', which this CPU or build does not have; "
                             "the best here is %s", wanted, names[isa]);
        isa = (attn_isa)found;
    }
    chosen = isa;
    attn_kernel = attn_kernels_for(isa);
    return ATTN_OK;
}
