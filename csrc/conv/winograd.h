/* What the passes of the Winograd engines share: the geometry, and products over all spots.
 *
 * Names as in the papers:  V = transformed x,  U = transformed weights,  M = V U = transformed y;
 * dV, dU, dM are their gradients. In memory
 *
 *   V, M, dV, dM   [spot][channels / 16][tiles][16]   for a range of tiles
 *   U, dU          [panel][matrix][depth][width]      panels of 32 columns (the last may have 16)
 *
 * U has 36 matrices. At stride 1 each meets one of the 36 spots of a tile. At stride 2, the
 * polyphase form (kernels/polyphase.h), a tile has 81 spots, and some matrices meet 4 or 16, which
 * stand together as one, [channels / 16][tiles][rows][16], with so many rows a tile. Forward passes
 * over a few pixels are in tiles of 2 x 2 outputs, with 16 matrices and spots; where the image is no
 * larger than that, 9 will do (kernels/winograd_pair.c). All passes are the same for all forms.
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

enum { TAPS = 9, TILE = 4, SMALL_TILE = 2, SPOT_PADDING = 80 };

/* Where a matrix of weights finds its spots, and how many rows a tile these have. */
typedef struct {
    int64_t spot, rows;
} winograd_place;

/* One of the forms: F(4x4, 3x3) of stride 1, polyphase of stride 2, F(2x2, 3x3) of small tiles, which
 * has no adjoints, and that of images of 2 x 2 pixels. */
typedef struct {
    int64_t matrices;
    int64_t spots;        /* of a tile: the sum of all rows */
    int64_t tile;         /* in pixels of y, along a side */
    int64_t step, window; /* of a tile, in pixels of x: to the next, and how many it reads */
    attn_conv_form kept; /* how weights that serve many calls are best kept */
    winograd_place (*place)(int64_t matrix);
    __typeof__(attn_kernel->winograd_input) input;
    __typeof__(attn_kernel->winograd_input_adjoint) input_adjoint;
    __typeof__(attn_kernel->winograd_output) output;
    __typeof__(attn_kernel->winograd_output_adjoint) output_adjoint;
    __typeof__(attn_kernel->winograd_weight) weight;
    __typeof__(attn_kernel->winograd_weight_adjoint) weight_adjoint;
} winograd_form;
winograd_form attn_winograd_form(const attn_conv_shape *s, int64_t tile);

/* Floats from one spot or matrix to the next; of all spots, of all matrices of a panel or of all
 * panels, whose columns are the channels of the product. */
static inline int64_t spot_step(int64_t rows, int64_t columns)
{
    return rows * columns + SPOT_PADDING;
}
static inline int64_t spots_size(const winograd_form *form, int64_t channels, int64_t tiles)
{
    return form->spots * spot_step(channels, tiles);
}
static inline int64_t panel_size(const winograd_form *form, int64_t depth)
{
    return form->matrices * spot_step(depth, ATTN_PANEL);
}
static inline int64_t panel_count(int64_t columns) { return attn_ceil_div(columns, ATTN_PANEL); }
static inline int64_t weights_size(const winograd_form *form, int64_t depth, int64_t columns)
{
    return panel_count(columns) * panel_size(form, depth);
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
/* Where a tile's channels begin in a spot of one row, in floats. */
static inline int64_t spots_offset(const spots *s, int64_t channel, int64_t tile)
{
    return channel * s->tiles + tile * ATTN_LANES;
}

/* The matrix of one product: rows from a tile on, columns from a channel on. */
typedef struct {
    float *data;
    int64_t block, rows; /* `block` floats from sixteen columns to the next; rows of each tile */
} spot_rows;

static inline spot_rows spots_rows(const spots *s, winograd_place place, int64_t channel,
                                   int64_t tile)
{
    return (spot_rows){
        s->data + place.spot * s->spot + place.rows * spots_offset(s, channel, tile),
        place.rows * s->tiles * ATTN_LANES, place.rows};
}

/* One matrix of weights to be transformed: U itself for the forward pass (depth C, columns K), its
 * transpose for the input gradient (depth K, columns C). */
typedef struct {
    const float *weight;
    bool strips; /* in ATTN_FORM_STRIPS already; else the strides are weight's */
    int64_t depth, columns, depth_stride, column_stride;
    const winograd_form *form;
} winograd_weights;

/* Rows [first, first + depth) of a panel of U: the first one of matrix 0 stands at `data`, `matrix`
 * floats before that of the next matrix. */
typedef struct {
    float *data;
    int64_t matrix, first, depth;
} winograd_slice;

/* All rows of a panel that is held whole. */
static inline winograd_slice whole_panel(const float *u, int64_t depth)
{
    return (winograd_slice){(float *)u, spot_step(depth, ATTN_PANEL), 0, depth};
}

void attn_winograd_transform_weights(const winograd_slice *u, const winograd_weights *w,
                                     int64_t panel);
/* Where in ATTN_FORM_STRIPS rows first, first + 1, ..., at most `depth` of them, stand. */
attn_range attn_winograd_strips(const winograd_weights *w, int64_t panel, int64_t first,
                                int64_t depth);

/* All panels, in parallel: transformed, or packed into ATTN_FORM_STRIPS. */
void attn_winograd_transform_all_weights(float *u, const winograd_weights *w);
void attn_winograd_pack_all_weights(float *strips, const winograd_weights *w);

/* out(spots, tiles, width) = [out +] in(spots, tiles [first, first + out's), rows of u) u; the first
 * slice of a panel is not added to anything. Meanwhile `ahead`, of so many floats, is fetched. */
void attn_winograd_multiply(const winograd_form *form, const spots *out, const spots *in,
                            int64_t first, const winograd_slice *u, int64_t width,
                            const float *ahead, int64_t ahead_size);

typedef struct {
    attn_winograd_tiles input, output;
    int64_t an_image, count; /* of one image, of all */
} winograd_tiles;

winograd_tiles attn_winograd_tiles_of(const attn_conv_shape *s, int64_t tile);

/* The tiles first, first + 1, ... of a block of sixteen channels, transformed: they stand in the
 * buffer from place `at` on. Where x, or the gradient of y, is to be made on the way, `plane` holds
 * one image's share of it. */
typedef struct {
    const attn_conv_shape *shape;
    winograd_form form;
    winograd_tiles tiles;
} winograd_geometry;
winograd_geometry attn_winograd_geometry(const attn_conv_shape *s, int64_t tile);
winograd_weights attn_winograd_weights(const winograd_geometry *g, const float *weight,
                                       bool transposed);
int64_t attn_winograd_plane_size(const attn_conv_shape *s);

void attn_winograd_transform_input(const winograd_geometry *g, const spots *v, int64_t channel,
                                   const attn_conv_input *x, int64_t first, int64_t count,
                                   int64_t at, float *plane);
void attn_winograd_transform_gradient(const winograd_geometry *g, const spots *dm, int64_t channel,
                                      const attn_conv_gradients *operands, int64_t first,
                                      int64_t count, int64_t at, float *plane);

void attn_winograd_pack(const attn_conv_plan *plan, float *packed, const float *weight);
void attn_winograd_forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                           const attn_conv_input *x, const float *weight, const attn_finish *finish);
void attn_winograd_backward(const attn_conv_plan *plan, const attn_conv_workspace *space,
                            const attn_conv_gradients *operands);
/* The memory of the passes, which are already cut. */
void attn_winograd_forward_memory(attn_conv_plan *plan);
void attn_winograd_backward_memory(attn_conv_plan *plan);

#endif
