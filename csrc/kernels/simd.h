/* One vector type, as wide as the instruction set that the file is compiled for.
 *
 * VL lanes of float: 16 with AVX-512, 8 with AVX2, 4 elsewhere (SSE2, NEON, or plain C through the
 * compiler's vector extension). Kernels are written once with these names; a block of 16 channels
 * is 16 / VL vectors.
 */
#ifndef ATTN_SIMD_H
#define ATTN_SIMD_H

#include "../attnnet.h"

#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define VL 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define VL 8
#else
#define VL 4
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#endif

#define VECTORS_IN_BLOCK (ATTN_LANES / VL)
#define INLINE static inline __attribute__((always_inline))
#define ATTN_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define UNROLL(n) ATTN_PRAGMA(unroll n)
#else
#define UNROLL(n) ATTN_PRAGMA(GCC unroll n)
#endif

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef float vf_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));

/* After the last vstream of a kernel: other threads see the data only behind a fence. */
INLINE void vstream_end(void)
{
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

INLINE vf vload(const float *p) { return *(const vf_unaligned *)p; }
INLINE void vstore(float *p, vf v) { *(vf_unaligned *)p = v; }
INLINE vi vload_int(const int32_t *p) { return *(const vi_unaligned *)p; }
INLINE void vstore_int(int32_t *p, vi v) { *(vi_unaligned *)p = v; }
INLINE vf vset(float s) { return s - (vf){0}; }
INLINE vf vzero(void) { return (vf){0}; }
INLINE vi vset_int(int32_t s) { return s - (vi){0}; }

/* The first n < VL elements; the other lanes are 0. */
INLINE vf vload_part(const float *p, int64_t n)
{
    float lanes[VL] = {0};
    memcpy(lanes, p, (size_t)n * sizeof(float));
    return vload(lanes);
}
INLINE void vstore_part(float *p, vf v, int64_t n)
{
    float lanes[VL];
    vstore(lanes, v);
    memcpy(p, lanes, (size_t)n * sizeof(float));
}

/* Where the mask (all ones or all zeros a lane) is set, a, else b. */
INLINE vf vselect(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
INLINE vf vmask(vi mask, vf a) { return (vf)((vi)a & mask); }
INLINE vf vabs(vf a) { return (vf)((vi)a & vset_int(0x7fffffff)); }

/* a > b ? a : b, and a < b ? a : b: where a lane of a or b is NaN the result is b. */
#if defined(__AVX512F__)
INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vf vsqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
INLINE vf vround(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 8); }
INLINE vi vto_int(vf a) { return (vi)_mm512_cvtps_epi32((__m512)a); }
INLINE void vstream(float *p, vf v) { _mm512_stream_ps(p, (__m512)v); }
#elif defined(__AVX2__)
INLINE vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vf vsqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
INLINE vf vround(vf a) { return (vf)_mm256_round_ps((__m256)a, 8); }
INLINE vi vto_int(vf a) { return (vi)_mm256_cvtps_epi32((__m256)a); }
INLINE void vstream(float *p, vf v) { _mm256_stream_ps(p, (__m256)v); }
#else
INLINE vf vmax(vf a, vf b) { return vselect(a > b, a, b); }
INLINE vf vmin(vf a, vf b) { return vselect(a < b, a, b); }
/* Adding and taking away 1.5 * 2^23 rounds to the nearest integer, |a| < 2^22. */
INLINE vf vround(vf a)
{
    const vf magic = vset(12582912.0f);
    vf rounded = a + magic;
    __asm__("" : "+m"(rounded)); /* keeps the compiler from simplifying the two away */
    return rounded - magic;
}
INLINE vi vto_int(vf a) { return __builtin_convertvector(a, vi); }
INLINE void vstream(float *p, vf v) { vstore(p, v); }
#if defined(__SSE2__)
INLINE vf vsqrt(vf a) { return (vf)_mm_sqrt_ps((__m128)a); }
#elif defined(__ARM_NEON) && defined(__aarch64__)
INLINE vf vsqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
#else
INLINE vf vsqrt(vf a)
{
    for (int i = 0; i < VL; i++)
        a[i] = sqrtf(a[i]);
    return a;
}
#endif
#endif

/* a * b + c; one rounding where the set has FMA (the compiler contracts it). */
INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }

/* The sum of the lanes, always in the same order: halves are folded onto each other. */
INLINE float vsum(vf v)
{
    float lanes[VL];
    vstore(lanes, v);
    for (int width = VL / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}
INLINE float vmax_lane(vf v)
{
    float lanes[VL];
    vstore(lanes, v);
    float best = lanes[0];
    for (int i = 1; i < VL; i++)
        best = lanes[i] > best ? lanes[i] : best;
    return best;
}

/* exp(x): 2^n * e^r with |r| <= ln2 / 2 and a polynomial of degree 6; relative error below 1e-7.
 * Overflows to inf, underflows to 0 below -87.3, keeps NaN. */
INLINE vf vexp(vf x)
{
    const vf log2e = vset(1.44269504088896341f);
    vf clamped = vmin(vmax(x, vset(-87.33654f)), vset(88.72283f));
    vf n = vround(clamped * log2e);
    vf r = vfma(n, vset(-0.693359375f), clamped);
    r = vfma(n, vset(2.12194440e-4f), r);
    vf p = vset(1.3977575e-3f);
    p = vfma(p, r, vset(8.3638610e-3f));
    p = vfma(p, r, vset(4.1666091e-2f));
    p = vfma(p, r, vset(1.6666519e-1f));
    p = vfma(p, r, vset(5.0000000e-1f));
    p = vfma(p, r * r, r) + vset(1.0f);
    vi half = vto_int(n) >> 1; /* two factors: 2^128 alone would overflow */
    vf scale1 = (vf)((half + 127) << 23), scale2 = (vf)((vto_int(n) - half + 127) << 23);
    vf y = p * scale1 * scale2;
    y = vselect(x > vset(88.72283f), vset(INFINITY), y);
    y = vselect(x < vset(-87.33654f), vzero(), y);
    return vselect(x != x, x, y);
}

INLINE vf vsigmoid(vf x)
{
    vf e = vexp((vf)((vi)vabs(x) | vset_int((int32_t)0x80000000u))); /* exp(-|x|), never overflows */
    vf positive = vset(1.0f) / (vset(1.0f) + e);
    return vselect(x < vzero(), e * positive, positive);
}

/* tanh: for small |x| its odd series keeps the relative error, else (1 - e) / (1 + e). */
INLINE vf vtanh(vf x)
{
    vf magnitude = vabs(x);
    vf e = vexp(magnitude * vset(-2.0f));
    vf large = (vset(1.0f) - e) / (vset(1.0f) + e);
    large = (vf)((vi)large | ((vi)x & vset_int((int32_t)0x80000000u)));
    vf s = x * x;
    vf p = vset(-5.70498872745e-3f);
    p = vfma(p, s, vset(2.06390887954e-2f));
    p = vfma(p, s, vset(-5.37397155531e-2f));
    p = vfma(p, s, vset(1.33314422036e-1f));
    p = vfma(p, s, vset(-3.33332819422e-1f));
    vf small = vfma(p * s, x, x);
    return vselect(magnitude < vset(0.625f), small, vselect(x != x, x, large));
}

/* log of positive normal and subnormal numbers; log(0) = -inf, of negatives NaN. */
INLINE vf vlog(vf x)
{
    vi tiny = x < vset(1.17549435e-38f);
    vf scaled = vselect(tiny, x * vset(8388608.0f), x); /* subnormals: times 2^23 */
    vi bits = (vi)scaled;
    vi exponent = ((bits >> 23) & 255) - 126;
    vf m = (vf)((bits & 0x007fffff) | 0x3f000000); /* in [0.5, 1) */
    vi low = m < vset(0.707106781186547524f);
    exponent = exponent + low; /* low is -1 where set */
    m = m + vmask(low, m) - vset(1.0f);
    vf z = m * m;
    vf p = vset(7.0376836292e-2f);
    p = vfma(p, m, vset(-1.1514610310e-1f));
    p = vfma(p, m, vset(1.1676998740e-1f));
    p = vfma(p, m, vset(-1.2420140846e-1f));
    p = vfma(p, m, vset(1.4249322787e-1f));
    p = vfma(p, m, vset(-1.6668057665e-1f));
    p = vfma(p, m, vset(2.0000714765e-1f));
    p = vfma(p, m, vset(-2.4999993993e-1f));
    p = vfma(p, m, vset(3.3333331174e-1f));
    vf e = __builtin_convertvector(exponent, vf);
    e = e - vmask(tiny, vset(23.0f));
    vf y = p * m * z;
    y = vfma(e, vset(-2.12194440e-4f), y);
    y = vfma(z, vset(-0.5f), y);
    y = m + y;
    y = vfma(e, vset(0.693359375f), y);
    y = vselect(x == vzero(), vset(-INFINITY), y);
    y = vselect(x < vzero(), vset(NAN), y);
    y = vselect(x == vset(INFINITY), x, y);
    return vselect(x != x, x, y);
}

#endif
