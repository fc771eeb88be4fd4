/* Convolution between blocked tensors as a matrix product that never holds its left operand whole.
 *
 *   forward          y(pixels, K)  = x gathered (pixels, R S C)     weight (R S C, K)
 *   input gradient   dx(pixels, C) = dy gathered (pixels, taps K)   weight (taps K, C)
 *   weight gradient  dweight(R S C, K) = x gathered^T (R S C, pixels)   dy (pixels, K)
 *
 * The rows are cut into pieces of about BLOCK pixels; for each piece, slices of the depth are
 * gathered into a buffer that stays in the second cache and meet every panel of weights there. A
 * 1x1 convolution of stride 1 over large images needs no gathering: the image is the operand.
 *
 * The input gradient of a strided convolution falls apart into stride x stride products, one for
 * each remainder of the pixel's row and column: each sees only the taps that can reach it.
 *
 * Memory: packed weights or partial sums of the weight gradient (shared); a piece, its result and
 * the places of its pixels (each worker).
 */
#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "plan.h"

enum {
    BLOCK = 112,           /* pixels a piece: eight AVX-512 tiles of 14 */
    SLICE_FLOATS = 96 << 10, /* of a gathered slice: 384 KiB */
    TASKS = 16,            /* that a weight gradient should have at least */
};

/* Positions along one axis: first + i * step, inside the image where in [0, size). */
typedef struct {
    int64_t first, step, size;
} line;

/* One axis of a product: position i reads from.first + i * from.step + tap * tap_shift of the
 * source and belongs to to.first + i * to.step of the destination; tap t is row (or column)
 * kernel_first + t * kernel_step of the kernel. */
typedef struct {
    int64_t count, taps, tap_shift, kernel_first, kernel_step;
    line from, to;
} axis;

typedef struct {
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    axis h, w;
    int64_t from_channels, to_channels, depth; /* depth = taps * from_channels */
    int64_t pieces, pieces_an_image, images_a_piece;
    const float *from;
    float *to;
    const float *weight; /* as the caller has it */
    int64_t weight_from, weight_to; /* its strides along the source's and the destination's channels */
    const attn_finish *finish;
    float *dweight;
} product;

/* Rows [first, first + rows) of one image's grid, or all rows of several images. */
typedef struct {
    int64_t image, images, first, rows;
} piece;

static axis forward_axis(const attn_conv_shape *s, int a)
{
    int64_t size = a ? s->W : s->H, out = a ? s->Q : s->P;
    return (axis){
        .count = out, .taps = a ? s->S : s->R, .tap_shift = 1, .kernel_first = 0, .kernel_step = 1,
        .from = {-s->padding[a], s->stride[a], size}, .to = {0, 1, out},
    };
}

/* Pixels remainder, remainder + stride, ... of x; pixel h gets y's (h + padding - r) / stride. */
static axis backward_axis(const attn_conv_shape *s, int a, int64_t remainder)
{
    int64_t size = a ? s->W : s->H, out = a ? s->Q : s->P, kernel = a ? s->S : s->R;
    int64_t stride = s->stride[a], first = (remainder + s->padding[a]) % stride;
    return (axis){
        .count = attn_ceil_div(attn_max(size - remainder, 0), stride),
        .taps = attn_ceil_div(attn_max(kernel - first, 0), stride), .tap_shift = -1,
        .kernel_first = first, .kernel_step = stride,
        .from = {(remainder + s->padding[a] - first) / stride, 1, out},
        .to = {remainder, stride, size},
    };
}

static void cut_into_pieces(product *p)
{
    int64_t grid = p->h.count * p->w.count, block = BLOCK;
    p->depth = p->h.taps * p->w.taps * p->from_channels;
    p->pieces_an_image = attn_ceil_div(grid, block);
    p->images_a_piece = attn_max(1, block / attn_max(grid, 1));
    p->pieces = p->pieces_an_image * attn_ceil_div(p->plan->shape.N, p->images_a_piece);
}

static piece piece_at(const product *p, int64_t index)
{
    int64_t grid = p->h.count * p->w.count, cuts = p->pieces_an_image;
    int64_t image = index / cuts * p->images_a_piece, cut = index % cuts;
    int64_t images = attn_min(p->images_a_piece, p->plan->shape.N - image);
    int64_t first = grid * cut / cuts, end = grid * (cut + 1) / cuts;
    return (piece){image, images, first, images * (end - first)};
}

static int64_t plane(line h, line w) { return h.size * w.size; }

/* Whether position i is simply pixel i, so that one image's rows stand in memory as they are. */
static bool as_it_stands(const axis *h, const axis *w, line from_h, line from_w)
{
    return from_h.first == 0 && from_h.step == 1 && from_h.size == h->count && //
           from_w.first == 0 && from_w.step == 1 && from_w.size == w->count;
}

/* at[row] = where the piece's pixels stand in channel block 0 of a tensor, or -1 for outside. */
static void find_places(int64_t *at, const product *p, const piece *rows, line h, line w,
                        int64_t channels)
{
    int64_t columns = p->w.count, per_image = rows->rows / rows->images;
    int64_t image_step = channels / ATTN_LANES * plane(h, w);
    for (int64_t n = rows->image; n < rows->image + rows->images; n++) {
        int64_t i = rows->first / columns, j = rows->first % columns;
        for (int64_t row = 0; row < per_image; row++) {
            int64_t y = h.first + i * h.step, x = w.first + j * w.step;
            bool inside = y >= 0 && y < h.size && x >= 0 && x < w.size;
            *at++ = inside ? n * image_step + y * w.size + x : -1;
            if (++j == columns) {
                j = 0;
                i++;
            }
        }
    }
}

/* A left operand in blocks: in a buffer, or where it stands in the tensor. */
typedef struct {
    const float *data;
    int64_t block;
} operand;

static operand in_place(const float *x, const piece *rows, line h, line w, int64_t channels)
{
    int64_t start = rows->image * channels / ATTN_LANES * plane(h, w) + rows->first;
    return (operand){x + start * ATTN_LANES, plane(h, w) * ATTN_LANES};
}

/* Channel blocks [begin, end) of the depth, tap by tap, of the source's rows. */
static operand source_slice(const product *p, const piece *rows, int64_t begin, int64_t end,
                            float *buffer, int64_t *at)
{
    int64_t blocks = p->from_channels / ATTN_LANES, size = rows->rows * ATTN_LANES;
    if (p->h.taps * p->w.taps == 1 && rows->images == 1 &&
        as_it_stands(&p->h, &p->w, p->h.from, p->w.from)) {
        operand x = in_place(p->from, rows, p->h.from, p->w.from, p->from_channels);
        x.data += begin * x.block;
        return x;
    }
    for (int64_t i = begin, tap = -1; i < end; i++) {
        if (tap != i / blocks) {
            tap = i / blocks;
            line h = p->h.from, w = p->w.from;
            h.first += tap / p->w.taps * p->h.tap_shift;
            w.first += tap % p->w.taps * p->w.tap_shift;
            find_places(at, p, rows, h, w, p->from_channels);
        }
        const float *channel_block = p->from + i % blocks * plane(p->h.from, p->w.from) * ATTN_LANES;
        attn_kernel->gather_rows(buffer + (i - begin) * size, channel_block, at, rows->rows);
    }
    return (operand){buffer, size};
}

/* Memory of a worker, from its scratch space. */
typedef struct {
    float *slice, *rows;
    int64_t *from_places, *to_places;
} scratch;

static int64_t slice_blocks(int64_t depth)
{
    return attn_max(1, attn_min(depth / ATTN_LANES, SLICE_FLOATS / (BLOCK * ATTN_LANES)));
}

static int64_t scratch_floats(int64_t depth, int64_t channels)
{
    const int64_t place = sizeof(int64_t) / sizeof(float);
    return (slice_blocks(depth) * ATTN_LANES + channels + 2 * place) * BLOCK;
}

static scratch scratch_of(const product *p, int64_t channels, int worker)
{
    float *base = attn_conv_scratch(p->space, worker);
    scratch s = {.from_places = (int64_t *)base, .to_places = (int64_t *)base + BLOCK};
    s.rows = (float *)(s.to_places + BLOCK);
    s.slice = s.rows + channels * BLOCK;
    return s;
}

/* Packed weights: for each panel of the destination's channels [tap][source channel][width]. */
static void pack_task(void *context, int64_t panel, int worker)
{
    (void)worker;
    const product *p = context;
    const attn_conv_shape *s = &p->plan->shape;
    int64_t width = attn_panel_width(p->to_channels, panel);
    float *out = p->space->shared + panel * ATTN_PANEL * p->depth;
    for (int64_t i = 0; i < p->h.taps; i++)
        for (int64_t j = 0; j < p->w.taps; j++) {
            int64_t tap = (p->h.kernel_first + i * p->h.kernel_step) * s->S + p->w.kernel_first +
                          j * p->w.kernel_step;
            attn_kernel->pack_panel(out, p->weight + tap + panel * ATTN_PANEL * p->weight_to, 1,
                                    p->weight_from, p->weight_to, p->from_channels, width);
            out += p->from_channels * width;
        }
}

/* The finished rows of one panel go to their places, counted from `start` floats on. at NULL: they
 * stand there already. */
static void store_panel(const product *p, const int64_t *at, const operand *result, int64_t start,
                        int64_t rows, int64_t panel)
{
    int64_t size = plane(p->h.to, p->w.to) * ATTN_LANES;
    for (int64_t i = 0; i < attn_panel_width(p->to_channels, panel) / ATTN_LANES; i++) {
        int64_t channel = panel * ATTN_PANEL + i * ATTN_LANES;
        int64_t offset = start + channel / ATTN_LANES * size;
        attn_finish finish = attn_finish_at(p->finish, channel, offset);
        attn_kernel->store_rows(p->to + offset, at, result->data + i * result->block, rows,
                                &finish);
    }
}

/* One piece: all of its depth, all of its channels. */
static void product_task(void *context, int64_t index, int worker)
{
    const product *p = context;
    piece rows = piece_at(p, index);
    scratch s = scratch_of(p, p->to_channels, worker);
    int64_t depth = p->depth / ATTN_LANES, step = slice_blocks(p->depth);
    bool here = rows.images == 1 && as_it_stands(&p->h, &p->w, p->h.to, p->w.to);
    operand place = in_place(p->to, &rows, p->h.to, p->w.to, p->to_channels);
    int64_t start = here ? place.data - p->to : 0;
    if (!here)
        find_places(s.to_places, p, &rows, p->h.to, p->w.to, p->to_channels);
    int64_t begin = 0;
    do { /* once even where no tap reaches these pixels: they become 0 */
        int64_t end = attn_min(depth, begin + step);
        operand left = source_slice(p, &rows, begin, end, s.slice, s.from_places);
        for (int64_t panel = 0; panel * ATTN_PANEL < p->to_channels; panel++) {
            int64_t width = attn_panel_width(p->to_channels, panel);
            operand result = {s.rows + panel * ATTN_PANEL * rows.rows, rows.rows * ATTN_LANES};
            if (here)
                result = (operand){place.data + panel * ATTN_PANEL / ATTN_LANES * place.block,
                                   place.block};
            const float *right = p->space->shared + panel * ATTN_PANEL * p->depth +
                                 begin * ATTN_LANES * width;
            attn_kernel->gemm_rows((float *)result.data, result.block, left.data, left.block, right,
                                   rows.rows, (end - begin) * ATTN_LANES, width, begin > 0);
            if (end == depth && !(here && attn_finish_is_empty(p->finish)))
                store_panel(p, here ? NULL : s.to_places, &result, start, rows.rows, panel);
        }
        begin = end;
    } while (begin < depth);
}

static void run_product(product *p)
{
    cut_into_pieces(p);
    attn_parallel(pack_task, p, attn_ceil_div(p->to_channels, ATTN_PANEL));
    attn_parallel(product_task, p, p->pieces);
}

/* One part of the pieces, one split of the depth: a partial sum of the weight gradient, laid out
 * like packed weights. */
static void weight_task(void *context, int64_t index, int worker)
{
    const product *p = context;
    const attn_conv_plan *plan = p->plan;
    scratch s = scratch_of(p, p->to_channels, worker);
    int64_t part = index / plan->splits, split = index % plan->splits;
    int64_t depth = p->depth / ATTN_LANES, step = slice_blocks(p->depth);
    int64_t first = depth * split / plan->splits, last = depth * (split + 1) / plan->splits;
    int64_t piece_begin = p->pieces * part / plan->parts;
    int64_t piece_end = p->pieces * (part + 1) / plan->parts;
    float *sums = p->space->shared + part * p->depth * p->to_channels;
    for (int64_t i = piece_begin; i < piece_end; i++) {
        piece rows = piece_at(p, i);
        operand dy = in_place(p->to, &rows, p->h.to, p->w.to, p->to_channels);
        if (rows.images > 1) {
            find_places(s.to_places, p, &rows, p->h.to, p->w.to, p->to_channels);
            for (int64_t k = 0; k < p->to_channels / ATTN_LANES; k++)
                attn_kernel->gather_rows(s.rows + k * rows.rows * ATTN_LANES,
                                         p->to + k * plane(p->h.to, p->w.to) * ATTN_LANES,
                                         s.to_places, rows.rows);
            dy = (operand){s.rows, rows.rows * ATTN_LANES};
        }
        for (int64_t begin = first; begin < last; begin += step) {
            int64_t end = attn_min(last, begin + step);
            operand left = source_slice(p, &rows, begin, end, s.slice, s.from_places);
            for (int64_t panel = 0; panel * ATTN_PANEL < p->to_channels; panel++) {
                int64_t width = attn_panel_width(p->to_channels, panel);
                attn_kernel->gemm_outer(sums + panel * ATTN_PANEL * p->depth +
                                            begin * ATTN_LANES * width,
                                        left.data, left.block,
                                        dy.data + panel * ATTN_PANEL / ATTN_LANES * dy.block,
                                        dy.block, rows.rows, (end - begin) * ATTN_LANES, width,
                                        i > piece_begin);
            }
        }
    }
}

/* One panel of dweight: the parts in their order. */
static void gather_weight_task(void *context, int64_t panel, int worker)
{
    (void)worker;
    const product *p = context;
    int64_t width = attn_panel_width(p->to_channels, panel);
    const float *sums = p->space->shared + panel * ATTN_PANEL * p->depth;
    for (int64_t tap = 0; tap < p->h.taps * p->w.taps; tap++)
        attn_kernel->unpack_panel(p->dweight + tap + panel * ATTN_PANEL * p->weight_to,
                                  sums + tap * p->from_channels * width,
                                  p->depth * p->to_channels, p->plan->parts, 1, p->weight_from,
                                  p->weight_to, p->from_channels, width);
}

static product forward_product(const attn_conv_plan *plan, const attn_conv_workspace *space)
{
    const attn_conv_shape *s = &plan->shape;
    return (product){
        .plan = plan, .space = space, .h = forward_axis(s, 0), .w = forward_axis(s, 1),
        .from_channels = s->C, .to_channels = s->K,
        .weight_from = s->R * s->S, .weight_to = s->C * s->R * s->S,
    };
}

static void forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                    const float *x, const float *weight, const attn_finish *finish)
{
    product p = forward_product(plan, space);
    p.from = x;
    p.to = y;
    p.weight = weight;
    p.finish = finish;
    run_product(&p);
}

static void input_gradient(const attn_conv_plan *plan, const attn_conv_workspace *space,
                           const attn_conv_gradients *operands)
{
    const attn_conv_shape *s = &plan->shape;
    const attn_finish nothing = {.stream = attn_conv_stream(s->N * s->C * s->H * s->W)};
    for (int64_t i = 0; i < s->stride[0] && i < s->H; i++)
        for (int64_t j = 0; j < s->stride[1] && j < s->W; j++) {
            product p = {
                .plan = plan, .space = space,
                .h = backward_axis(s, 0, i), .w = backward_axis(s, 1, j),
                .from_channels = s->K, .to_channels = s->C,
                .from = operands->dy, .to = operands->dx, .weight = operands->weight,
                .weight_from = s->C * s->R * s->S, .weight_to = s->R * s->S, .finish = &nothing,
            };
            run_product(&p);
        }
}

static void backward(const attn_conv_plan *plan, const attn_conv_workspace *space,
                     const attn_conv_gradients *operands)
{
    if (operands->dx)
        input_gradient(plan, space, operands);
    if (operands->dweight) {
        product p = forward_product(plan, space);
        p.from = operands->x;
        p.to = (float *)operands->dy; /* only read here */
        p.dweight = operands->dweight;
        cut_into_pieces(&p);
        attn_parallel(weight_task, &p, plan->parts * plan->splits);
        attn_parallel(gather_weight_task, &p, attn_ceil_div(p.to_channels, ATTN_PANEL));
    }
}

static bool fits(const attn_conv_shape *s)
{
    return s->groups == 1 && s->C > 0 && s->C % ATTN_LANES == 0 && s->K > 0 &&
           s->K % ATTN_LANES == 0;
}

static void make_plan(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    int64_t depth = s->R * s->S * s->C, back_depth = s->R * s->S * s->K;
    product p = forward_product(plan, NULL);
    cut_into_pieces(&p);
    plan->parts = attn_conv_parts(depth * s->K, p.pieces);
    plan->splits = attn_min(attn_ceil_div(TASKS, plan->parts), depth / ATTN_LANES);
    plan->forward = (attn_conv_pass){
        .block = BLOCK, .shared = depth * s->K, .worker = scratch_floats(depth, s->K)};
    plan->backward = (attn_conv_pass){
        .block = BLOCK, .shared = plan->parts * depth * s->K,
        .worker = attn_max(scratch_floats(depth, s->K), scratch_floats(back_depth, s->C))};
}

const attn_conv_engine attn_conv_implicit_gemm = {
    "implicit_gemm", ATTN_BLOCKED16, ATTN_BLOCKED16, fits, make_plan, forward, backward,
};
