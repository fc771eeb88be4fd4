/* What happens around the products of gemm.c: rows of sixteen channels are fetched from a BLOCKED16
 * tensor and put back, weights are packed into panels. */
#include "kernels.h"
#include "lanes.h"

/* y(rows, 16) = the rows of x that stand at `at` (counted in rows); at -1, outside the image, 0.
 * What stands `next` floats further is wanted soon. */
void KERNEL(gather_rows)(float *y, const float *x, const int64_t *at, int64_t rows, int64_t next)
{
    for (int64_t row = 0; row < rows; row++, y += ATTN_LANES) {
        const float *from = x + at[row] * ATTN_LANES;
        __builtin_prefetch(from + next);
        for (int part = 0; part < ATTN_LANES; part += VL)
            vstore(y + part, at[row] < 0 ? vzero() : vload(from + part));
    }
}

/* The rows of y at `at` (or, where that is NULL, all in order) = x(rows, 16), finished. The
 * residual has the places of y; x may be y itself. */
void KERNEL(store_rows)(float *y, const int64_t *at, const float *x, int64_t rows,
                        const attn_finish *finish)
{
    bool stream = finish->stream && VL == ATTN_LANES; /* only whole cache lines are worth it */
    for (int part = 0; part < ATTN_LANES; part += VL) {
        vf bias = finish->bias ? vload(finish->bias + part) : vzero();
        for (int64_t row = 0; row < rows; row++) {
            int64_t place = (at ? at[row] : row) * ATTN_LANES + part;
            vf v = vload(x + row * ATTN_LANES + part) + bias;
            if (finish->residual)
                v += vload(finish->residual + place);
            if (finish->relu)
                v = vmax(vzero(), v); /* NaN stays */
            if (stream)
                vstream(y + place, v);
            else
                vstore(y + place, v);
        }
    }
    if (stream)
        vstream_end();
}

enum { STRIP = 16, MOST_TAPS = 9 };

INLINE void pack(float *panel, const float *w, const int64_t taps, int64_t depth_stride,
                 int64_t width_stride, int64_t depth, int64_t width)
{
    /* In strips: reads come along the rows of w, writes stay within a few lines. */
    for (int64_t begin = 0; begin < depth; begin += STRIP)
        for (int64_t i = 0; i < width; i++)
            for (int64_t d = begin; d < attn_min(depth, begin + STRIP); d++) {
                const float *from = w + d * depth_stride + i * width_stride;
                if (taps > 1 || d == begin)
                    __builtin_prefetch(from + STRIP * depth_stride, 0, 2);
                for (int64_t tap = 0; tap < taps; tap++)
                    panel[(tap * depth + d) * width + i] = from[tap];
            }
}

/* y(columns, rows) = x(rows, columns)^T, both multiples of 16; y_step, x_step floats a row. */
INLINE void copy_transposed(float *y, int64_t y_step, const float *x, int64_t x_step, int64_t rows,
                            int64_t columns)
{
    for (int64_t j = 0; j < columns; j += VL)
        for (int64_t i = 0; i < rows; i += VL) {
            vf v[VL];
            UNROLL(16)
            for (int lane = 0; lane < VL; lane++) {
                const float *from = x + (i + lane) * x_step + j;
                __builtin_prefetch(from + STRIP);
                v[lane] = vload(from);
            }
            transpose(v);
            UNROLL(16)
            for (int lane = 0; lane < VL; lane++)
                vstore(y + (j + lane) * y_step + i, v[lane]);
        }
}

/* panel(taps, depth, width) = w[d * depth_stride + i * width_stride + tap]. */
void KERNEL(pack_panel)(float *panel, const float *w, int64_t taps, int64_t depth_stride,
                        int64_t width_stride, int64_t depth, int64_t width)
{
    if (taps == 1 && width_stride == 1)
        for (int64_t d = 0; d < depth; d++)
            for (int64_t i = 0; i < width; i += VL)
                vstore(panel + d * width + i, vload(w + d * depth_stride + i));
    else if (taps == 1 && depth_stride == 1 && depth % ATTN_LANES == 0)
        copy_transposed(panel, width, w, width_stride, width, depth);
    else if (taps == 1)
        pack(panel, w, 1, depth_stride, width_stride, depth, width);
    else if (taps == 9)
        pack(panel, w, 9, depth_stride, width_stride, depth, width);
    else
        pack(panel, w, taps, depth_stride, width_stride, depth, width);
}

/* The way back, taps <= 9: w[...] = the sum of `parts` such panels that stand `part_stride` apart,
 * in their order. */
void KERNEL(unpack_panel)(float *w, const float *panel, int64_t part_stride, int64_t parts,
                          int64_t taps, int64_t depth_stride, int64_t width_stride, int64_t depth,
                          int64_t width)
{
    for (int64_t begin = 0; begin < depth; begin += STRIP) {
        float sums[MOST_TAPS][STRIP * ATTN_PANEL];
        int64_t rows = attn_min(STRIP, depth - begin);
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t j = 0; j < rows * width; j += VL) {
                const float *part = panel + (tap * depth + begin) * width + j;
                vf total = vload(part);
                for (int64_t p = 1; p < parts; p++)
                    total += vload(part + p * part_stride);
                vstore(sums[tap] + j, total);
            }
        if (taps == 1 && depth_stride == 1 && rows == STRIP) {
            copy_transposed(w + begin, width_stride, sums[0], width, rows, width);
            continue;
        }
        for (int64_t i = 0; i < width; i++)
            for (int64_t d = 0; d < rows; d++)
                for (int64_t tap = 0; tap < taps; tap++)
                    w[(begin + d) * depth_stride + i * width_stride + tap] =
                        sums[tap][d * width + i];
    }
}

/* sums(16) = the sum over `images` images, `image_step` floats apart, of `rows` rows each. Rows are
 * added up an image at a time: the rounding error grows with rows + images, not their product. */
void KERNEL(sum_rows)(float *sums, const float *x, int64_t image_step, int64_t images, int64_t rows)
{
    for (int part = 0; part < ATTN_LANES; part += VL) {
        vf total = vzero();
        for (int64_t n = 0; n < images; n++) {
            const float *image = x + n * image_step + part;
            vf even = vzero(), odd = vzero();
            int64_t row = 0;
            for (; row + 1 < rows; row += 2) {
                even += vload(image + row * ATTN_LANES);
                odd += vload(image + (row + 1) * ATTN_LANES);
            }
            if (row < rows)
                even += vload(image + row * ATTN_LANES);
            total += even + odd;
        }
        vstore(sums + part, total);
    }
}
