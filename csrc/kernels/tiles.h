/* The tiles of accumulators inside the products of gemm.c and stem.c, and how their results are
 * finished. */
#ifndef ATTN_TILES_H
#define ATTN_TILES_H

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

/* X(n) for every number of rows that a tile may have. */
#if VL == 16
#define EACH_ROW_COUNT(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#else
#define EACH_ROW_COUNT(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif

/* Where column `column` of row `row` stands in blocks. */
INLINE int64_t in_blocks(int64_t row, int64_t column, int64_t block)
{
    return column / ATTN_LANES * block + row * ATTN_LANES + column % ATTN_LANES;
}

/* The same finish `column` channels and `offset` floats further. */
INLINE attn_finish finish_from(attn_finish f, int64_t column, int64_t offset)
{
    f.bias = f.bias ? f.bias + column : NULL;
    f.residual = f.residual ? f.residual + offset : NULL;
    return f;
}

/* What the finish says is done to a tile, and its results are written. */
INLINE void finish_tile(float *y, int64_t y_block, vf sum[ROWS][COLUMNS], const int rows,
                        const int columns, const attn_finish *f)
{
#define EACH UNROLL(14) for (int i = 0; i < rows; i++) UNROLL(4) for (int j = 0; j < columns; j++)
    if (f->bias)
        EACH sum[i][j] += vload(f->bias + j * VL);
    if (f->residual)
        EACH sum[i][j] += vload(f->residual + in_blocks(i, j * VL, y_block));
    if (f->relu)
        EACH sum[i][j] = vmax(vzero(), sum[i][j]); /* NaN stays */
    if (f->stream)
        EACH vstream(y + in_blocks(i, j * VL, y_block), sum[i][j]);
    else
        EACH vstore(y + in_blocks(i, j * VL, y_block), sum[i][j]);
#undef EACH
}

#endif
