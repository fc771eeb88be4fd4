/* Convolution between blocked tensors as a matrix product that never holds its left operand whole.
 *
 *   forward          y(pixels, K)  = x gathered (pixels, R S C)     weight (R S C, K)
 *   input gradient   dx(pixels, C) = dy gathered (pixels, taps K)   weight (taps K, C)
 *   weight gradient  dweight(R S C, K) = x gathered^T (R S C, pixels)   dy (pixels, K)
 *
 * The rows are cut into pieces of about a hundred pixels; for each piece, slices of the depth are
 * gathered into a buffer that stays in the second cache and meet every panel of weights there. A
 * 1x1 convolution of stride 1 over large images needs no gathering: the image is the operand.
 *
 * Where there are only a few pieces (small images of a small batch) the weights are what takes time
 * to read: the pieces are gathered whole, and each task streams one panel of weights past one.
 *
 * Where images are so small that most taps of a pixel fall into the padding, a piece is one pixel
 * of many images, and those taps are left out.
 *
 * The input gradient of a strided convolution falls apart into stride x stride products, one for
 * each remainder of the pixel's row and column: each sees only the taps that can reach it.
 *
 * Memory: packed weights, unless they are kept, and gathered pieces; or partial sums of the weight
 * gradient (shared); a piece, its result and the places of its pixels (each worker).
 */
#include "../kernels/kernels.h"
#include "grid.h"

#include <string.h>

enum {
    SLICE_FLOATS = 96 << 10, /* of a gathered slice: 384 KiB */
    TASKS = 16,              /* that a weight gradient should have at least */
    MOST_TASKS = 256,        /* that any product is cut into */
    FEW_PIECES = 4,          /* are gathered whole */
    LONG_PIECE = 256,        /* rows, where they stand in the image */
};

typedef struct {
    attn_grid grid;
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    int64_t tasks; /* into which the pieces are shared out */
    const float *from;
    float *to;
    float *panels;       /* packed weights, or partial sums of their gradient */
    float *gathered;     /* pieces whole, where the work is cut by channels; else NULL */
    const float *weight; /* as the caller has it */
    int64_t from_stride, to_stride; /* its steps along the source's and destination's channels */
    const attn_finish *finish;
    float *dweight;
} product;

/* Panels are [tap][source channel][width]: the one of the destination's channels from `channel`
 * on. */
static float *packed_panel(const product *p, int64_t channel)
{
    return p->panels + channel * p->grid.depth;
}

/* Memory of a worker, from its scratch space. */
typedef struct {
    float *slice, *rows;
    int64_t *from_places, *to_places;
} scratch;

static int64_t slice_blocks(int64_t depth)
{
    int64_t most = SLICE_FLOATS / (ATTN_PIECE_ROWS * ATTN_LANES);
    return attn_max(1, attn_min(depth / ATTN_LANES, most));
}

static int64_t scratch_floats(int64_t depth, int64_t channels)
{
    const int64_t place = sizeof(int64_t) / sizeof(float);
    return (slice_blocks(depth) * ATTN_LANES + channels + 2 * place) * ATTN_PIECE_ROWS;
}

static int64_t piece_tasks(const attn_grid *g) { return attn_min(g->pieces, MOST_TASKS); }

static scratch scratch_of(const product *p, int worker)
{
    float *base = attn_conv_scratch(p->space, worker);
    scratch s = {.from_places = (int64_t *)base,
                 .to_places = (int64_t *)base + ATTN_PIECE_ROWS};
    s.rows = (float *)(s.to_places + ATTN_PIECE_ROWS);
    s.slice = s.rows + p->grid.to.channels * ATTN_PIECE_ROWS;
    return s;
}

/* Forward and input gradient ----------------------------------------------------------------- */

static void pack_task(void *context, int64_t panel, int worker)
{
    (void)worker;
    const product *p = context;
    const attn_grid *g = &p->grid;
    int64_t channel = panel * ATTN_PANEL, width = attn_panel_width(g->to.channels, panel);
    float *out = packed_panel(p, channel);
    for (int64_t i = 0; i < g->h.count; i++)
        for (int64_t j = 0; j < g->w.count; j++) {
            int64_t row = g->h.first + i * g->h.step, column = g->w.first + j * g->w.step;
            const float *tap = p->weight + row * p->plan->shape.S + column;
            attn_kernel->pack_panel(out, tap + channel * p->to_stride, 1, p->from_stride,
                                    p->to_stride, g->from.channels, width);
            out += g->from.channels * width;
        }
}

/* Rows of one panel, finished, go to their places. */
static void store_panel(const product *p, const int64_t *at, const attn_operand *result,
                        int64_t rows, int64_t panel)
{
    int64_t width = attn_panel_width(p->grid.to.channels, panel);
    int64_t plane = p->grid.to.h.size * p->grid.to.w.size;
    for (int64_t i = 0; i < width; i += ATTN_LANES) {
        int64_t channel = panel * ATTN_PANEL + i;
        attn_finish finish = attn_finish_at(p->finish, channel, channel * plane);
        attn_kernel->store_rows(p->to + channel * plane, at,
                                result->data + i / ATTN_LANES * result->block, rows, &finish);
    }
}

/* One slice of a piece's depth against one panel; the last slice's results are finished where they
 * stand in the destination, or go there. */
static void multiply_panel(const product *p, const attn_piece *piece, const scratch *s,
                           const attn_operand *left, attn_range slice, int64_t panel, bool first,
                           bool last)
{
    const attn_grid *g = &p->grid;
    int64_t channel = panel * ATTN_PANEL, width = attn_panel_width(g->to.channels, panel);
    int64_t depth = (slice.end - slice.begin) * ATTN_LANES;
    const float *right = packed_panel(p, channel) + slice.begin * ATTN_LANES * width;
    if (attn_stands(g, piece, &g->to)) {
        attn_operand to = attn_in_place(p->to, piece, &g->to);
        to.data += channel / ATTN_LANES * to.block;
        attn_finish finish = attn_finish_at(p->finish, channel, to.data - p->to);
        finish.stream &= first; /* what was added up before is in the cache already */
        attn_kernel->gemm_finish(to.data, to.block, left->data, left->block, right, piece->rows,
                                 depth, width, !first, last ? &finish : NULL);
        return;
    }
    attn_operand rows = {s->rows + channel * piece->rows, piece->rows * ATTN_LANES};
    attn_kernel->gemm_rows(rows.data, rows.block, left->data, left->block, right, piece->rows,
                           depth, width, !first);
    if (last)
        store_panel(p, s->to_places, &rows, piece->rows, panel);
}

static void multiply_slice(const product *p, const attn_piece *piece, const scratch *s,
                           attn_range slice, bool first, bool last)
{
    const attn_grid *g = &p->grid;
    attn_operand left = attn_source_slice(g, piece, slice, p->from, s->slice, s->from_places);
    for (int64_t panel = 0; panel * ATTN_PANEL < g->to.channels; panel++)
        multiply_panel(p, piece, s, &left, slice, panel, first, last);
}

/* One piece: all of its depth, all of its channels. */
static void multiply_piece(const product *p, int64_t index, const scratch *s)
{
    const attn_grid *g = &p->grid;
    attn_piece piece = attn_grid_piece(g, index);
    if (!attn_stands(g, &piece, &g->to))
        attn_find_places(s->to_places, g, &piece, &g->to);
    int64_t depth = g->depth / ATTN_LANES;
    int64_t most = attn_source_stands(g, &piece) ? depth : slice_blocks(g->depth);
    attn_range now = attn_next_slice(g, &piece, 0, depth, most);
    bool first = true, last;
    do { /* once even where no tap reaches these pixels: they become 0 */
        attn_range next = attn_next_slice(g, &piece, now.end, depth, most);
        last = next.begin == next.end;
        multiply_slice(p, &piece, s, now, first, last);
        now = next;
        first = false;
    } while (!last);
}

/* A share of the pieces, neighbours: what the hardware fetches ahead is needed by the same core. */
static void multiply_share(const product *p, int64_t index, const scratch *s)
{
    int64_t pieces = p->grid.pieces, end = pieces * (index + 1) / p->tasks;
    for (int64_t i = pieces * index / p->tasks; i < end; i++)
        multiply_piece(p, i, s);
}

static void pieces_task(void *context, int64_t index, int worker)
{
    const product *p = context;
    scratch s = scratch_of(p, worker);
    multiply_share(p, index, &s);
}

/* Where a piece's left operand stands whole, behind those of the pieces before it. */
static float *gathered_piece(const product *p, const attn_piece *piece)
{
    int64_t rows = piece->image * p->grid.rows * p->grid.columns + piece->first;
    return p->gathered + rows * p->grid.depth;
}

/* By channels, first step: one tap of one piece, all of the source's channels. */
static void gather_task(void *context, int64_t index, int worker)
{
    const product *p = context;
    const attn_grid *g = &p->grid;
    int64_t taps = g->h.count * g->w.count, blocks = g->from.channels / ATTN_LANES;
    attn_piece piece = attn_grid_piece(g, index / taps);
    attn_range slice = {index % taps * blocks, (index % taps + 1) * blocks};
    float *to = gathered_piece(p, &piece) + slice.begin * piece.rows * ATTN_LANES;
    attn_source_slice(g, &piece, slice, p->from, to, scratch_of(p, worker).from_places);
}

/* Second step: one piece and one panel of weights. */
static void panel_task(void *context, int64_t index, int worker)
{
    const product *p = context;
    const attn_grid *g = &p->grid;
    attn_piece piece = attn_grid_piece(g, index % g->pieces);
    attn_range whole = {0, g->depth / ATTN_LANES};
    scratch s = scratch_of(p, worker);
    attn_operand left = {gathered_piece(p, &piece), piece.rows * ATTN_LANES};
    if (attn_source_stands(g, &piece))
        left = attn_in_place(p->from, &piece, &g->from);
    if (!attn_stands(g, &piece, &g->to))
        attn_find_places(s.to_places, g, &piece, &g->to);
    multiply_panel(p, &piece, &s, &left, whole, index / g->pieces, true, true);
}

static product forward_product(const attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    return (product){.grid = attn_grid_forward(s), .plan = plan, .from_stride = s->R * s->S,
                     .to_stride = s->C * s->R * s->S};
}

/* All panels of ATTN_FORM_PANELS, in parallel. */
static void pack_panels(const attn_conv_plan *plan, float *panels, const float *weight)
{
    product p = forward_product(plan);
    p.weight = weight;
    p.panels = panels;
    attn_parallel(pack_task, &p, attn_ceil_div(plan->shape.K, ATTN_PANEL));
}

static void forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                    const attn_conv_input *x, const float *weight, const attn_finish *finish)
{
    product p = forward_product(plan);
    p.space = space;
    p.tasks = piece_tasks(&p.grid);
    p.from = x->data;
    p.to = y;
    p.finish = finish;
    bool packed = plan->form == ATTN_FORM_PANELS;
    p.weight = weight;
    p.panels = packed ? (float *)weight : space->shared;
    const attn_grid *g = &p.grid;
    int64_t panels = attn_ceil_div(g->to.channels, ATTN_PANEL);
    if (!packed)
        attn_conv_parallel(space, pack_task, &p, panels);
    if (!plan->forward.by_channels) {
        attn_conv_parallel(space, pieces_task, &p, p.tasks);
        return;
    }
    p.gathered = space->shared + (packed ? 0 : g->depth * g->to.channels);
    attn_conv_parallel(space, gather_task, &p, g->pieces * g->h.count * g->w.count);
    attn_conv_parallel(space, panel_task, &p, g->pieces * panels);
}

/* Goes on to the pixels of dx that leave the next remainders. */
static bool next_phase(product *p, int64_t *phase)
{
    const attn_conv_shape *s = &p->plan->shape;
    int64_t columns = attn_min(s->stride[1], s->W);
    if (*phase >= attn_min(s->stride[0], s->H) * columns)
        return false;
    p->panels += p->grid.depth * p->grid.to.channels; /* behind those of the phase before */
    p->grid = attn_grid_backward(s, *phase / columns, *phase % columns);
    ++*phase;
    return true;
}

/* A share of the pieces in every phase: what lies between the pixels of one is soon written by the
 * others. */
static void phases_task(void *context, int64_t index, int worker)
{
    product p = *(const product *)context;
    for (int64_t phase = 0; next_phase(&p, &phase);) {
        scratch s = scratch_of(&p, worker);
        multiply_share(&p, index, &s);
    }
}

static void input_gradient(const attn_conv_plan *plan, const attn_conv_workspace *space,
                           const attn_conv_gradients *operands)
{
    const attn_conv_shape *s = &plan->shape;
    const attn_finish nothing = {.stream = attn_conv_stream(s->N * s->C * s->H * s->W)};
    const attn_grid first = attn_grid_backward(s, 0, 0); /* has the most pieces */
    product all = {
        .plan = plan, .space = space, .tasks = piece_tasks(&first),
        .from = operands->dy, .to = operands->dx,
        .panels = space->shared, .weight = operands->weight,
        .from_stride = s->C * s->R * s->S, .to_stride = s->R * s->S, .finish = &nothing,
    };
    product p = all;
    for (int64_t phase = 0; next_phase(&p, &phase);)
        attn_conv_parallel(space, pack_task, &p, attn_ceil_div(s->C, ATTN_PANEL));
    attn_conv_parallel(space, phases_task, &all, all.tasks);
}

/* Weight gradient ---------------------------------------------------------------------------- */

/* The rows of one panel of dy: as they stand, or gathered. */
static attn_operand gradient_panel(const product *p, const attn_piece *piece, int64_t panel,
                                   const scratch *s)
{
    const attn_grid *g = &p->grid;
    int64_t first = panel * (ATTN_PANEL / ATTN_LANES);
    attn_operand dy = attn_in_place(p->to, piece, &g->to);
    if (attn_stands(g, piece, &g->to))
        return (attn_operand){dy.data + first * dy.block, dy.block};
    int64_t blocks = attn_panel_width(g->to.channels, panel) / ATTN_LANES;
    return attn_gather_pixels(p->to + first * dy.block, piece, blocks, dy.block, s->to_places,
                              s->rows);
}

/* One piece's share of depth [first, limit), in channel blocks, is written or added to a partial
 * sum. */
static void sum_piece(const product *p, float *sums, const attn_piece *piece, int64_t first,
                      int64_t limit, bool add, const scratch *s)
{
    const attn_grid *g = &p->grid;
    if (!attn_stands(g, piece, &g->to))
        attn_find_places(s->to_places, g, piece, &g->to);
    int64_t most = slice_blocks(g->depth);
    attn_range now = attn_next_slice(g, piece, first, limit, most);
    for (; now.begin < now.end; now = attn_next_slice(g, piece, now.end, limit, most)) {
        attn_operand left = attn_source_slice(g, piece, now, p->from, s->slice, s->from_places);
        for (int64_t panel = 0; panel * ATTN_PANEL < g->to.channels; panel++) {
            int64_t channel = panel * ATTN_PANEL, width = attn_panel_width(g->to.channels, panel);
            attn_operand dy = gradient_panel(p, piece, panel, s);
            attn_kernel->gemm_outer(sums + channel * g->depth + now.begin * ATTN_LANES * width,
                                    left.data, left.block, dy.data, dy.block, piece->rows,
                                    (now.end - now.begin) * ATTN_LANES, width, add);
        }
    }
}

/* What no piece reaches must be 0. */
static void clear_sums(const product *p, float *sums, int64_t first, int64_t limit)
{
    for (int64_t channel = 0; channel < p->grid.to.channels; channel += ATTN_PANEL) {
        int64_t width = attn_min(ATTN_PANEL, p->grid.to.channels - channel) * ATTN_LANES;
        memset(sums + channel * p->grid.depth + first * width, 0,
               (size_t)((limit - first) * width) * sizeof(float));
    }
}

/* One part of the pieces, one split of the depth: a partial sum of the weight gradient. */
static void weight_task(void *context, int64_t index, int worker)
{
    const product *p = context;
    const attn_conv_plan *plan = p->plan;
    const attn_grid *g = &p->grid;
    scratch s = scratch_of(p, worker);
    int64_t part = index / plan->splits, split = index % plan->splits;
    int64_t depth = g->depth / ATTN_LANES;
    int64_t first = depth * split / plan->splits, limit = depth * (split + 1) / plan->splits;
    int64_t begin = g->pieces * part / plan->parts, end = g->pieces * (part + 1) / plan->parts;
    float *sums = packed_panel(p, part * g->to.channels);
    if (g->by_pixels)
        clear_sums(p, sums, first, limit);
    for (int64_t i = begin; i < end; i++) {
        attn_piece piece = attn_grid_piece(g, i);
        sum_piece(p, sums, &piece, first, limit, g->by_pixels || i > begin, &s);
    }
}

/* One panel of dweight: the parts in their order. */
static void sum_task(void *context, int64_t panel, int worker)
{
    (void)worker;
    const product *p = context;
    const attn_grid *g = &p->grid;
    int64_t channel = panel * ATTN_PANEL, width = attn_panel_width(g->to.channels, panel);
    for (int64_t tap = 0; tap < g->h.count * g->w.count; tap++)
        attn_kernel->unpack_panel(p->dweight + tap + channel * p->to_stride,
                                  packed_panel(p, channel) + tap * g->from.channels * width,
                                  g->depth * g->to.channels, p->plan->parts, 1, p->from_stride,
                                  p->to_stride, g->from.channels, width);
}

/* Where nothing is gathered pieces are longer: partial sums come and go less often. The plan has at
 * most a quarter as many parts as there are pieces of the usual length, so that none is empty. */
static attn_grid weight_grid(const attn_conv_shape *s)
{
    attn_grid g = attn_grid_forward(s);
    attn_piece piece = attn_grid_piece(&g, 0);
    if (attn_source_stands(&g, &piece) && attn_stands(&g, &piece, &g.to)) {
        g.cuts = attn_ceil_div(g.rows * g.columns, LONG_PIECE);
        g.pieces = g.cuts * g.images;
    }
    return g;
}

static void weight_gradient(const attn_conv_plan *plan, const attn_conv_workspace *space,
                            const attn_conv_gradients *operands)
{
    const attn_conv_shape *s = &plan->shape;
    product p = {
        .grid = weight_grid(s), .plan = plan, .space = space, .from = operands->x.data,
        .to = (float *)operands->dy /* only read here */, .panels = space->shared,
        .dweight = operands->dweight,
        .from_stride = s->R * s->S, .to_stride = s->C * s->R * s->S,
    };
    attn_conv_parallel(space, weight_task, &p, plan->parts * plan->splits);
    attn_conv_parallel(space, sum_task, &p, attn_ceil_div(s->K, ATTN_PANEL));
}

/* Plan --------------------------------------------------------------------------------------- */

static void backward(const attn_conv_plan *plan, const attn_conv_workspace *space,
                     const attn_conv_gradients *operands)
{
    if (operands->dx)
        input_gradient(plan, space, operands);
    if (operands->dweight)
        weight_gradient(plan, space, operands);
}

static bool fits(const attn_conv_shape *s)
{
    return s->groups == 1 && s->C > 0 && s->C % ATTN_LANES == 0 && s->K > 0 &&
           s->K % ATTN_LANES == 0;
}

static bool suits(const attn_conv_shape *s, bool keep)
{
    (void)keep;
    return fits(s);
}

static void make_plan(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    int64_t depth = s->R * s->S * s->C, back_depth = s->R * s->S * s->K;
    attn_grid grid = attn_grid_forward(s);
    /* A part of only a few pieces would spend its time on the sums. */
    plan->parts = attn_conv_parts(depth * s->K, grid.pieces / 4);
    plan->splits = attn_min(attn_ceil_div(TASKS, plan->parts), depth / ATTN_LANES);
    plan->forward = (attn_conv_pass){
        .block = ATTN_PIECE_ROWS, .by_channels = !grid.by_pixels && grid.pieces <= FEW_PIECES,
        .worker = scratch_floats(depth, s->K)};
    if (plan->forward.by_channels)
        plan->forward.shared += s->N * s->P * s->Q * depth;
    if (plan->keep) {
        plan->form = ATTN_FORM_PANELS;
        plan->form_size = depth * s->K;
    } else {
        plan->forward.shared += depth * s->K;
    }
    plan->backward = (attn_conv_pass){
        .block = ATTN_PIECE_ROWS, .shared = plan->parts * depth * s->K,
        .worker = attn_max(scratch_floats(depth, s->K), scratch_floats(back_depth, s->C))};
}

const attn_conv_engine attn_conv_implicit_gemm = {
    "implicit_gemm", ATTN_BLOCKED16, ATTN_BLOCKED16, false, fits, suits, make_plan,
    pack_panels, forward, backward,
};
