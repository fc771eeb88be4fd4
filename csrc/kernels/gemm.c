/* The two matrix products inside every blocked convolution. Their operands are
 *
 *   blocks   a matrix (rows, depth) as [depth / 16][rows][16], `block` floats from one group of
 *            sixteen columns to the next: a run of pixels of a BLOCKED16 tensor, as it stands
 *   panel    a matrix (depth, width) as [depth][width], width 16 or 32
 *
 * The accumulators of a tile stay in registers while the whole depth goes by; each number of the
 * left matrix is broadcast from memory and meets a few vectors of the right one.
 */
#include "kernels.h"
#include "simd.h"

/* Rows and vectors of a tile of accumulators: most of the registers, with one column of vectors to
 * spare for the right operand and one register for the left. */
#if VL == 16
enum { ROWS = 14, COLUMNS = 2, OUTER_ROWS = 8 }; /* 28 of 32 registers */
#elif defined(__aarch64__)
enum { ROWS = 6, COLUMNS = 4, OUTER_ROWS = 4 }; /* 24 of 32 */
#else
enum { ROWS = 6, COLUMNS = 2, OUTER_ROWS = 4 }; /* 12 of 16 */
#endif

/* Whether a whole tile fits beside `column`; a panel of 16 columns is half an AVX-512 tile. */
#define WHOLE_TILE(column) (COLUMNS * VL <= ATTN_LANES || width - (column) >= COLUMNS * VL)

/* So much of the summed axis goes by before the next tile, so that what several tiles share stays in
 * the first cache: 16 KiB of a panel, 32 KiB of two block columns. */
enum { DEPTH_SLICE = 128, ROW_SLICE = 256 };

/* Where column `column` of row `row` stands in blocks. */
INLINE int64_t in_blocks(int64_t row, int64_t column, int64_t block)
{
    return column / ATTN_LANES * block + row * ATTN_LANES + column % ATTN_LANES;
}

INLINE void row_tile(float *y, int64_t y_block, const float *a, int64_t a_block, const float *b,
                     int64_t width, int64_t depth, bool add, const float *next, const int rows,
                     const int columns)
{
    vf sum[ROWS][COLUMNS];
    UNROLL(14)
    for (int i = 0; i < rows; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            sum[i][j] = add ? vload(y + in_blocks(i, j * VL, y_block)) : vzero();
    for (; depth > 0; depth -= ATTN_LANES, a += a_block)
        for (int lane = 0; lane < ATTN_LANES; lane++, b += width) {
            __builtin_prefetch(a + a_block + lane * ATTN_LANES);
            __builtin_prefetch(next, 0, 2);
            next += ATTN_LANES;
            vf right[COLUMNS];
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                right[j] = vload(b + j * VL);
            UNROLL(14)
            for (int i = 0; i < rows; i++) {
                vf left = vset(a[i * ATTN_LANES + lane]);
                UNROLL(4)
                for (int j = 0; j < columns; j++)
                    sum[i][j] = vfma(left, right[j], sum[i][j]);
            }
        }
    UNROLL(14)
    for (int i = 0; i < rows; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            vstore(y + in_blocks(i, j * VL, y_block), sum[i][j]);
}

/* The tile with its sizes known to the compiler. */
INLINE void row_tile_of(int rows, float *y, int64_t y_block, const float *a, int64_t a_block,
                        const float *b, int64_t width, int64_t depth, bool add, const float *next,
                        const int columns)
{
    switch (rows) {
#define CASE(n)                                                                          \
    case n:                                                                              \
        row_tile(y, y_block, a, a_block, b, width, depth, add, next, n, columns);        \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if VL == 16
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#endif
#undef CASE
    }
}

/* y(rows, width) = [y +] a(rows, depth) b(depth, width): a and y in blocks, b a panel.
 * depth is a multiple of 16; where it is 0, y becomes 0. */
void KERNEL(gemm_rows)(float *y, int64_t y_block, const float *a, int64_t a_block, const float *b,
                       int64_t rows, int64_t depth, int64_t width, bool add)
{
    int64_t groups = attn_ceil_div(rows, ROWS);
    int64_t begin = 0;
    do {
        int64_t slice = attn_min(depth - begin, DEPTH_SLICE);
        const float *left = a + begin / ATTN_LANES * a_block;
        for (int64_t group = 0, row = 0; group < groups; group++) {
            int count = (int)attn_ceil_div(rows - row, groups - group); /* even shares */
            const float *slice_left = left + row * ATTN_LANES;
            for (int64_t column = 0; column < width; column += COLUMNS * VL) {
                float *out = y + in_blocks(row, column, y_block);
                const float *right = b + begin * width + column;
                bool again = add || begin > 0;
                const float *next = b + (begin + slice) * width + group * slice * ATTN_LANES;
                if (WHOLE_TILE(column))
                    row_tile_of(count, out, y_block, slice_left, a_block, right, width, slice,
                                again, next, COLUMNS);
                else
                    row_tile_of(count, out, y_block, slice_left, a_block, right, width, slice,
                                again, next, VECTORS_IN_BLOCK);
            }
            row += count;
        }
        begin += slice;
    } while (begin < depth);
}

/* y(8 or 4 rows, columns * VL) = [y +] the sum over `rows` of a's columns times b's. */
INLINE void outer_tile(float *y, int64_t width, const float *a, int64_t a_block, const float *b,
                       int64_t b_block, int64_t rows, bool add, const int columns)
{
    vf sum[OUTER_ROWS][COLUMNS];
    UNROLL(8)
    for (int i = 0; i < OUTER_ROWS; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            sum[i][j] = add ? vload(y + i * width + j * VL) : vzero();
    for (int64_t row = 0; row < rows; row++, a += ATTN_LANES, b += ATTN_LANES) {
        __builtin_prefetch(a + a_block);
        vf right[COLUMNS];
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            right[j] = vload(b + in_blocks(0, j * VL, b_block));
        UNROLL(8)
        for (int i = 0; i < OUTER_ROWS; i++) {
            vf left = vset(a[i]);
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                sum[i][j] = vfma(left, right[j], sum[i][j]);
        }
    }
    UNROLL(8)
    for (int i = 0; i < OUTER_ROWS; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            vstore(y + i * width + j * VL, sum[i][j]);
}

/* y(depth, width) = [y +] a(rows, depth)^T b(rows, width): a and b in blocks, y a panel.
 * depth is a multiple of 16. */
void KERNEL(gemm_outer)(float *y, const float *a, int64_t a_block, const float *b, int64_t b_block,
                        int64_t rows, int64_t depth, int64_t width, bool add)
{
    for (int64_t begin = 0; begin < rows; begin += ROW_SLICE) {
        int64_t slice = attn_min(rows - begin, ROW_SLICE);
        bool again = add || begin > 0;
        for (int64_t i = 0; i < depth; i += OUTER_ROWS)
            for (int64_t column = 0; column < width; column += COLUMNS * VL) {
                float *out = y + i * width + column;
                const float *left = a + in_blocks(begin, i, a_block);
                const float *right = b + in_blocks(begin, column, b_block);
                if (WHOLE_TILE(column))
                    outer_tile(out, width, left, a_block, right, b_block, slice, again, COLUMNS);
                else
                    outer_tile(out, width, left, a_block, right, b_block, slice, again,
                               VECTORS_IN_BLOCK);
            }
    }
}
