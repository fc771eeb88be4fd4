/* A tensor as a plain strided array, so that one loop serves both layouts.
 *
 * A PLAIN tensor has its own dimensions. A BLOCKED16 one has five: (N, C/16, H, W, 16).
 */
#ifndef ATTN_EXTENT_H
#define ATTN_EXTENT_H

#include "tensor.h"

enum { ATTN_EXTENT_DIMS = ATTN_MAX_DIMS + 1 };

typedef struct {
    int ndim;
    int64_t shape[ATTN_EXTENT_DIMS], stride[ATTN_EXTENT_DIMS];
} attn_extent;

/* The dense extent of a shape in a layout. */
attn_extent attn_extent_of(int ndim, const int64_t *shape, attn_layout layout);

/* The strides of an operand that broadcasts to `shape`: 0 along axes where it has size 1. In the
 * BLOCKED16 case the operand has either all C channels (its memory in blocks) or one. */
attn_extent attn_extent_broadcast(const attn_tensor *operand, int ndim, const int64_t *shape,
                                  attn_layout layout);

/* y[y_stride] = x[x_stride] over a shape, in parallel. */
void attn_strided_copy(float *y, const int64_t *y_stride, const float *x, const int64_t *x_stride,
                       int ndim, const int64_t *shape);

#endif
