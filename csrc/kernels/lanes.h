/* Across lanes: transposing, and folding: VL vectors in, one vector out whose lane i is the fold of
 * v[i].
 *
 * One position's channels stand in the lanes of a register. Folding VL positions at once costs
 * VL - 1 steps of two shuffles, where one position at a time would cost log2(VL) steps each.
 */
#ifndef ATTN_LANES_H
#define ATTN_LANES_H

#include "simd.h"

#define LANES __builtin_shufflevector
/* fold_low_N and fold_high_N take the first and the second halves of all groups of 2N lanes. */
#if VL == 16
INLINE vf fold_low_8(vf a, vf b)
{
    return LANES(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
}
INLINE vf fold_high_8(vf a, vf b)
{
    return LANES(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
INLINE vf fold_low_4(vf a, vf b)
{
    return LANES(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
}
INLINE vf fold_high_4(vf a, vf b)
{
    return LANES(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
INLINE vf fold_low_2(vf a, vf b)
{
    return LANES(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29);
}
INLINE vf fold_high_2(vf a, vf b)
{
    return LANES(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
}
INLINE vf fold_low_1(vf a, vf b)
{
    return LANES(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
INLINE vf fold_high_1(vf a, vf b)
{
    return LANES(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
#define FOLD_ALL_LEVELS(LEVEL) LEVEL(8) LEVEL(4) LEVEL(2) LEVEL(1)
#elif VL == 8
INLINE vf fold_low_4(vf a, vf b) { return LANES(a, b, 0, 1, 2, 3, 8, 9, 10, 11); }
INLINE vf fold_high_4(vf a, vf b) { return LANES(a, b, 4, 5, 6, 7, 12, 13, 14, 15); }
INLINE vf fold_low_2(vf a, vf b) { return LANES(a, b, 0, 1, 4, 5, 8, 9, 12, 13); }
INLINE vf fold_high_2(vf a, vf b) { return LANES(a, b, 2, 3, 6, 7, 10, 11, 14, 15); }
INLINE vf fold_low_1(vf a, vf b) { return LANES(a, b, 0, 2, 4, 6, 8, 10, 12, 14); }
INLINE vf fold_high_1(vf a, vf b) { return LANES(a, b, 1, 3, 5, 7, 9, 11, 13, 15); }
#define FOLD_ALL_LEVELS(LEVEL) LEVEL(4) LEVEL(2) LEVEL(1)
#else
INLINE vf fold_low_2(vf a, vf b) { return LANES(a, b, 0, 1, 4, 5); }
INLINE vf fold_high_2(vf a, vf b) { return LANES(a, b, 2, 3, 6, 7); }
INLINE vf fold_low_1(vf a, vf b) { return LANES(a, b, 0, 2, 4, 6); }
INLINE vf fold_high_1(vf a, vf b) { return LANES(a, b, 1, 3, 5, 7); }
#define FOLD_ALL_LEVELS(LEVEL) LEVEL(2) LEVEL(1)
#endif

/* Lane i of the result: the sum of v[i]'s lanes. Overwrites v. */
INLINE vf fold_sum(vf v[VL])
{
#define LEVEL(n)                                                                    \
    UNROLL(16) for (int i = 0; i < (n); i++)                                        \
        v[i] = fold_low_##n(v[2 * i], v[2 * i + 1]) + fold_high_##n(v[2 * i], v[2 * i + 1]);
    FOLD_ALL_LEVELS(LEVEL)
#undef LEVEL
    return v[0];
}

/* zip_low(a, b) = a0, b0, a1, b1, ..: the first halves of both; zip_high: the second ones. */
#if VL == 16
INLINE vf zip_low(vf a, vf b)
{
    return LANES(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
INLINE vf zip_high(vf a, vf b)
{
    return LANES(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif VL == 8
INLINE vf zip_low(vf a, vf b)
{
    return LANES(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
INLINE vf zip_high(vf a, vf b)
{
    return LANES(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#else
INLINE vf zip_low(vf a, vf b)
{
    return LANES(a, b, 0, 4, 1, 5);
}
INLINE vf zip_high(vf a, vf b)
{
    return LANES(a, b, 2, 6, 3, 7);
}
#endif

/* v[i][j] <-> v[j][i]: each round brings one more bit of a lane's number into that of its vector. */
INLINE void transpose(vf v[VL])
{
    for (int size = 1; size < VL; size *= 2) {
        vf zipped[VL];
        UNROLL(16)
        for (int i = 0; i < VL / 2; i++) {
            zipped[2 * i] = zip_low(v[i], v[i + VL / 2]);
            zipped[2 * i + 1] = zip_high(v[i], v[i + VL / 2]);
        }
        UNROLL(16)
        for (int i = 0; i < VL; i++)
            v[i] = zipped[i];
    }
}

/* a > b ? yes : no, where no lane of the mask is needed elsewhere: AVX-512 then keeps it out of the
 * vector registers. */
INLINE vi choose_greater(vf a, vf b, vi yes, vi no)
{
#if VL == 16
    __mmask16 greater = _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
    return (vi)_mm512_mask_mov_epi32((__m512i)no, greater, (__m512i)yes);
#else
    return (vi)vselect(a > b, (vf)yes, (vf)no);
#endif
}

/* (value, at) = the larger of two values, and where it stands; a tie goes to the smaller `at`. */
INLINE void keep_larger(vf *value, vi *at, vf other, vi other_at)
{
    vi take = (other > *value) | ((other == *value) & (other_at < *at));
    *value = vselect(take, other, *value);
    *at = (vi)vselect(take, (vf)other_at, (vf)*at);
}

/* Lane i of the result: the largest of v[i]'s lanes, *first its smallest `at`. Overwrites both. */
INLINE vf fold_max(vf v[VL], vi at[VL], vi *first)
{
#define LEVEL(n)                                                                    \
    UNROLL(16) for (int i = 0; i < (n); i++) {                                      \
        vf a = v[2 * i], b = v[2 * i + 1], ia = (vf)at[2 * i], ib = (vf)at[2 * i + 1]; \
        vf value = fold_low_##n(a, b);                                              \
        vi where = (vi)fold_low_##n(ia, ib);                                        \
        keep_larger(&value, &where, fold_high_##n(a, b), (vi)fold_high_##n(ia, ib)); \
        v[i] = value;                                                               \
        at[i] = where;                                                              \
    }
    FOLD_ALL_LEVELS(LEVEL)
#undef LEVEL
    *first = at[0];
    return v[0];
}

/* 0, 1, .., VL - 1 */
INLINE vi lane_numbers(void)
{
    static const int32_t numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vload_int(numbers);
}

#endif
