/* The Winograd engine: which shapes it takes, how their work is cut, and the forward pass.
 *
 * Relative error (root mean square) against float64, normal data: 8e-7 with 64 channels, 2.5e-6
 * with 512, output and input gradient alike; 6e-7 to 1.6e-6 for the weight gradient. That is two to
 * two and a half times the error of the direct sum. A test bounds it.
 */
#include "winograd.h"

winograd_tiles attn_winograd_tiles_of(const attn_conv_shape *s)
{
    int64_t rows = attn_ceil_div(s->P, 4), columns = attn_ceil_div(s->Q, 4);
    return (winograd_tiles){
        .input = {s->H, s->W, s->C * s->H * s->W, rows, columns, {s->padding[0], s->padding[1]}},
        .output = {s->P, s->Q, s->K * s->P * s->Q, rows, columns, {0, 0}},
        .an_image = rows * columns,
        .count = s->N * rows * columns,
    };
}

/* Weights ------------------------------------------------------------------------------------ */

winograd_weights attn_winograd_weights(const attn_conv_shape *s, const float *weight,
                                       bool transposed)
{
    if (transposed)
        return (winograd_weights){weight, s->K, s->C, s->C * TAPS, TAPS};
    return (winograd_weights){weight, s->C, s->K, TAPS, s->C * TAPS};
}

void attn_winograd_transform_weights(float *u, const winograd_weights *w, int64_t panel,
                                     int64_t first, int64_t end)
{
    enum { STRIP = 16 };
    float taps[TAPS * STRIP * ATTN_PANEL] __attribute__((aligned(ATTN_ALIGNMENT)));
    int64_t width = attn_panel_width(w->columns, panel);
    for (int64_t d = first; d < end; d += STRIP) {
        const float *from = w->weight + d * w->depth_stride + panel * ATTN_PANEL * w->column_stride;
        attn_kernel->pack_panel(taps, from, TAPS, w->depth_stride, w->column_stride, STRIP, width);
        attn_kernel->winograd_weight(u + d * width, spot_step(w->depth, ATTN_PANEL), taps,
                                     STRIP * width, STRIP * width);
    }
}

typedef struct {
    float *u;
    const winograd_weights *weights;
} weights_job;

static void weights_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const weights_job *j = context;
    int64_t strips = j->weights->depth / ATTN_LANES;
    int64_t panel = index / strips, first = index % strips * ATTN_LANES;
    attn_winograd_transform_weights(j->u + panel * spots_size(j->weights->depth, ATTN_PANEL),
                                    j->weights, panel, first, first + ATTN_LANES);
}

void attn_winograd_transform_all_weights(float *u, const winograd_weights *w)
{
    weights_job job = {u, w};
    attn_parallel(weights_task, &job, panel_count(w->columns) * (w->depth / ATTN_LANES));
}

void attn_winograd_multiply(const spots *out, const spots *in, int64_t first, const float *u,
                            int64_t depth, int64_t width)
{
    for (int64_t spot = 0; spot < SPOTS; spot++)
        attn_kernel->gemm_rows(out->data + spot * out->spot, out->tiles * ATTN_LANES,
                               in->data + spot * in->spot + first * ATTN_LANES,
                               in->tiles * ATTN_LANES, u + spot * spot_step(depth, ATTN_PANEL),
                               out->tiles, depth, width, false);
}

/* Forward ------------------------------------------------------------------------------------ */

typedef struct {
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    winograd_tiles tiles;
    float *y;
    const float *x;
    winograd_weights weights;
    const attn_finish *finish;
} forward_job;

static void transform_input(const forward_job *j, const spots *v, int64_t channel, int64_t first,
                            int64_t count, int64_t at)
{
    const attn_conv_shape *s = &j->plan->shape;
    attn_kernel->winograd_input(spots_block(v, channel) + at * ATTN_LANES, v->spot,
                                j->x + channel * s->H * s->W, &j->tiles.input, first, count);
}

/* One panel of output channels of the tiles in m, the first of which is tile `first`. */
static void store_output(const forward_job *j, const spots *m, int64_t panel, int64_t first)
{
    const attn_conv_shape *s = &j->plan->shape;
    for (int64_t k = 0; k < attn_panel_width(s->K, panel); k += ATTN_LANES) {
        int64_t channel = panel * ATTN_PANEL + k, plane = channel * s->P * s->Q;
        attn_finish finish = attn_finish_at(j->finish, channel, plane);
        attn_kernel->winograd_output(j->y + plane, spots_block(m, k), m->spot, &j->tiles.output,
                                     first, m->tiles, &finish);
    }
}

/* By images: a block of tiles against all weights. */
static void block_task(void *context, int64_t index, int worker)
{
    const forward_job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t block = j->plan->forward.block, first = index * block;
    int64_t count = attn_min(block, j->tiles.count - first);
    float *scratch = attn_conv_scratch(j->space, worker);
    spots v = spots_at(scratch, s->C, count);
    spots m = spots_at(scratch + spots_size(s->C, block), ATTN_PANEL, count);
    for (int64_t c = 0; c < s->C; c += ATTN_LANES)
        transform_input(j, &v, c, first, count, 0);
    for (int64_t panel = 0; panel < panel_count(s->K); panel++) {
        const float *u = j->space->shared + panel * spots_size(s->C, ATTN_PANEL);
        attn_winograd_multiply(&m, &v, 0, u, s->C, attn_panel_width(s->K, panel));
        store_output(j, &m, panel, first);
    }
}

/* By channels, first step: the tiles of an image. */
static void input_task(void *context, int64_t n, int worker)
{
    (void)worker;
    const forward_job *j = context;
    int64_t tiles = j->tiles.an_image;
    spots v = spots_at(j->space->shared, j->plan->shape.C, j->tiles.count);
    for (int64_t c = 0; c < j->plan->shape.C; c += ATTN_LANES)
        transform_input(j, &v, c, n * tiles, tiles, n * tiles);
}

/* Second step: one panel of weights against all tiles. */
static void panel_task(void *context, int64_t panel, int worker)
{
    const forward_job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t block = j->plan->forward.block, width = attn_panel_width(s->K, panel);
    spots v = spots_at(j->space->shared, s->C, j->tiles.count);
    float *u = attn_conv_scratch(j->space, worker), *products = u + spots_size(s->C, ATTN_PANEL);
    attn_winograd_transform_weights(u, &j->weights, panel, 0, s->C);
    for (int64_t first = 0; first < j->tiles.count; first += block) {
        spots m = spots_at(products, ATTN_PANEL, attn_min(block, j->tiles.count - first));
        attn_winograd_multiply(&m, &v, first, u, s->C, width);
        store_output(j, &m, panel, first);
    }
}

void attn_winograd_forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                           const float *x, const float *weight, const attn_finish *finish)
{
    const attn_conv_shape *s = &plan->shape;
    forward_job j = {
        .plan = plan, .space = space, .tiles = attn_winograd_tiles_of(s), .y = y, .x = x,
        .weights = attn_winograd_weights(s, weight, false), .finish = finish,
    };
    if (plan->forward.by_channels) {
        attn_conv_parallel(space, input_task, &j, s->N);
        attn_conv_parallel(space, panel_task, &j, panel_count(s->K));
    } else {
        attn_winograd_transform_all_weights(space->shared, &j.weights);
        attn_conv_parallel(space, block_task, &j,
                           attn_ceil_div(j.tiles.count, plan->forward.block));
    }
}

void attn_winograd_forward_memory(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    attn_conv_pass *pass = &plan->forward;
    pass->worker = spots_size(ATTN_PANEL, pass->block); /* products of a panel */
    if (pass->by_channels) {
        pass->shared = spots_size(s->C, attn_winograd_tiles_of(s).count);
        pass->worker += spots_size(s->C, ATTN_PANEL);
    } else {
        pass->shared = weights_size(s->C, s->K);
        pass->worker += spots_size(s->C, pass->block);
    }
}

/* Plan --------------------------------------------------------------------------------------- */

static bool fits(const attn_conv_shape *s)
{
    return s->groups == 1 && s->R == 3 && s->S == 3 && s->stride[0] == 1 && s->stride[1] == 1 &&
           s->padding[0] <= 2 && s->padding[1] <= 2 && s->C > 0 && s->C % ATTN_LANES == 0 &&
           s->K > 0 && s->K % ATTN_LANES == 0;
}

/* A single small tile an image: most of its 36 products are for outputs that are not there. */
static bool suits(const attn_conv_shape *s) { return s->P * s->Q > 4; }

/* Tiles of a task by images: what it transforms should stay in the second cache beside the weights
 * that stream by, but every block meets all weights, so wide ones need more tiles. */
static int64_t block_of_images(int64_t channels)
{
    return channels > 64 && channels <= 128 ? 32 : 64;
}

static void make_plan(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    attn_conv_pass *f = &plan->forward, *b = &plan->backward;
    int64_t tiles = attn_winograd_tiles_of(s).count;
    /* The smaller operand is kept whole. Backward by images would also have dU to add up. */
    f->by_channels = tiles <= s->K;
    b->by_channels = tiles * (s->C + s->K) <= 4 * s->C * s->K;
    f->block = f->by_channels ? 128 : block_of_images(attn_max(s->C, s->K));
    b->block = b->by_channels ? 128 : 64;
    f->block = attn_max(1, attn_min(tiles, f->block));
    b->block = attn_max(1, attn_min(tiles, b->block));
    plan->parts = b->by_channels ? 1 : attn_conv_parts(TAPS * s->C * s->K, s->N);
    plan->splits = 1;
    attn_winograd_forward_memory(plan);
    attn_winograd_backward_memory(plan);
}

const attn_conv_engine attn_conv_winograd = {
    "winograd", ATTN_BLOCKED16, ATTN_BLOCKED16, fits, suits, make_plan,
    attn_winograd_forward, attn_winograd_backward,
};
