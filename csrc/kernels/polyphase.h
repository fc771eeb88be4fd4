/* The 3x3 convolution of stride 2 in polyphase form: 4 x 4 outputs from 9 x 9 inputs with 81
 * products, not 144.
 *
 * Along one axis output p reads pixels 2p, 2p + 1 and 2p + 2 of a tile's window. Pixels 0, 2, 4, 6,
 * 8 meet the two outer taps alone: a convolution of stride 1, F(4, 2) with five products. Pixels 1,
 * 3, 5, 7 meet the middle tap alone: four products with the same weight. Nine spots along an axis,
 *
 *   y = A^T [(G g_outer) . (B^T d_outer)] + g_middle d_middle,
 *
 * but six weights. So in two dimensions there are 36 matrices of weights as in F(4x4, 3x3), and
 * matrix (i, j) meets 1 row of each tile, 4 where i or j is the middle tap, 16 where both are:
 *
 *   (i, j)  i, j < 5   outer x outer     spot 9i + j             1 row a tile
 *   (i, 5)             outer x middle    spots 9i + 5 .. 9i + 8  4 rows, one a column of outputs
 *   (5, j)             middle x outer    spots 45 + 4j ..        4 rows, one a row of outputs
 *   (5, 5)             middle x middle   spots 65 .. 80          16 rows, one an output
 *
 * The rows of a tile stand side by side, as [tile][row][16 channels]: they are rows of one matrix
 * product.
 */
#ifndef ATTN_KERNELS_POLYPHASE_H
#define ATTN_KERNELS_POLYPHASE_H

#include "winograd.h"
#include "winograd_window.h"

enum { TILE = 4, OUTER = 5, WINDOW = 9, STEP = 8 };

/* The numbers of one tile, some of their channels. */
typedef struct {
    float *outer, *columns, *rows, *middle; /* of (0, 0), (0, 5), (5, 0), (5, 5) */
    int64_t spot;
} phases;

/* at: of the tile, where a spot has one row a tile. */
INLINE phases find_phases(const float *v, int64_t spot, int64_t at, int part)
{
    float *base = (float *)v + part;
    HIDE(spot);
    return (phases){base + at, base + 5 * spot + 4 * at, base + 45 * spot + 4 * at,
                    base + 65 * spot + 16 * at, spot};
}

/* Of matrix (i, j), i, j < 5; (i, 5), column j; (5, j), row i; (5, 5), row i and column j. */
INLINE float *outer(const phases *p, const int i, const int j)
{
    return p->outer + (9 * i + j) * p->spot;
}
INLINE float *column(const phases *p, const int i, const int j)
{
    return p->columns + 9 * i * p->spot + j * ATTN_LANES;
}
INLINE float *row(const phases *p, const int i, const int j)
{
    return p->rows + 4 * j * p->spot + i * ATTN_LANES;
}
INLINE float *middle(const phases *p, const int i, const int j)
{
    return p->middle + (4 * i + j) * ATTN_LANES;
}

#endif
