/* One bit an element: how a ReLU remembers where its gradient passes, in 1/32 of the memory. */
#ifndef ATTN_KERNEL_BITS_H
#define ATTN_KERNEL_BITS_H

#include "simd.h"

/* Bit i: lane i is not <= 0 (a NaN counts as positive, so that it passes its gradient on). */
INLINE uint32_t vpositive_bits(vf v)
{
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_NLE_UQ);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_setzero_ps(), _CMP_NLE_UQ));
#elif defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps(_mm_cmpnle_ps((__m128)v, _mm_setzero_ps()));
#else
    uint32_t bits = 0;
    for (int i = 0; i < VL; i++)
        bits |= (uint32_t) !(v[i] <= 0.0f) << i;
    return bits;
#endif
}

/* Lane i where bit i is set, else 0. */
INLINE vf vkeep_bits(vf v, uint32_t bits)
{
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_mov_ps((__mmask16)bits, (__m512)v);
#else
    vi lane_bit;
    for (int i = 0; i < VL; i++)
        lane_bit[i] = 1 << i;
    return vmask((vset_int((int32_t)bits) & lane_bit) == lane_bit, v);
#endif
}

#endif
