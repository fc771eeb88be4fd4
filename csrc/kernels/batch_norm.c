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

typedef struct {
    vf center, scale, offset;
} affine;

INLINE affine affine_at(const float *constants, int v)
{
    constants += v * VL % ATTN_LANES;
    return (affine){vload(constants), vload(constants + ATTN_LANES),
                    vload(constants + 2 * ATTN_LANES)};
}

INLINE vf normalise(vf x, affine by) { return vfma(x - by.center, by.scale, by.offset); }

INLINE void apply(float *y, uint16_t *mask, const float *x, const float *residual,
                  const float *constants, int64_t count, bool stream, const bool relu,
                  const bool with_mask, const bool with_residual)
{
    affine by[VECTORS_IN_BLOCK];
    for (int v = 0; v < VECTORS_IN_BLOCK; v++)
        by[v] = affine_at(constants, v);
    for (int64_t at = 0; at < count; at += ATTN_LANES) {
        uint32_t bits = 0;
        UNROLL(4)
        for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
            int64_t here = at + v * VL, left = count - here;
            if (left <= 0)
                break;
            vf value = normalise(load_some(x + here, left, vzero()), by[v]);
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
 * residual and mask may be NULL, mask is written with relu and residual. stream: see rows.h. */
void KERNEL(bn_apply)(float *y, uint16_t *mask, const float *x, const float *residual,
                      const float *constants, bool relu, int64_t count, bool stream)
{
    if (relu && mask && residual)
        apply(y, mask, x, residual, constants, count, stream, true, true, true);
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

/* Where a gradient passes: everywhere, where a bit of the mask is set, or where the normalised x is
 * positive, which is what a ReLU without a residual let pass. */
enum { EVERYWHERE, MASK, POSITIVE };

INLINE vf pass(vf d, vf x, affine by, uint32_t bits, const int gate)
{
    if (gate == MASK)
        return vkeep_bits(d, bits);
    if (gate == POSITIVE)
        return vmask(~(vi)(normalise(x, by) <= vzero()), d);
    return d;
}

INLINE void gradient_sums(float *sums, float *dresidual, const float *dy, const float *x,
                          const uint16_t *mask, const float *constants, int64_t rows,
                          int64_t stride, int64_t mask_stride, int64_t count, bool stream,
                          const int gate, const bool with_x, const bool with_residual)
{
    affine by[ACCUMULATORS];
    vf sum[ACCUMULATORS], product[ACCUMULATORS];
    UNROLL(4)
    for (int v = 0; v < ACCUMULATORS; v++) {
        by[v] = affine_at(constants, v);
        sum[v] = product[v] = vzero();
    }
    for (int64_t row = 0; row < rows; row++) {
        int64_t first = row * stride;
        const uint16_t *words = gate == MASK ? mask + row * mask_stride : NULL;
        for (int64_t at = 0; at < count; at += STRIP) {
            UNROLL(4)
            for (int v = 0; v < ACCUMULATORS; v++) {
                int64_t here = at + v * VL, left = count - here;
                if (left <= 0)
                    break;
                uint32_t bits = gate == MASK ? words[here / ATTN_LANES] >> (v * VL % ATTN_LANES) : 0;
                vf value = with_x ? load_some(x + first + here, left, by[v].center) : vzero();
                vf d = pass(load_some(dy + first + here, left, vzero()), value, by[v], bits, gate);
                if (with_residual)
                    store_row(dresidual + first + here, d, left, stream);
                sum[v] += d;
                if (with_x)
                    product[v] = vfma(d, value - by[v].center, product[v]);
            }
        }
    }
    fold(sums, sum);
    fold(sums + ATTN_LANES, product);
}

/* sums (2,16) = sum of d, sum of d * (x - center), a lane, where d is dy where it passes: by the
 * mask, or without one where relu says so and the normalised x is positive. d itself is left in
 * dresidual. constants: those of bn_apply. dresidual and mask may be NULL; x may be NULL without
 * relu: the second sum is 0 then. Strides are those of rows. */
void KERNEL(bn_gradient_sums)(float *sums, float *dresidual, const float *dy, const float *x,
                              const uint16_t *mask, const float *constants, bool relu,
                              int64_t rows, int64_t stride, int64_t mask_stride, int64_t count,
                              bool stream)
{
#define SUMS(gate, with_x, with_residual)                                                        \
    gradient_sums(sums, dresidual, dy, x, mask, constants, rows, stride, mask_stride, count,     \
                  stream, gate, with_x, with_residual)
    if (mask && x && dresidual)
        SUMS(MASK, true, true);
    else if (mask && dresidual)
        SUMS(MASK, false, true);
    else if (mask && x)
        SUMS(MASK, true, false);
    else if (mask)
        SUMS(MASK, false, false);
    else if (relu)
        SUMS(POSITIVE, true, false);
    else if (x)
        SUMS(EVERYWHERE, true, false);
    else
        SUMS(EVERYWHERE, false, false);
#undef SUMS
    if (stream)
        vstream_end();
}

INLINE void gradient(float *dx, const float *dy, const float *x, const uint16_t *mask,
                     const float *constants, int64_t count, bool stream, const int gate,
                     const bool training)
{
    affine by[VECTORS_IN_BLOCK];
    vf slope[VECTORS_IN_BLOCK], rest[VECTORS_IN_BLOCK];
    for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
        by[v] = affine_at(constants, v);
        slope[v] = vload(constants + 3 * ATTN_LANES + v * VL);
        rest[v] = vload(constants + 4 * ATTN_LANES + v * VL);
    }
    for (int64_t at = 0; at < count; at += ATTN_LANES) {
        uint32_t bits = gate == MASK ? mask[at / ATTN_LANES] : 0;
        UNROLL(4)
        for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
            int64_t here = at + v * VL, left = count - here;
            if (left <= 0)
                break;
            vf value = training || gate == POSITIVE ? load_some(x + here, left, vzero()) : vzero();
            vf d = load_some(dy + here, left, vzero());
            d = by[v].scale * pass(d, value, by[v], bits >> (v * VL), gate);
            if (training)
                d += vfma(value - by[v].center, slope[v], rest[v]);
            store_row(dx + here, d, left, stream);
        }
    }
}

/* dx = scale * d [+ slope * (x - center) + rest in training], d as above; constants (5,16) =
 * center, scale, offset, slope, rest. */
void KERNEL(bn_gradient)(float *dx, const float *dy, const float *x, const uint16_t *mask,
                         const float *constants, bool relu, bool training, int64_t count,
                         bool stream)
{
#define GRADIENT(gate, training) gradient(dx, dy, x, mask, constants, count, stream, gate, training)
    if (mask && training)
        GRADIENT(MASK, true);
    else if (mask)
        GRADIENT(MASK, false);
    else if (relu && training)
        GRADIENT(POSITIVE, true);
    else if (relu)
        GRADIENT(POSITIVE, false);
    else if (training)
        GRADIENT(EVERYWHERE, true);
    else
        GRADIENT(EVERYWHERE, false);
#undef GRADIENT
    if (stream)
        vstream_end();
}
