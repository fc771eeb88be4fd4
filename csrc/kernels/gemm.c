/* The two matrix products inside every blocked convolution. Their operands are
 *
 *   blocks   a matrix (rows, depth) as [depth / 16][rows][16], `block` floats from one group of
 *            sixteen columns to the next: a run of pixels of a BLOCKED16 tensor, as it stands
 *   panel    a matrix (depth, width) as [depth][width], width 16 or 32
 *
 * The accumulators of a tile stay in registers while the whole depth goes by; each number of the
 * left matrix is broadcast from memory and meets a few vectors of the right one.
 */
#include "tiles.h"

/* So much of the summed axis goes by before the next tile, so that what several tiles share stays
 * in the first cache: 32 KiB of two block columns; 16 KiB of a panel where its columns are passed
 * several times. An AVX-512 tile passes a panel once, which may as well come from the second. */
enum { DEPTH_SLICE = VL == 16 ? 1 << 20 : 128, ROW_SLICE = 256 };

/* Operands of a tile: pointers to its first row and column. */
typedef struct {
    float *y;
    int64_t y_block;
    const float *a;
    int64_t a_block;
    const float *b;
    int64_t b_step; /* the panel's width, or b's block */
    int64_t length; /* of the summed axis */
    bool add;
    const float *follow; /* what a tile reads after this one */
    const float *next; /* what is needed after this slice, to be fetched while it is in work */
    const float *rest; /* and where one tile fetches all of it, its second half; else NULL */
    attn_finish finish; /* of these columns; where nothing is to be done, all 0 */
} tile;

/* y(rows, columns * VL) = [y +] a b, summed over the depth. */
INLINE void row_tile(tile t, const int rows, const int columns)
{
    vf sum[ROWS][COLUMNS];
    UNROLL(14)
    for (int i = 0; i < rows; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            sum[i][j] = t.add ? vload(t.y + in_blocks(i, j * VL, t.y_block)) : vzero();
    for (; t.length > 0; t.length -= ATTN_LANES, t.a += t.a_block) {
        for (int i = 0; t.rest && i < ATTN_LANES; i++, t.rest += ATTN_LANES)
            __builtin_prefetch(t.rest, 0, 2);
        const float *ahead = t.length > ATTN_LANES ? t.a + t.a_block : t.follow;
        for (int lane = 0; lane < ATTN_LANES; lane++, t.b += t.b_step, t.next += ATTN_LANES) {
            __builtin_prefetch(ahead + lane * ATTN_LANES); /* a row of the next block */
            __builtin_prefetch(t.next, 0, 2);
            vf right[COLUMNS];
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                right[j] = vload(t.b + j * VL);
            UNROLL(14)
            for (int i = 0; i < rows; i++) {
                vf left = vset(t.a[i * ATTN_LANES + lane]);
                UNROLL(4)
                for (int j = 0; j < columns; j++)
                    sum[i][j] = vfma(left, right[j], sum[i][j]);
            }
        }
    }
    finish_tile(t.y, t.y_block, sum, rows, columns, &t.finish);
}

/* The tile with its sizes known to the compiler. */
INLINE void row_tile_of(tile t, int rows, const int columns)
{
    switch (rows) {
#define CASE(n)                  \
    case n:                      \
        row_tile(t, n, columns); \
        break;
        EACH_ROW_COUNT(CASE)
#undef CASE
    }
}

/* One slice of the depth against all columns of a panel, for one group of rows. */
INLINE void row_group(tile t, int rows, int64_t width)
{
    const tile all = t;
    for (int64_t column = 0; column < width; column += COLUMNS * VL) {
        int64_t offset = in_blocks(0, column, t.y_block);
        t.y = all.y + offset;
        t.b = all.b + column;
        t.finish = finish_from(all.finish, column, offset);
        if (WHOLE_TILE(column))
            row_tile_of(t, rows, COLUMNS);
        else
            row_tile_of(t, rows, VECTORS_IN_BLOCK);
    }
}

/* y(rows, width) = [y +] a(rows, depth) b(depth, width), finished: a and y in blocks, b a panel.
 * depth is a multiple of 16; where it is 0, the product is 0. The finish is that of these columns:
 * its bias has `width` numbers, its residual begins at y's first row; NULL: nothing to be done. */
void KERNEL(gemm_finish)(float *y, int64_t y_block, const float *a, int64_t a_block, const float *b,
                         int64_t rows, int64_t depth, int64_t width, bool add,
                         const attn_finish *finish)
{
    attn_finish all = finish ? *finish : (attn_finish){0};
    all.stream &= VL == ATTN_LANES; /* only whole cache lines are worth it */
    int64_t groups = attn_ceil_div(rows, ROWS), begin = 0;
    do {
        int64_t slice = attn_min(depth - begin, DEPTH_SLICE);
        bool last = begin + slice == depth;
        tile t = {.y_block = y_block, .a_block = a_block, .b = b + begin * width, .b_step = width,
                  .length = slice, .add = add || begin > 0, .next = b + (begin + slice) * width};
        if (groups == 1 && width > ATTN_LANES)
            t.rest = t.next + slice * ATTN_LANES;
        for (int64_t group = 0, row = 0; group < groups; group++) {
            int count = (int)attn_ceil_div(rows - row, groups - group); /* even shares */
            t.y = y + row * ATTN_LANES;
            t.a = a + in_blocks(row, begin, a_block);
            t.follow = row + count < rows ? t.a + count * ATTN_LANES : a;
            t.finish = finish_from(last ? all : (attn_finish){0}, 0, row * ATTN_LANES);
            row_group(t, count, width);
            t.next += slice * ATTN_LANES; /* each group fetches its share of the next slice */
            row += count;
        }
        begin += slice;
    } while (begin < depth);
    if (all.stream)
        vstream_end();
}

void KERNEL(gemm_rows)(float *y, int64_t y_block, const float *a, int64_t a_block, const float *b,
                       int64_t rows, int64_t depth, int64_t width, bool add)
{
    KERNEL(gemm_finish)(y, y_block, a, a_block, b, rows, depth, width, add, NULL);
}

/* y(OUTER_ROWS, columns * VL) = [y +] a^T b, summed over rows of both; y is part of a panel, whose
 * width is its y_block here. */
INLINE void outer_tile(tile t, const int columns)
{
    vf sum[OUTER_ROWS][COLUMNS];
    UNROLL(8)
    for (int i = 0; i < OUTER_ROWS; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            sum[i][j] = t.add ? vload(t.y + i * t.y_block + j * VL) : vzero();
    for (; t.length > 0; t.length--, t.a += ATTN_LANES, t.b += ATTN_LANES, t.next += ATTN_LANES) {
        __builtin_prefetch(t.a + t.a_block); /* a row of the next sixteen channels */
        __builtin_prefetch(t.next);
        vf right[COLUMNS];
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            right[j] = vload(t.b + in_blocks(0, j * VL, t.b_step));
        UNROLL(8)
        for (int i = 0; i < OUTER_ROWS; i++) {
            vf left = vset(t.a[i]);
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                sum[i][j] = vfma(left, right[j], sum[i][j]);
        }
    }
    UNROLL(8)
    for (int i = 0; i < OUTER_ROWS; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            vstore(t.y + i * t.y_block + j * VL, sum[i][j]);
}

/* y(depth, width) = [y +] a(rows, depth)^T b(rows, width): a and b in blocks, y a panel.
 * depth is a multiple of 16. */
void KERNEL(gemm_outer)(float *y, const float *a, int64_t a_block, const float *b, int64_t b_block,
                        int64_t rows, int64_t depth, int64_t width, bool add)
{
    for (int64_t begin = 0; begin < rows; begin += ROW_SLICE) {
        tile t = {.y_block = width, .a_block = a_block, .b_step = b_block,
                  .length = attn_min(rows - begin, ROW_SLICE), .add = add || begin > 0};
        for (int64_t i = 0; i < depth; i += OUTER_ROWS) {
            /* the next panel of b: its first block, then its second */
            int64_t later = width / ATTN_LANES + (2 * i >= depth && width > ATTN_LANES);
            for (int64_t column = 0; column < width; column += COLUMNS * VL) {
                t.y = y + i * width + column;
                t.a = a + in_blocks(begin, i, a_block);
                t.b = b + in_blocks(begin, column, b_block);
                t.next = b + later * b_block + begin * ATTN_LANES;
                if (WHOLE_TILE(column))
                    outer_tile(t, COLUMNS);
                else
                    outer_tile(t, VECTORS_IN_BLOCK);
            }
        }
    }
}
