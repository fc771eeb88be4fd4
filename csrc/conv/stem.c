/* The first layer: few input channels, row-major as images come; the output is blocked.
 *
 * The depth of the product, all of (c, r, s), is so short that the left operand need not be written
 * out: a task copies the lines of x that its outputs read, with the padding around them, and the
 * kernels find the patches there (kernels/stem.c). Strides are undone while copying: the columns of
 * a line are sorted by their remainder, so that neighbouring outputs read neighbouring floats.
 *
 * Memory: packed weights or partial sums of the weight gradient (shared); the places of the taps,
 * the copied lines and, for the input gradient, the patches' gradients (each worker).
 */
#include "../kernels/kernels.h"
#include "plan.h"

#include <string.h>

enum { BAND = 256 /* outputs that a task should hold */, MOST_CHANNELS = 15 };

typedef struct {
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    float *y;
    const float *x, *panels; /* of weights */
    const attn_finish *finish;
    const attn_conv_gradients *operands;
} job;

/* Some lines of the P of one image. */
typedef struct {
    int64_t image, first, lines;
} band;

static int64_t depth_of(const attn_conv_shape *s) { return s->C * s->R * s->S; }
static int64_t padded_depth(const attn_conv_shape *s)
{
    return attn_ceil_div(depth_of(s), ATTN_LANES) * ATTN_LANES;
}

static int64_t lines_a_band(const attn_conv_shape *s)
{
    return attn_min(s->P, attn_ceil_div(BAND, attn_max(s->Q, 1)));
}
static int64_t bands_an_image(const attn_conv_shape *s)
{
    return attn_ceil_div(s->P, attn_max(lines_a_band(s), 1));
}
static band band_at(const attn_conv_shape *s, int64_t index)
{
    int64_t cuts = bands_an_image(s), cut = index % cuts;
    int64_t first = s->P * cut / cuts;
    return (band){index / cuts, first, s->P * (cut + 1) / cuts - first};
}

/* The copy of the lines that `lines` lines of outputs read: (C, rows, stride, columns), where
 * column i of remainder j is column i * stride + j of x, counted from the padding on. */
typedef struct {
    int64_t rows, columns, row, size;
} copy_size;

static copy_size size_of_copy(const attn_conv_shape *s, int64_t lines)
{
    copy_size size = {.rows = (lines - 1) * s->stride[0] + s->R,
                      .columns = s->Q + (s->S - 1) / s->stride[1]};
    size.row = size.columns * s->stride[1];
    size.size = s->C * size.rows * size.row;
    return size;
}

/* The copy <- x; or, where `add_back`, x += the copy. */
static void move_lines(float *copy, float *x, const attn_conv_shape *s, band b, bool add_back)
{
    copy_size size = size_of_copy(s, b.lines);
    int64_t step = s->stride[1], top = b.first * s->stride[0] - s->padding[0];
    if (!add_back)
        memset(copy, 0, (size_t)size.size * sizeof(float));
    for (int64_t i = 0; i < s->C * size.rows * step; i++, copy += size.columns) {
        int64_t h = top + i / step % size.rows, column = i % step - s->padding[1];
        if (h < 0 || h >= s->H)
            continue;
        float *pixels = x + (i / step / size.rows * s->H + h) * s->W + column;
        attn_range inside = attn_conv_inside(column, step, s->W, size.columns);
        if (add_back)
            for (int64_t q = inside.begin; q < inside.end; q++)
                pixels[q * step] += copy[q];
        else if (step == 1)
            memcpy(copy + inside.begin, pixels + inside.begin,
                   (size_t)(inside.end - inside.begin) * sizeof(float));
        else
            for (int64_t q = inside.begin; q < inside.end; q++)
                copy[q] = pixels[q * step];
    }
}

/* A worker's memory: first the places of the taps, then the copy. */
static int64_t places_size(const attn_conv_shape *s)
{
    int64_t floats = depth_of(s) * (int64_t)(sizeof(int64_t) / sizeof(float));
    return attn_ceil_div(floats, ATTN_LANES) * ATTN_LANES;
}
static float *copy_of(const job *j, int worker)
{
    return attn_conv_scratch(j->space, worker) + places_size(&j->plan->shape);
}

/* The patches of a band, which point into the worker's copy. */
static attn_patches patches_of(const job *j, band b, int worker)
{
    const attn_conv_shape *s = &j->plan->shape;
    copy_size size = size_of_copy(s, b.lines);
    int64_t *taps = (int64_t *)attn_conv_scratch(j->space, worker);
    for (int64_t d = 0; d < depth_of(s); d++) {
        int64_t row = d / (s->R * s->S) * size.rows + d / s->S % s->R, column = d % s->S;
        taps[d] = row * size.row + column % s->stride[1] * size.columns + column / s->stride[1];
    }
    return (attn_patches){copy_of(j, worker), taps, depth_of(s), s->stride[0] * size.row, b.lines,
                          s->Q};
}

static attn_patches copied_patches(const job *j, const float *x, band b, int worker)
{
    const attn_conv_shape *s = &j->plan->shape;
    move_lines(copy_of(j, worker), (float *)x + b.image * s->C * s->H * s->W, s, b, false);
    return patches_of(j, b, worker);
}

/* Where a band begins in the blocked tensor. */
static int64_t output_at(const attn_conv_shape *s, band b)
{
    return b.image * s->K * s->P * s->Q + b.first * s->Q * ATTN_LANES;
}

static void forward_band(void *context, int64_t index, int worker)
{
    const job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    band b = band_at(s, index);
    attn_patches patches = copied_patches(j, j->x, b, worker);
    int64_t plane = s->P * s->Q * ATTN_LANES;
    for (int64_t k = 0; k < s->K; k += ATTN_PANEL) {
        int64_t offset = output_at(s, b) + k / ATTN_LANES * plane;
        attn_finish finish = attn_finish_at(j->finish, k, offset);
        attn_kernel->stem_rows(j->y + offset, plane, &patches, j->panels + k * depth_of(s),
                               attn_min(ATTN_PANEL, s->K - k), &finish);
    }
}

static void pack(const attn_conv_plan *plan, float *panels, const float *weight)
{
    const attn_conv_shape *s = &plan->shape;
    int64_t depth = depth_of(s);
    for (int64_t k = 0; k < s->K; k += ATTN_PANEL)
        attn_kernel->pack_panel(panels + k * depth, weight + k * depth, 1, 1, depth, depth,
                                attn_min(ATTN_PANEL, s->K - k));
}

static void forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                    const attn_conv_input *x, const float *weight, const attn_finish *finish)
{
    const attn_conv_shape *s = &plan->shape;
    if (plan->form == ATTN_FORM_PLAIN) {
        pack(plan, space->shared, weight);
        weight = space->shared;
    }
    job j = {.plan = plan, .space = space, .y = y, .x = x->data, .panels = weight,
             .finish = finish};
    attn_conv_parallel(space, forward_band, &j, s->N * bands_an_image(s));
}

/* A part of the bands: partial sums of the weight gradient. */
static void weight_task(void *context, int64_t part, int worker)
{
    const job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t depth = depth_of(s), plane = s->P * s->Q * ATTN_LANES;
    int64_t bands = s->N * bands_an_image(s), parts = j->plan->parts;
    int64_t begin = bands * part / parts, end = bands * (part + 1) / parts;
    float *sums = j->space->shared + part * depth * s->K;
    for (int64_t i = begin; i < end; i++) {
        band b = band_at(s, i);
        attn_patches patches = copied_patches(j, j->operands->x.data, b, worker);
        const float *dy = j->operands->dy + output_at(s, b);
        for (int64_t k = 0; k < s->K; k += ATTN_PANEL)
            attn_kernel->stem_outer(sums + k * depth, &patches, dy + k / ATTN_LANES * plane, plane,
                                    attn_min(ATTN_PANEL, s->K - k), i > begin);
    }
}

static void weight_gradient(job *j)
{
    const attn_conv_plan *plan = j->plan;
    const attn_conv_shape *s = &plan->shape;
    int64_t depth = depth_of(s);
    attn_conv_parallel(j->space, weight_task, j, plan->parts);
    for (int64_t k = 0; k < s->K; k += ATTN_PANEL)
        attn_kernel->unpack_panel(j->operands->dweight + k * depth, j->space->shared + k * depth,
                                  depth * s->K, plan->parts, 1, 1, depth, depth,
                                  attn_min(ATTN_PANEL, s->K - k));
}

/* The gradients of a band's patches, [depth / 16][rows][16], are added to where the taps stand. */
static void add_patches(float *copy, const attn_patches *p, const float *gradients)
{
    int64_t rows = p->lines * p->columns;
    for (int64_t d = 0; d < p->depth; d++) {
        const float *from = gradients + d / ATTN_LANES * rows * ATTN_LANES + d % ATTN_LANES;
        for (int64_t line = 0; line < p->lines; line++)
            for (int64_t q = 0; q < p->columns; q++, from += ATTN_LANES)
                copy[line * p->line + p->taps[d] + q] += *from;
    }
}

/* One image: the gradients of its patches, band by band. */
static void input_task(void *context, int64_t n, int worker)
{
    const job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t image = s->C * s->H * s->W, plane = s->P * s->Q * ATTN_LANES, depth = padded_depth(s);
    float *dx = j->operands->dx + n * image, *copy = copy_of(j, worker);
    memset(dx, 0, (size_t)image * sizeof(float));
    for (int64_t cut = 0; cut < bands_an_image(s); cut++) {
        band b = band_at(s, n * bands_an_image(s) + cut);
        attn_patches patches = patches_of(j, b, worker);
        int64_t rows = b.lines * s->Q, copied = size_of_copy(s, b.lines).size;
        float *gradients = copy + size_of_copy(s, lines_a_band(s)).size;
        for (int64_t d = 0; d < depth; d += ATTN_PANEL)
            attn_kernel->gemm_rows(gradients + d * rows, rows * ATTN_LANES,
                                   j->operands->dy + output_at(s, b), plane,
                                   j->space->shared + d * s->K, rows, s->K,
                                   attn_min(ATTN_PANEL, depth - d), false);
        memset(copy, 0, (size_t)copied * sizeof(float));
        add_patches(copy, &patches, gradients);
        move_lines(copy, dx, s, b, true);
    }
}

static void input_gradient(job *j)
{
    const attn_conv_shape *s = &j->plan->shape;
    int64_t depth = depth_of(s), padded = padded_depth(s);
    for (int64_t d = 0; d < padded; d += ATTN_PANEL) {
        int64_t width = attn_min(ATTN_PANEL, padded - d), real = attn_min(width, depth - d);
        float *panel = j->space->shared + d * s->K;
        memset(panel, 0, (size_t)(width * s->K) * sizeof(float));
        for (int64_t k = 0; k < s->K; k++)
            memcpy(panel + k * width, j->operands->weight + k * depth + d,
                   (size_t)real * sizeof(float));
    }
    attn_conv_parallel(j->space, input_task, j, s->N);
}

static void backward(const attn_conv_plan *plan, const attn_conv_workspace *space,
                     const attn_conv_gradients *operands)
{
    job j = {.plan = plan, .space = space, .operands = operands};
    if (operands->dweight)
        weight_gradient(&j);
    if (operands->dx)
        input_gradient(&j);
}

static bool fits(const attn_conv_shape *s)
{
    return s->groups == 1 && s->C > 0 && s->C <= MOST_CHANNELS && s->K > 0 &&
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
    int64_t depth = depth_of(s), lines = lines_a_band(s);
    int64_t copy = places_size(s) + (lines > 0 ? size_of_copy(s, lines).size : 0);
    plan->parts = attn_conv_parts(depth * s->K, s->N * bands_an_image(s));
    plan->splits = 1;
    plan->forward = (attn_conv_pass){.block = lines * s->Q, .shared = depth * s->K,
                                     .worker = copy};
    plan->backward = (attn_conv_pass){
        .block = lines * s->Q, .shared = attn_max(plan->parts * depth, padded_depth(s)) * s->K,
        .worker = copy + padded_depth(s) * lines * s->Q};
    if (plan->keep) {
        plan->form = ATTN_FORM_PANELS;
        plan->form_size = depth * s->K;
        plan->forward.shared = 0;
    }
}

const attn_conv_engine attn_conv_stem = {
    "stem", ATTN_PLAIN, ATTN_BLOCKED16, false, fits, suits, make_plan, pack, forward, backward,
};
