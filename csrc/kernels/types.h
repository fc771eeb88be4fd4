/* Small structs that kernels receive. */
#ifndef ATTN_KERNEL_TYPES_H
#define ATTN_KERNEL_TYPES_H

#include "../attnnet.h"
#include "attention_types.h"
#include "gates.h"

/* Results of this many bytes are written past the caches (vstream), where rows are aligned: they
 * would push out what is still needed, and each line would be read before it is written. Measured
 * together with a pass that reads them again; smaller results are better left in the cache. */
enum { ATTN_STREAM_BYTES = 12 << 20 };

/* How an image (H,W) is pooled to (P,Q): output (p,q) reads rows top[p] <= h < bottom[p] and columns
 * left[q] <= w < right[q], clipped to the image and never empty. */
typedef struct {
    int64_t H, W, P, Q;
    const int32_t *top, *bottom, *left, *right;
    bool tiles;      /* every position lies in exactly one window */
    bool halves;     /* the windows are 2 x 2, side by side, from the corner on */
    bool wide_index; /* a maximum's place in its window is an int32, else a uint8 */
    bool stream;     /* the result is large: write it past the caches */
    float divisor;   /* of an average; 0: the window's own size */
} attn_pool;

/* optimise.c */
typedef struct {
    float rate, momentum, decay;
    bool nesterov;
    bool first; /* of this tensor: its velocity holds nothing yet */
} sgd_constants;
typedef struct {
    float one_less_beta1, beta2, one_less_beta2;
    float keep; /* 1 - learning rate * decay */
    float rate; /* learning rate / (1 - beta1^step) */
    float root; /* sqrt(1 - beta2^step) */
    float eps;
} adamw_constants;

/* Columns of a panel, the right operand of gemm.c; the last panel of a matrix may have 16. */
enum { ATTN_PANEL = 32 };

/* What happens to the outputs of a convolution before they are stored: relu(y + bias + residual),
 * each optional. */
typedef struct {
    const float *bias;     /* (K), or the 16 of one channel block */
    const float *residual; /* shape and layout of y */
    bool relu;
    bool stream; /* y is too large for the caches: write around them */
} attn_finish;

/* The left operand of stem.c, a matrix (lines * columns, depth) that is never written out: its row
 * p * columns + q and column d hold x[p * line + taps[d] + q]. */
typedef struct {
    const float *x;
    const int64_t *taps;
    int64_t depth, line, lines, columns;
} attn_patches;

/* The tiles of 4 x 4 outputs (or 2 x 2) that Winograd's algorithm cuts images into, on the side of the
 * input (windows of 6 x 6, at stride 2 of 9 x 9, or 4 x 4, that begin at the padding) or of the output
 * (windows of 4 x 4 or 2 x 2, padding 0). Tile numbers run over all images, rows and columns. */
typedef struct {
    int64_t H, W;          /* of an image on this side */
    int64_t image;         /* floats from one image to the next */
    int64_t rows, columns; /* of tiles in an image */
    int64_t padding[2];
} attn_winograd_tiles;

#endif
