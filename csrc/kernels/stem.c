/* The two products of gemm.c for an image of few channels, where neighbouring outputs of a line read
 * neighbouring pixels: the left operand is the image itself, which stays in the first cache. The
 * operand on the right, the results and the finish are those of gemm.c.
 */
#include "tiles.h"

/* Operands of a tile: pointers to its first row and column. */
typedef struct {
    float *y;
    int64_t y_block;
    const float *left, *right;
    int64_t width; /* of the panel */
    attn_finish finish;
} tile;

/* y(rows, columns * VL) = outputs of one line. */
INLINE void row_tile(const tile *t, const attn_patches *p, const int rows, const int columns)
{
    vf sum[ROWS][COLUMNS];
    UNROLL(14)
    for (int i = 0; i < rows; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            sum[i][j] = vzero();
    for (int64_t d = 0; d < p->depth; d++) {
        const float *pixels = t->left + p->taps[d];
        vf right[COLUMNS];
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            right[j] = vload(t->right + d * t->width + j * VL);
        UNROLL(14)
        for (int i = 0; i < rows; i++) {
            vf left = vset(pixels[i]);
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                sum[i][j] = vfma(left, right[j], sum[i][j]);
        }
    }
    finish_tile(t->y, t->y_block, sum, rows, columns, &t->finish);
}

INLINE void row_tile_of(const tile *t, const attn_patches *p, int rows, const int columns)
{
    switch (rows) {
#define CASE(n)                     \
    case n:                         \
        row_tile(t, p, n, columns); \
        break;
        EACH_ROW_COUNT(CASE)
#undef CASE
    }
}

/* y(lines * columns, width) = patches panel(depth, width), finished: y in blocks. */
void KERNEL(stem_rows)(float *y, int64_t y_block, const attn_patches *p, const float *panel,
                       int64_t width, const attn_finish *finish)
{
    attn_finish all = *finish;
    all.stream &= VL == ATTN_LANES; /* only whole cache lines are worth it */
    int64_t groups = attn_ceil_div(p->columns, ROWS);
    for (int64_t line = 0; line < p->lines; line++)
        for (int64_t group = 0, q = 0; group < groups; group++) {
            int count = (int)attn_ceil_div(p->columns - q, groups - group); /* even shares */
            for (int64_t column = 0; column < width; column += COLUMNS * VL) {
                int64_t at = in_blocks(line * p->columns + q, column, y_block);
                tile t = {y + at, y_block, p->x + line * p->line + q, panel + column, width,
                          finish_from(all, column, at)};
                if (WHOLE_TILE(column))
                    row_tile_of(&t, p, count, COLUMNS);
                else
                    row_tile_of(&t, p, count, VECTORS_IN_BLOCK);
            }
            q += count;
        }
    if (all.stream)
        vstream_end();
}

/* y(count, columns * VL) = [y +] the sum over all outputs: `count` taps from `first` on. */
INLINE void outer_tile(float *y, int64_t width, const attn_patches *p, int64_t first,
                       const float *b, int64_t b_block, bool add, const int count,
                       const int columns)
{
    vf sum[OUTER_ROWS][COLUMNS];
    UNROLL(8)
    for (int i = 0; i < count; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            sum[i][j] = add ? vload(y + i * width + j * VL) : vzero();
    for (int64_t line = 0; line < p->lines; line++) {
        const float *pixels[OUTER_ROWS];
        UNROLL(8)
        for (int i = 0; i < count; i++)
            pixels[i] = p->x + line * p->line + p->taps[first + i];
        for (int64_t q = 0; q < p->columns; q++, b += ATTN_LANES) {
            vf right[COLUMNS];
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                right[j] = vload(b + in_blocks(0, j * VL, b_block));
            UNROLL(8)
            for (int i = 0; i < count; i++) {
                vf left = vset(pixels[i][q]);
                UNROLL(4)
                for (int j = 0; j < columns; j++)
                    sum[i][j] = vfma(left, right[j], sum[i][j]);
            }
        }
    }
    UNROLL(8)
    for (int i = 0; i < count; i++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            vstore(y + i * width + j * VL, sum[i][j]);
}

INLINE void outer_tile_of(float *y, int64_t width, const attn_patches *p, int64_t first,
                          const float *b, int64_t b_block, bool add, int count, const int columns)
{
    switch (count) {
#define CASE(n)                                                         \
    case n:                                                             \
        outer_tile(y, width, p, first, b, b_block, add, n, columns);    \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
#if VL == 16
        CASE(5) CASE(6) CASE(7) CASE(8)
#endif
#undef CASE
    }
}

/* y(depth, width) = [y +] patches^T b(lines * columns, width): b in blocks, y a panel. */
void KERNEL(stem_outer)(float *y, const attn_patches *p, const float *b, int64_t b_block,
                        int64_t width, bool add)
{
    int64_t groups = attn_ceil_div(p->depth, OUTER_ROWS);
    for (int64_t group = 0, first = 0; group < groups; group++) {
        int count = (int)attn_ceil_div(p->depth - first, groups - group); /* even shares */
        for (int64_t column = 0; column < width; column += COLUMNS * VL) {
            float *to = y + first * width + column;
            const float *right = b + in_blocks(0, column, b_block);
            if (WHOLE_TILE(column))
                outer_tile_of(to, width, p, first, right, b_block, add, count, COLUMNS);
            else
                outer_tile_of(to, width, p, first, right, b_block, add, count, VECTORS_IN_BLOCK);
        }
        first += count;
    }
}
