/* The first layer: few input channels, row-major as images come; the output is blocked.
 *
 * As implicit_gemm.c, but the left operand's depth, all of (c, r, s), is so short that the patches
 * of a piece are written out whole; the depth is filled up with zeros to a multiple of 16.
 *
 * Memory: packed weights or partial sums of the weight gradient (shared); a piece's patches and
 * results (each worker).
 */
#include "../kernels/kernels.h"
#include "plan.h"

#include <string.h>

enum { BLOCK = 112, MOST_CHANNELS = 15 };

typedef struct {
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    float *y;
    const float *x, *panels; /* of weights */
    const attn_finish *finish;
    const attn_conv_gradients *operands;
} job;

/* Rows [first, end) of the P Q outputs of one image. */
typedef struct {
    int64_t image, first, end;
} piece;

static int64_t true_depth(const attn_conv_shape *s) { return s->C * s->R * s->S; }
static int64_t padded_depth(const attn_conv_shape *s)
{
    return attn_ceil_div(true_depth(s), ATTN_LANES) * ATTN_LANES;
}
static int64_t pieces_an_image(const attn_conv_shape *s)
{
    return attn_ceil_div(s->P * s->Q, BLOCK);
}

static piece piece_at(const attn_conv_shape *s, int64_t index)
{
    int64_t cuts = pieces_an_image(s), cut = index % cuts, pixels = s->P * s->Q;
    return (piece){index / cuts, pixels * cut / cuts, pixels * (cut + 1) / cuts};
}

/* patches[depth / 16][rows][16] of an image, 0 where they lie in the padding and in the depth that
 * is filled up; or, where `add_back`, image += the patches. Line by line of the output: what lies
 * inside the image is one run of pixels. */
static void move_patches(float *patches, float *image, const attn_conv_shape *s, piece rows,
                         bool add_back)
{
    int64_t size = rows.end - rows.first, step = s->stride[1];
    if (!add_back)
        memset(patches, 0, (size_t)(padded_depth(s) * size) * sizeof(float));
    for (int64_t d = 0; d < true_depth(s); d++) {
        int64_t h = d / s->S % s->R - s->padding[0], w = d % s->S - s->padding[1];
        float *patch = patches + d / ATTN_LANES * size * ATTN_LANES + d % ATTN_LANES;
        float *plane = image + d / (s->R * s->S) * s->H * s->W;
        attn_range p = attn_conv_inside(h, s->stride[0], s->H, s->P);
        attn_range inside = attn_conv_inside(w, step, s->W, s->Q);
        p.begin = attn_max(p.begin, rows.first / s->Q);
        p.end = attn_min(p.end, attn_ceil_div(rows.end, s->Q));
        for (int64_t i = p.begin; i < p.end; i++) {
            int64_t line = i * s->Q - rows.first; /* the piece may begin or end within a line */
            int64_t begin = attn_max(inside.begin, -line), end = attn_min(inside.end, size - line);
            float *pixels = plane + (i * s->stride[0] + h) * s->W + w;
            float *to = patch + line * ATTN_LANES;
            if (add_back)
                for (int64_t q = begin; q < end; q++)
                    pixels[q * step] += to[q * ATTN_LANES];
            else
                for (int64_t q = begin; q < end; q++)
                    to[q * ATTN_LANES] = pixels[q * step];
        }
    }
}

static void forward_piece(void *context, int64_t index, int worker)
{
    const job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    piece rows = piece_at(s, index);
    int64_t size = rows.end - rows.first, plane = s->P * s->Q * ATTN_LANES;
    float *patches = attn_conv_scratch(j->space, worker);
    move_patches(patches, (float *)j->x + rows.image * s->C * s->H * s->W, s, rows, false);
    int64_t start = rows.image * s->K * s->P * s->Q + rows.first * ATTN_LANES;
    for (int64_t k = 0; k < s->K; k += ATTN_PANEL)
        attn_kernel->gemm_rows(j->y + start + k / ATTN_LANES * plane, plane, patches,
                               size * ATTN_LANES, j->panels + k * padded_depth(s), size,
                               padded_depth(s), attn_min(ATTN_PANEL, s->K - k), false);
    if (attn_finish_is_empty(j->finish))
        return;
    for (int64_t k = 0; k < s->K; k += ATTN_LANES) {
        int64_t offset = start + k / ATTN_LANES * plane;
        attn_finish finish = attn_finish_at(j->finish, k, offset);
        attn_kernel->store_rows(j->y + offset, NULL, j->y + offset, size, &finish);
    }
}

static void pack(const attn_conv_plan *plan, float *panels, const float *weight)
{
    const attn_conv_shape *s = &plan->shape;
    int64_t depth = true_depth(s), padded = padded_depth(s);
    memset(panels, 0, (size_t)(padded * s->K) * sizeof(float));
    for (int64_t k = 0; k < s->K; k += ATTN_PANEL)
        attn_kernel->pack_panel(panels + k * padded, weight + k * depth, 1, 1, depth, depth,
                                attn_min(ATTN_PANEL, s->K - k));
}

static void forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                    const float *x, const float *weight, const attn_finish *finish)
{
    const attn_conv_shape *s = &plan->shape;
    if (plan->form == ATTN_FORM_PLAIN) {
        pack(plan, space->shared, weight);
        weight = space->shared;
    }
    job j = {.plan = plan, .space = space, .y = y, .x = x, .panels = weight, .finish = finish};
    attn_conv_parallel(space, forward_piece, &j, s->N * pieces_an_image(s));
}

/* A part of the pieces: partial sums of the weight gradient. */
static void weight_task(void *context, int64_t part, int worker)
{
    const job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t depth = padded_depth(s), plane = s->P * s->Q * ATTN_LANES;
    int64_t pieces = s->N * pieces_an_image(s);
    int64_t begin = pieces * part / j->plan->parts, end = pieces * (part + 1) / j->plan->parts;
    float *patches = attn_conv_scratch(j->space, worker);
    float *sums = j->space->shared + part * depth * s->K;
    for (int64_t i = begin; i < end; i++) {
        piece rows = piece_at(s, i);
        int64_t size = rows.end - rows.first;
        const float *x = j->operands->x + rows.image * s->C * s->H * s->W;
        const float *dy = j->operands->dy + rows.image * s->K * s->P * s->Q +
                          rows.first * ATTN_LANES;
        move_patches(patches, (float *)x, s, rows, false);
        for (int64_t k = 0; k < s->K; k += ATTN_PANEL)
            attn_kernel->gemm_outer(sums + k * depth, patches, size * ATTN_LANES,
                                    dy + k / ATTN_LANES * plane, plane, size, depth,
                                    attn_min(ATTN_PANEL, s->K - k), i > begin);
    }
}

static void weight_gradient(job *j)
{
    const attn_conv_plan *plan = j->plan;
    const attn_conv_shape *s = &plan->shape;
    int64_t depth = true_depth(s), padded = padded_depth(s);
    attn_conv_parallel(j->space, weight_task, j, plan->parts);
    for (int64_t k = 0; k < s->K; k += ATTN_PANEL)
        attn_kernel->unpack_panel(j->operands->dweight + k * depth, j->space->shared + k * padded,
                                  padded * s->K, plan->parts, 1, 1, depth, depth,
                                  attn_min(ATTN_PANEL, s->K - k));
}

/* One image: the gradients of its patches, added back to where they came from. */
static void input_task(void *context, int64_t n, int worker)
{
    const job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t image = s->C * s->H * s->W, plane = s->P * s->Q * ATTN_LANES, depth = padded_depth(s);
    float *patches = attn_conv_scratch(j->space, worker), *dx = j->operands->dx + n * image;
    memset(dx, 0, (size_t)image * sizeof(float));
    for (int64_t cut = 0; cut < pieces_an_image(s); cut++) {
        piece rows = piece_at(s, n * pieces_an_image(s) + cut);
        int64_t size = rows.end - rows.first;
        const float *dy = j->operands->dy + n * s->K * s->P * s->Q + rows.first * ATTN_LANES;
        for (int64_t d = 0; d < depth; d += ATTN_PANEL)
            attn_kernel->gemm_rows(patches + d * size, size * ATTN_LANES, dy, plane,
                                   j->space->shared + d * s->K, size, s->K,
                                   attn_min(ATTN_PANEL, depth - d), false);
        move_patches(patches, dx, s, rows, true);
    }
}

static void input_gradient(job *j)
{
    const attn_conv_shape *s = &j->plan->shape;
    int64_t depth = true_depth(s), padded = padded_depth(s);
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
    int64_t depth = padded_depth(s);
    plan->parts = attn_conv_parts(depth * s->K, s->N * pieces_an_image(s));
    plan->splits = 1;
    plan->forward = plan->backward = (attn_conv_pass){
        .block = BLOCK, .shared = depth * s->K, .worker = depth * BLOCK};
    plan->backward.shared *= plan->parts;
    if (plan->keep) {
        plan->form = ATTN_FORM_PANELS;
        plan->form_size = depth * s->K;
        plan->forward.shared = 0;
    }
}

const attn_conv_engine attn_conv_stem = {
    "stem", ATTN_PLAIN, ATTN_BLOCKED16, fits, suits, make_plan, pack, forward, backward,
};
