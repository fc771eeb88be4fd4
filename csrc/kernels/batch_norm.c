/* Batch norm over rows. A row is `count` elements in a line of memory that use sixteen per-lane
 * constants again and again: (HW, 16) of one channel block in BLOCKED16, where each lane is a
 * channel; or the HW of one channel in PLAIN, where all sixteen constants are equal and the row may
 * end within a block. So one set of kernels serves both layouts.
 *
 * Sums are kept a lane; ops/batch_norm.c adds them up in double. A ReLU's mask is one 16-bit word a
 * block of 16 elements (bits.h).
 */
#include "bits.h"
#include "kernels.h"
#include "rows.h"

/* Elements that the four accumulators of a sum take in at once: a multiple of the block. */
enum { ACCUMULATORS = 4, STRIP = ACCUMULATORS * VL };

/* Four accumulators to the sixteen lanes of a block. */
INLINE void fold(float *sums, const vf accumulator[ACCUMULATORS])
{
    UNROLL(4)
    for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
        vf total = accumulator[v];
        for (int other = v + VECTORS_IN_BLOCK; other < ACCUMULATORS; other += VECTORS_IN_BLOCK)
            total += accumulator[other];
        vstore(sums + v * VL, total);
    }
}

/* Adds d = x - shift, and with_squares d * d, a lane; a lane beyond a row's end has d = 0. */
INLINE void add_rows(vf sum[ACCUMULATORS], vf squares[ACCUMULATORS], const vf shift[ACCUMULATORS],
                     const float *x, int64_t rows, int64_t stride, int64_t count,
                     const bool with_squares)
{
    for (int64_t row = 0; row < rows; row++) {
        const float *p = x + row * stride;
        int64_t at = 0;
        for (; at + STRIP <= count; at += STRIP) {
            UNROLL(4)
            for (int v = 0; v < ACCUMULATORS; v++) {
                vf d = vload(p + at + v * VL) - shift[v];
                sum[v] += d;
                if (with_squares)
                    squares[v] = vfma(d, d, squares[v]);
            }
        }
        UNROLL(4)
        for (int v = 0; v < ACCUMULATORS; v++) {
            int64_t left = count - at - v * VL;
            if (left > 0) {
                vf d = load_some(p + at + v * VL, left, shift[v]) - shift[v];
                sum[v] += d;
                if (with_squares)
                    squares[v] = vfma(d, d, squares[v]);
            }
        }
    }
}

/* A lane's mean over the first eighth of the rows. The mean of k out of n values is never further
 * than sqrt((n - k) / k) standard deviations from the mean of all, here 2.6: whatever the values
 * are, sums taken relative to it lose no more than a factor 8 of float's precision, and commonly
 * nothing. The first eighth, because memory is then read in order but for one short step back:
 * samples from all over a chunk made the whole pass take twice as long. */
INLINE void lane_shift(float *shift, const float *x, int64_t rows, int64_t stride, int64_t count)
{
    vf none[ACCUMULATORS], sum[ACCUMULATORS];
    UNROLL(4)
    for (int v = 0; v < ACCUMULATORS; v++)
        none[v] = sum[v] = vzero();
    int64_t taken = attn_ceil_div(rows, 8);
    if (rows < 8)
        count = attn_min(count, attn_ceil_div(count * rows, 8 * ATTN_LANES) * ATTN_LANES);
    add_rows(sum, none, none, x, taken, stride, count, false);
    fold(shift, sum);
    for (int lane = 0; lane < ATTN_LANES; lane++) {
        int64_t n = taken * (count / ATTN_LANES + (lane < count % ATTN_LANES));
        shift[lane] /= (float)attn_max(n, 1);
    }
}

/* sums (3,16) = a shift, and relative to it the sum and the sum of squares, a lane. */
void KERNEL(bn_statistics)(float *sums, const float *x, int64_t rows, int64_t stride, int64_t count)
{
    lane_shift(sums, x, rows, stride, count);
    vf shift[ACCUMULATORS], sum[ACCUMULATORS], squares[ACCUMULATORS];
    UNROLL(4)
    for (int v = 0; v < ACCUMULATORS; v++) {
        shift[v] = vload(sums + v * VL % ATTN_LANES);
        sum[v] = squares[v] = vzero();
    }
    add_rows(sum, squares, shift, x, rows, stride, count, true);
    fold(sums + ATTN_LANES, sum);
    fold(sums + 2 * ATTN_LANES, squares);
}

INLINE void apply(float *y, uint16_t *mask, const float *x, const float *residual,
                  const float *constants, int64_t count, bool stream, const bool relu,
                  const bool with_mask, const bool with_residual)
{
    vf center[VECTORS_IN_BLOCK], scale[VECTORS_IN_BLOCK], offset[VECTORS_IN_BLOCK];
    for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
        center[v] = vload(constants + v * VL);
        scale[v] = vload(constants + ATTN_LANES + v * VL);
        offset[v] = vload(constants + 2 * ATTN_LANES + v * VL);
    }
    for (int64_t at = 0; at < count; at += ATTN_LANES) {
        uint32_t bits = 0;
        UNROLL(4)
        for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
            int64_t here = at + v * VL, left = count - here;
            if (left <= 0)
                break;
            vf value = load_some(x + here, left, vzero());
            value = vfma(value - center[v], scale[v], offset[v]);
            if (with_residual)
                value += load_some(residual + here, left, vzero());
            if (with_mask)
                bits |= vpositive_bits(value) << (v * VL);
            if (relu)
                value = vmax(vzero(), value); /* in this order NaN stays NaN */
            store_row(y + here, value, left, stream);
        }
        if (with_mask)
            mask[at / ATTN_LANES] = (uint16_t)bits;
    }
}

/* y = [relu]((x - center) * scale + offset [+ residual]); constants (3,16) = center, scale, offset;
 * residual and mask may be NULL, mask is written only with relu. stream: see rows.h. */
void KERNEL(bn_apply)(float *y, uint16_t *mask, const float *x, const float *residual,
                      const float *constants, bool relu, int64_t count, bool stream)
{
    if (relu && mask && residual)
        apply(y, mask, x, residual, constants, count, stream, true, true, true);
    else if (relu && mask)
        apply(y, mask, x, NULL, constants, count, stream, true, true, false);
    else if (relu && residual)
        apply(y, NULL, x, residual, constants, count, stream, true, false, true);
    else if (relu)
        apply(y, NULL, x, NULL, constants, count, stream, true, false, false);
    else if (residual)
        apply(y, NULL, x, residual, constants, count, stream, false, false, true);
    else
        apply(y, NULL, x, NULL, constants, count, stream, false, false, false);
    if (stream)
        vstream_end();
}

INLINE void gradient_sums(float *sums, const float *dy, const float *x, const uint16_t *mask,
                          const float *center, int64_t rows, int64_t stride, int64_t mask_stride,
                          int64_t count, const bool with_mask, const bool with_x)
{
    vf middle[ACCUMULATORS], sum[ACCUMULATORS], product[ACCUMULATORS];
    UNROLL(4)
    for (int v = 0; v < ACCUMULATORS; v++) {
        middle[v] = vload(center + v * VL % ATTN_LANES);
        sum[v] = product[v] = vzero();
    }
    for (int64_t row = 0; row < rows; row++) {
        const float *g = dy + row * stride, *p = with_x ? x + row * stride : NULL;
        const uint16_t *words = with_mask ? mask + row * mask_stride : NULL;
        for (int64_t at = 0; at < count; at += STRIP) {
            UNROLL(4)
            for (int v = 0; v < ACCUMULATORS; v++) {
                int64_t here = at + v * VL, left = count - here;
                if (left <= 0)
                    break;
                vf d = load_some(g + here, left, vzero());
                if (with_mask)
                    d = vkeep_bits(d, (uint32_t)words[here / ATTN_LANES] >> (v * VL % ATTN_LANES));
                sum[v] += d;
                if (with_x)
                    product[v] = vfma(d, load_some(p + here, left, middle[v]) - middle[v],
                                      product[v]);
            }
        }
    }
    fold(sums, sum);
    fold(sums + ATTN_LANES, product);
}

/* sums (2,16) = sum of dy, sum of dy * (x - center), a lane, dy only where the mask is set.
 * mask may be NULL: everywhere; x may be NULL: the second sum is 0. Strides are those of rows. */
void KERNEL(bn_gradient_sums)(float *sums, const float *dy, const float *x, const uint16_t *mask,
                              const float *center, int64_t rows, int64_t stride,
                              int64_t mask_stride, int64_t count)
{
    if (mask && x)
        gradient_sums(sums, dy, x, mask, center, rows, stride, mask_stride, count, true, true);
    else if (mask)
        gradient_sums(sums, dy, x, mask, center, rows, stride, mask_stride, count, true, false);
    else if (x)
        gradient_sums(sums, dy, x, mask, center, rows, stride, mask_stride, count, false, true);
    else
        gradient_sums(sums, dy, x, mask, center, rows, stride, mask_stride, count, false, false);
}

INLINE void gradient(float *dx, float *dresidual, const float *dy, const float *x,
                     const uint16_t *mask, const float *constants, int64_t count, bool stream,
                     const bool with_residual, const bool with_mask, const bool with_x)
{
    vf center[VECTORS_IN_BLOCK], a[VECTORS_IN_BLOCK], b[VECTORS_IN_BLOCK], c[VECTORS_IN_BLOCK];
    for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
        center[v] = vload(constants + v * VL);
        a[v] = vload(constants + ATTN_LANES + v * VL);
        b[v] = vload(constants + 2 * ATTN_LANES + v * VL);
        c[v] = vload(constants + 3 * ATTN_LANES + v * VL);
    }
    for (int64_t at = 0; at < count; at += ATTN_LANES) {
        uint32_t bits = with_mask ? mask[at / ATTN_LANES] : 0;
        UNROLL(4)
        for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
            int64_t here = at + v * VL, left = count - here;
            if (left <= 0)
                break;
            vf d = load_some(dy + here, left, vzero());
            if (with_mask)
                d = vkeep_bits(d, bits >> (v * VL));
            if (with_residual)
                store_row(dresidual + here, d, left, stream);
            vf value = a[v] * d;
            if (with_x)
                value += vfma(load_some(x + here, left, vzero()) - center[v], b[v], c[v]);
            store_row(dx + here, value, left, stream);
        }
    }
}

/* dx = a * dy + b * (x - center) + c, dresidual = dy, dy only where the mask is set; constants
 * (4,16) = center, a, b, c. NULL: no dresidual is wanted, no mask, dx = a * dy alone. A dresidual
 * comes with a mask only: without one it is dy itself. */
void KERNEL(bn_gradient)(float *dx, float *dresidual, const float *dy, const float *x,
                         const uint16_t *mask, const float *constants, int64_t count, bool stream)
{
    if (dresidual && x)
        gradient(dx, dresidual, dy, x, mask, constants, count, stream, true, true, true);
    else if (dresidual)
        gradient(dx, dresidual, dy, x, mask, constants, count, stream, true, true, false);
    else if (mask && x)
        gradient(dx, NULL, dy, x, mask, constants, count, stream, false, true, true);
    else if (mask)
        gradient(dx, NULL, dy, x, mask, constants, count, stream, false, true, false);
    else if (x)
        gradient(dx, NULL, dy, x, mask, constants, count, stream, false, false, true);
    else
        gradient(dx, NULL, dy, x, mask, constants, count, stream, false, false, false);
    if (stream)
        vstream_end();
}
