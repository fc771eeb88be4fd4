/* What the relative attention computes with: a base-2 exponential, the sums over the lanes of many
 * vectors, and three small matrix products. */
#ifndef ATTN_ATTENTION_PRODUCTS_H
#define ATTN_ATTENTION_PRODUCTS_H

#include "simd.h"

enum {
    QT = 4,                /* queries of a register tile */
    KT = VL == 16 ? 4 : 2, /* vectors of keys of a register tile */
};

INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* 2^x for x <= 126, to 1.5e-7: the polynomial is the minimax one of degree 5 on [0, 1]. 0 at minus
 * infinity and where AVX2 and the baseline would leave the normal range; NaN for NaN. */
INLINE vf exp2_small(vf x)
{
#if defined(__AVX512F__)
    const vf clamped = vmax(vset(-200.0f), x);
    const vf n = (vf)_mm512_roundscale_ps((__m512)clamped, 9); /* floor */
#else
    const vf clamped = vmax(vset(-126.0f), x);
    const vf n = vround(clamped - vset(0.5f));
#endif
    const vf r = clamped - n;
    vf p = vset(0x1.ec320ap-10f);
    p = vfma(p, r, vset(0x1.26900cp-7f));
    p = vfma(p, r, vset(0x1.c95446p-5f));
    p = vfma(p, r, vset(0x1.ebd5a8p-3f));
    p = vfma(p, r, vset(0x1.62e4f6p-1f));
    p = vfma(p, r, vset(0x1.fffffep-1f));
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n); /* p * 2^n */
#else
    return vmask(~(x < vset(-126.0f)), (vf)((vi)p + (vto_int(n) << 23)));
#endif
}

INLINE bool any_above(vf a, float limit)
{
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)vset(limit), _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps((__m256)(a > vset(limit))) != 0;
#else
    vi above = a > vset(limit);
    return (above[0] | above[1] | above[2] | above[3]) != 0;
#endif
}

/* One step of lane_sums: lane l of the result is a[l] + a[l ^ width] where l & width is 0, else the
 * same of b. */
INLINE vf fold_pair(vf a, vf b, const int width)
{
#if defined(__clang__) || !defined(__GNUC__)
    vf y;
    for (int l = 0; l < VL; l++)
        y[l] = l & width ? b[l] + b[l ^ width] : a[l] + a[l ^ width];
    return y;
#else
    vi lane;
    for (int l = 0; l < VL; l++)
        lane[l] = l;
    const vi of_b = ((lane & width) != 0) & VL;
    return __builtin_shuffle(a, b, lane | of_b) + __builtin_shuffle(a, b, (lane ^ width) | of_b);
#endif
}

/* y[i] = the sum of the lanes of vector i, always in the same order; count is rounded up to VL on
 * both sides. */
static void lane_sums(float *y, const float *lanes, int64_t count)
{
    for (int64_t i = 0; i < count; i += VL) {
        vf v[VL];
        UNROLL(16)
        for (int j = 0; j < VL; j++)
            v[j] = vload(lanes + (i + j) * VL);
        UNROLL(4)
        for (int width = VL / 2; width > 0; width /= 2) {
            UNROLL(8)
            for (int j = 0; j < width; j++)
                v[j] = fold_pair(v[j], v[j + width], width);
        }
        vstore(y + i, v[0]);
    }
}

/* The three products. Rows are `width` floats wide, a multiple of VL; tiles are up to 4 rows by up
 * to KT vectors, with both as constants for the compiler. */

/* acc[r][t] += sum over s < depth of c[r * c_row + s * c_depth] * b[s * b_stride + t * VL ..]. */
INLINE void outer_tile(vf acc[][KT], const int rows, const int columns, const float *c,
                       int64_t c_row, int64_t c_depth, const float *b, int64_t b_stride,
                       int64_t depth)
{
    for (int64_t s = 0; s < depth; s++) {
        vf right[KT];
        UNROLL(4)
        for (int t = 0; t < columns; t++)
            right[t] = vload(b + s * b_stride + t * VL);
        UNROLL(4)
        for (int r = 0; r < rows; r++) {
            const vf factor = vset(c[r * c_row + s * c_depth]);
            UNROLL(4)
            for (int t = 0; t < columns; t++)
                acc[r][t] = vfma(factor, right[t], acc[r][t]);
        }
    }
}

INLINE void outer_block(float *y, int64_t y_stride, const int rows, const int columns,
                        const float *c, int64_t c_row, int64_t c_depth, const float *b,
                        int64_t b_stride, int64_t depth)
{
    vf acc[4][KT];
    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(4)
        for (int t = 0; t < columns; t++)
            acc[r][t] = vload(y + r * y_stride + t * VL);
    outer_tile(acc, rows, columns, c, c_row, c_depth, b, b_stride, depth);
    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(4)
        for (int t = 0; t < columns; t++)
            vstore(y + r * y_stride + t * VL, acc[r][t]);
}

INLINE void outer_rows(float *y, int64_t y_stride, const int rows, const float *c, int64_t c_row,
                       int64_t c_depth, const float *b, int64_t b_stride, int64_t depth,
                       int64_t width)
{
    int64_t x = 0;
    for (; x + KT * VL <= width; x += KT * VL)
        outer_block(y + x, y_stride, rows, KT, c, c_row, c_depth, b + x, b_stride, depth);
    for (; KT > 2 && x + 2 * VL <= width; x += 2 * VL)
        outer_block(y + x, y_stride, rows, 2, c, c_row, c_depth, b + x, b_stride, depth);
    for (; x < width; x += VL)
        outer_block(y + x, y_stride, rows, 1, c, c_row, c_depth, b + x, b_stride, depth);
}

/* y(n, width) += c(queries, n)^T a(queries, width): gradients of keys, values and tables. */
static __attribute__((noinline, unused)) void
outer_add(float *y, int64_t y_stride, const float *a, int64_t a_stride, const float *c, int64_t n,
          int64_t width, int64_t queries)
{
    int64_t j = 0;
    for (; j + 4 <= n; j += 4)
        outer_rows(y + j * y_stride, y_stride, 4, c + j, 1, n, a, a_stride, queries, width);
    for (; j + 2 <= n; j += 2)
        outer_rows(y + j * y_stride, y_stride, 2, c + j, 1, n, a, a_stride, queries, width);
    for (; j < n; j++)
        outer_rows(y + j * y_stride, y_stride, 1, c + j, 1, n, a, a_stride, queries, width);
}

INLINE void dot_tile(float *lanes, int64_t n, const float *a, int64_t a_stride, const float *b,
                     int64_t b_stride, int64_t width, const int columns)
{
    vf acc[QT][KT];
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            acc[r][j] = vload(lanes + (r * n + j) * VL);
    for (int64_t t = 0; t < width; t += VL) {
        vf right[KT];
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            right[j] = vload(b + j * b_stride + t);
        UNROLL(4)
        for (int r = 0; r < QT; r++) {
            const vf left = vload(a + r * a_stride + t);
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                acc[r][j] = vfma(left, right[j], acc[r][j]);
        }
    }
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            vstore(lanes + (r * n + j) * VL, acc[r][j]);
}

INLINE void dot_rows(float *lanes, int64_t n, const float *a, int64_t a_stride, const float *b,
                     int64_t b_stride, int64_t width, int64_t queries, const int columns)
{
    for (int64_t q = 0; q < queries; q += QT)
        dot_tile(lanes + q * n * VL, n, a + q * a_stride, a_stride, b, b_stride, width, columns);
}

/* lanes(queries, n, VL) += a(queries, width) b(n, width)^T, the sum over the lanes left for later:
 * outputs, and gradients of queries. */
static __attribute__((noinline)) void dot_add(float *lanes, const float *a, int64_t a_stride,
                                              const float *b, int64_t b_stride, int64_t n,
                                              int64_t width, int64_t queries)
{
    int64_t j = 0;
    for (; j + KT <= n; j += KT)
        dot_rows(lanes + j * VL, n, a, a_stride, b + j * b_stride, b_stride, width, queries, KT);
    for (; KT > 2 && j + 2 <= n; j += 2)
        dot_rows(lanes + j * VL, n, a, a_stride, b + j * b_stride, b_stride, width, queries, 2);
    for (; j < n; j++)
        dot_rows(lanes + j * VL, n, a, a_stride, b + j * b_stride, b_stride, width, queries, 1);
}

#endif
