/* Which pixels meet in the matrix products of implicit_gemm.c.
 *
 * A product's rows are the positions (i, j) of a grid, in every image. A position belongs to one
 * pixel of the destination and, for each tap of the kernel, to one pixel of the source, which may
 * lie outside the image. The depth of the product is [tap][source channel].
 */
#ifndef ATTN_CONV_GRID_H
#define ATTN_CONV_GRID_H

#include "plan.h"

enum { ATTN_PIECE_ROWS = 112 }; /* eight AVX-512 tiles of 14 */

/* Along one axis: position i stands at first + i * step, inside where in [0, size). */
typedef struct {
    int64_t first, step, size;
} attn_line;

/* The grid's pixels in a blocked tensor. */
typedef struct {
    attn_line h, w;
    int64_t channels;
} attn_pixels;

/* The kernel along one axis: tap t is its row (or column) first + t * step, and reads `shift`
 * pixels further than tap t - 1. */
typedef struct {
    int64_t count, first, step, shift;
} attn_taps;

typedef struct {
    int64_t images, rows, columns; /* of positions */
    attn_pixels from, to;          /* from: of tap (0, 0) */
    attn_taps h, w;
    int64_t depth; /* taps * source channels */
    bool by_pixels;
    int64_t pieces, cuts, images_a_piece; /* cuts: pieces that an image is cut into */
} attn_grid;

/* y from x. */
attn_grid attn_grid_forward(const attn_conv_shape *s);
/* Those pixels of dx whose row and column leave these remainders, divided by the stride, from dy:
 * only some of the taps reach them, always the same. */
attn_grid attn_grid_backward(const attn_conv_shape *s, int64_t row, int64_t column);

/* At most ATTN_PIECE_ROWS rows of the product: some rows of one image from `first` on; or all rows,
 * or the row `first` (by_pixels), of some images. */
typedef struct {
    int64_t image, images, first, rows;
} attn_piece;
attn_piece attn_grid_piece(const attn_grid *g, int64_t index);

/* at[row] = where the piece's pixels stand in channel block 0 of a tensor, -1 for outside. */
void attn_find_places(int64_t *at, const attn_grid *g, const attn_piece *piece,
                      const attn_pixels *pixels);

/* A matrix in blocks (kernels/gemm.c): in a buffer, or as it stands in a tensor. */
typedef struct {
    float *data;
    int64_t block;
} attn_operand;

/* Whether one image's rows stand in the tensor as the product needs them. */
bool attn_stands(const attn_grid *g, const attn_piece *piece, const attn_pixels *pixels);
/* Whether the left operand does: a kernel of one tap that steps over every pixel. */
bool attn_source_stands(const attn_grid *g, const attn_piece *piece);
attn_operand attn_in_place(const float *x, const attn_piece *piece, const attn_pixels *pixels);
/* `blocks` channel blocks, `step` floats apart, of the piece's pixels, gathered into `buffer`. */
attn_operand attn_gather_pixels(const float *x, const attn_piece *piece, int64_t blocks,
                                int64_t step, const int64_t *at, float *buffer);

/* Slices of the depth are counted in channel blocks. The next one of at most `most` blocks in
 * [begin, limit), all of taps that reach the image; empty when there is none left. */
attn_range attn_next_slice(const attn_grid *g, const attn_piece *piece, int64_t begin,
                           int64_t limit, int64_t most);

/* The left operand for a slice of the depth; `buffer` and `at` are needed where it is gathered. */
attn_operand attn_source_slice(const attn_grid *g, const attn_piece *piece, attn_range slice,
                               const float *from, float *buffer, int64_t *at);

#endif
