/* Winograd's F(4x4, 3x3): a tile of 4 x 4 outputs from 6 x 6 inputs with 36 products, not 144.
 *
 * S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin, S. Gray, "Fast Algorithms
 * for Convolutional Neural Networks", CVPR 2016. Along one axis, for a tile d(6), a kernel g(3):
 *
 *   y = A^T [(G g) . (B^T d)],   in two dimensions y = A^T [(G g G^T) . (B^T d B)] A.
 *
 * Interpolation points 0, +-3/4, +-3/2 and infinity: they halve the rounding error of the usual 0,
 * +-1, +-2. The rows of a point and of its negative share their even and their odd part.
 *
 * Transformed numbers ("spots", 36 to a tile) stand as [spot][tile][16 channels], `spot` floats
 * from one to the next; sixteen channels go through every function at once. Tiles are counted over
 * all images, row by row: attn_winograd_tiles (types.h) says how. This header has what the files
 * winograd_*.c share: the points, and the walk over the tiles.
 */
#ifndef ATTN_KERNELS_WINOGRAD_H
#define ATTN_KERNELS_WINOGRAD_H

#include "kernels.h"
#include "simd.h"

/* The points a and b, and their squares. */
#define PA 0.75f
#define PB 1.5f
#define PA2 (PA * PA)
#define PB2 (PB * PB)

/* Images are read from end to end, plane after plane, sixteen new pixels a tile. So many floats
 * ahead (16 KiB) they are fetched, in the order in which they stand in memory, and only into the
 * second cache: fetched into the first they would take the place of what is in work. */
enum { AHEAD = 4 << 10 };

/* Where a tile's window of `size` x `size` pixels stands: the place of its first pixel, which rows
 * and columns of it lie inside the image, and the tile's place among the others. */
typedef struct {
    int64_t image, row, column; /* of tiles */
    int64_t at;                 /* floats; of pixel (0, 0) of the window, wherever that is */
    int top, bottom, left, right;
} window;

INLINE int clip(int64_t value, int most)
{
    return value < 0 ? 0 : value > most ? most : (int)value;
}

INLINE void place_window(window *w, const attn_winograd_tiles *t, const int size)
{
    int64_t h = w->row * 4 - t->padding[0], column = w->column * 4 - t->padding[1];
    w->at = w->image * t->image + (h * t->W + column) * ATTN_LANES;
    w->top = clip(-h, size);
    w->bottom = clip(t->H - h, size);
    w->left = clip(-column, size);
    w->right = clip(t->W - column, size);
}

INLINE window first_window(const attn_winograd_tiles *t, int64_t tile, const int size)
{
    int64_t per_image = t->rows * t->columns;
    window w = {.image = tile / per_image, .row = tile % per_image / t->columns,
                .column = tile % t->columns};
    place_window(&w, t, size);
    return w;
}

INLINE void next_window(window *w, const attn_winograd_tiles *t, const int size)
{
    if (++w->column == t->columns) {
        w->column = 0;
        if (++w->row == t->rows) {
            w->row = 0;
            w->image++;
        }
    }
    place_window(w, t, size);
}

INLINE void fetch_ahead(const float *x, const window *w, const attn_winograd_tiles *t)
{
    int64_t tile = w->row * t->columns + w->column;
    const float *pixels = x + w->image * t->image + tile * 16 * ATTN_LANES + AHEAD;
    UNROLL(16)
    for (int i = 0; i < 16; i++)
        __builtin_prefetch(pixels + i * ATTN_LANES, 0, 2);
}

/* Keeps the compiler from computing the 36 places of the spots before the loop: there are not
 * enough registers for them, and adding the step each time is free. */
#define HIDE(step) __asm__("" : "+r"(step))

#endif
