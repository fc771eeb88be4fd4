/* What the passes of the Winograd engines multiply, transformed: weights, inputs, gradients. */
#include "winograd.h"

/* Weights ------------------------------------------------------------------------------------ */

winograd_weights attn_winograd_weights(const winograd_geometry *g, const float *weight,
                                       bool transposed)
{
    const attn_conv_shape *s = g->shape;
    if (transposed)
        return (winograd_weights){weight, false, s->K, s->C, s->C * TAPS, TAPS, &g->form};
    return (winograd_weights){weight, false, s->C, s->K, TAPS, s->C * TAPS, &g->form};
}

/* Strips of sixteen rows: how weights are packed, at each call or once. */
enum { STRIP = 16 };

static int64_t strip_place(const winograd_weights *w, int64_t panel, int64_t row)
{
    return TAPS * (panel * ATTN_PANEL * w->depth + row * attn_panel_width(w->columns, panel));
}

static void pack_strip(float *strip, const winograd_weights *w, int64_t panel, int64_t row)
{
    const float *from = w->weight + row * w->depth_stride + panel * ATTN_PANEL * w->column_stride;
    attn_kernel->pack_panel(strip, from, TAPS, w->depth_stride, w->column_stride, STRIP,
                            attn_panel_width(w->columns, panel));
}

void attn_winograd_transform_weights(const winograd_slice *u, const winograd_weights *w,
                                     int64_t panel)
{
    float taps[TAPS * STRIP * ATTN_PANEL] __attribute__((aligned(ATTN_ALIGNMENT)));
    int64_t width = attn_panel_width(w->columns, panel);
    for (int64_t d = 0; d < u->depth; d += STRIP) {
        const float *strip = taps;
        if (w->strips)
            strip = w->weight + strip_place(w, panel, u->first + d);
        else
            pack_strip(taps, w, panel, u->first + d);
        w->form->weight(u->data + d * width, u->matrix, strip, STRIP * width, STRIP * width);
    }
}

attn_range attn_winograd_strips(const winograd_weights *w, int64_t panel, int64_t first,
                                int64_t depth)
{
    int64_t rows = attn_min(depth, w->depth - first);
    return (attn_range){strip_place(w, panel, first), strip_place(w, panel, first + rows)};
}

typedef struct {
    float *to;
    const winograd_weights *weights;
} weights_job;

static void transform_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const weights_job *j = context;
    int64_t depth = j->weights->depth, strips = depth / STRIP;
    int64_t panel = index / strips, first = index % strips * STRIP;
    winograd_slice strip = whole_panel(j->to + panel * panel_size(j->weights->form, depth), depth);
    strip.data += first * attn_panel_width(j->weights->columns, panel);
    strip.first = first;
    strip.depth = STRIP;
    attn_winograd_transform_weights(&strip, j->weights, panel);
}

static void pack_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const weights_job *j = context;
    int64_t strips = j->weights->depth / STRIP, panel = index / strips;
    int64_t row = index % strips * STRIP;
    pack_strip(j->to + strip_place(j->weights, panel, row), j->weights, panel, row);
}

static void for_all_strips(attn_task task, float *to, const winograd_weights *w)
{
    weights_job job = {to, w};
    attn_parallel(task, &job, panel_count(w->columns) * (w->depth / STRIP));
}

void attn_winograd_transform_all_weights(float *u, const winograd_weights *w)
{
    for_all_strips(transform_task, u, w);
}

void attn_winograd_pack_all_weights(float *strips, const winograd_weights *w)
{
    for_all_strips(pack_task, strips, w);
}

/* Inputs and gradients ----------------------------------------------------------------------- */

winograd_geometry attn_winograd_geometry(const attn_conv_shape *s, int64_t tile)
{
    return (winograd_geometry){s, attn_winograd_form(s, tile), attn_winograd_tiles_of(s, tile)};
}

int64_t attn_winograd_plane_size(const attn_conv_shape *s)
{
    return attn_max(s->H * s->W, s->P * s->Q) * ATTN_LANES;
}

/* Tiles of one image, begin, begin + 1, ..., and the rows of pixels that they read. */
typedef struct {
    int64_t image, begin, count, top, bottom;
} image_tiles;

/* The share that the image of tile `first` has of `count` tiles. */
static image_tiles next_image(const winograd_geometry *g, const attn_winograd_tiles *side,
                              int64_t step, int64_t window, int64_t first, int64_t count)
{
    image_tiles t = {.image = first / g->tiles.an_image, .begin = first % g->tiles.an_image};
    t.count = attn_min(count, g->tiles.an_image - t.begin);
    int64_t last = (t.begin + t.count - 1) / side->columns;
    t.top = attn_max(0, t.begin / side->columns * step - side->padding[0]);
    t.bottom = attn_min(side->H, last * step - side->padding[0] + window);
    return t;
}

void attn_winograd_transform_input(const winograd_geometry *g, const spots *v, int64_t channel,
                                   const attn_conv_input *x, int64_t first, int64_t count,
                                   int64_t at, float *plane)
{
    const attn_winograd_tiles *side = &g->tiles.input;
    const float *data = x->data + channel * side->H * side->W;
    int64_t offset = spots_offset(v, channel, at), row = side->W * ATTN_LANES;
    if (!x->constants) {
        g->form.input(v->data, v->spot, offset, data, side, first, count);
        return;
    }
    const float *constants = x->constants + channel / ATTN_LANES * ATTN_NORM_STEP;
    while (count > 0) {
        image_tiles t = next_image(g, side, g->form.step, g->form.window, first, count);
        attn_kernel->bn_apply(plane + t.top * row, NULL,
                              data + t.image * side->image + t.top * row, NULL, constants, true,
                              (t.bottom - t.top) * row, false);
        g->form.input(v->data, v->spot, offset, plane, side, t.begin, t.count);
        offset += t.count * ATTN_LANES;
        first += t.count;
        count -= t.count;
    }
}

void attn_winograd_transform_gradient(const winograd_geometry *g, const spots *dm, int64_t channel,
                                      const attn_conv_gradients *operands, int64_t first,
                                      int64_t count, int64_t at, float *plane)
{
    const attn_winograd_tiles *side = &g->tiles.output;
    const attn_norm_gradient *norm = operands->norm;
    const float *dy = operands->dy + channel * side->H * side->W;
    int64_t offset = spots_offset(dm, channel, at), row = side->W * ATTN_LANES;
    if (!norm) {
        g->form.output_adjoint(dm->data, dm->spot, offset, dy, side, first, count);
        return;
    }
    const float *constants = operands->constants + channel / ATTN_LANES * ATTN_NORM_STEP;
    while (count > 0) {
        image_tiles t = next_image(g, side, g->form.tile, g->form.tile, first, count);
        int64_t pixels = t.image * side->image + channel * side->H * side->W + t.top * row;
        attn_kernel->bn_gradient(plane + t.top * row, norm->dy + pixels,
                                 norm->x ? norm->x + pixels : NULL,
                                 norm->mask ? norm->mask + pixels / ATTN_LANES : NULL, constants,
                                 norm->relu, norm->training, (t.bottom - t.top) * row, false);
        g->form.output_adjoint(dm->data, dm->spot, offset, plane, side, t.begin, t.count);
        offset += t.count * ATTN_LANES;
        first += t.count;
        count -= t.count;
    }
}
