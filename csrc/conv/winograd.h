/* What the two passes of the Winograd engine share: the geometry, and products over all 36 spots.
 *
 * Names as in the papers:  V = transformed x,  U = transformed weights,  M = V U = transformed y;
 * dV, dU, dM are their gradients. In memory
 *
 *   V, M, dV, dM   [spot][channels / 16][tiles][16]   for a range of tiles
 *   U, dU          [panel][spot][depth][width]        panels of 32 columns (the last may have 16)
 *
 * From one spot to the next the strides of power-of-two shapes would fall on the same cache sets:
 * each is padded by 320 bytes.
 *
 * The work is cut in one of two ways, by what is larger. By images: a task holds a block of tiles
 * in its cache and meets all weights, which are transformed beforehand. By channels: a task holds
 * one panel of weights and meets all tiles, which are transformed beforehand.
 */
#ifndef ATTN_CONV_WINOGRAD_H
#define ATTN_CONV_WINOGRAD_H

#include "../kernels/kernels.h"
#include "plan.h"

enum { SPOTS = 36, TAPS = 9, SPOT_PADDING = 80 };

/* Floats from one spot to the next, and of all spots. */
static inline int64_t spot_step(int64_t rows, int64_t columns)
{
    return rows * columns + SPOT_PADDING;
}
static inline int64_t spots_size(int64_t rows, int64_t columns)
{
    return SPOTS * spot_step(rows, columns);
}
static inline int64_t panel_count(int64_t columns) { return attn_ceil_div(columns, ATTN_PANEL); }
/* All panels of U, whose columns are the channels of the product. */
static inline int64_t weights_size(int64_t depth, int64_t columns)
{
    return panel_count(columns) * spots_size(depth, ATTN_PANEL);
}

/* Transformed tiles of some channels: V, M or their gradients. */
typedef struct {
    float *data;
    int64_t tiles, spot; /* held in the buffer; floats from one spot to the next */
} spots;

static inline spots spots_at(float *data, int64_t channels, int64_t tiles)
{
    return (spots){data, tiles, spot_step(channels, tiles)};
}
static inline float *spots_block(const spots *s, int64_t channel)
{
    return s->data + channel * s->tiles;
}

/* One matrix of weights to be transformed: U itself for the forward pass (depth C, columns K), its
 * transpose for the input gradient (depth K, columns C). */
typedef struct {
    const float *weight;
    int64_t depth, columns, depth_stride, column_stride;
} winograd_weights;

winograd_weights attn_winograd_weights(const attn_conv_shape *s, const float *weight,
                                       bool transposed);

/* u(36, [first, end) of the depth, width) of one panel; u points at the panel. */
void attn_winograd_transform_weights(float *u, const winograd_weights *w, int64_t panel,
                                     int64_t first, int64_t end);

/* All panels, in parallel. */
void attn_winograd_transform_all_weights(float *u, const winograd_weights *w);

/* out(36, tiles, width) = in(36, tiles [first, first + out's), depth) u(36, depth, width). */
void attn_winograd_multiply(const spots *out, const spots *in, int64_t first, const float *u,
                            int64_t depth, int64_t width);

typedef struct {
    attn_winograd_tiles input, output;
    int64_t an_image, count; /* of one image, of all */
} winograd_tiles;

winograd_tiles attn_winograd_tiles_of(const attn_conv_shape *s);

void attn_winograd_forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                           const float *x, const float *weight, const attn_finish *finish);
void attn_winograd_backward(const attn_conv_plan *plan, const attn_conv_workspace *space,
                            const attn_conv_gradients *operands);
/* The memory of the passes, which are already cut. */
void attn_winograd_forward_memory(attn_conv_plan *plan);
void attn_winograd_backward_memory(attn_conv_plan *plan);

#endif
