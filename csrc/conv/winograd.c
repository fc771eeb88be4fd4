/* Weights of the Winograd engines, and their forward pass. */
#include "winograd.h"

/* Weights ------------------------------------------------------------------------------------ */

winograd_weights attn_winograd_weights(const attn_conv_shape *s, const float *weight,
                                       bool transposed)
{
    winograd_form form = attn_winograd_form(s);
    if (transposed)
        return (winograd_weights){weight, false, s->K, s->C, s->C * TAPS, TAPS, form.weight};
    return (winograd_weights){weight, false, s->C, s->K, TAPS, s->C * TAPS, form.weight};
}

void attn_winograd_transform_weights(float *u, const winograd_weights *w, int64_t panel,
                                     int64_t first, int64_t end)
{
    enum { STRIP = 16 };
    float taps[TAPS * STRIP * ATTN_PANEL] __attribute__((aligned(ATTN_ALIGNMENT)));
    int64_t width = attn_panel_width(w->columns, panel);
    if (w->panels) {
        const float *from = w->weight + panel * ATTN_PANEL * TAPS * w->depth + first * width;
        w->transform(u + first * width, spot_step(w->depth, ATTN_PANEL), from, w->depth * width,
                     (end - first) * width);
        return;
    }
    for (int64_t d = first; d < end; d += STRIP) {
        const float *from = w->weight + d * w->depth_stride + panel * ATTN_PANEL * w->column_stride;
        attn_kernel->pack_panel(taps, from, TAPS, w->depth_stride, w->column_stride, STRIP, width);
        w->transform(u + d * width, spot_step(w->depth, ATTN_PANEL), taps, STRIP * width,
                     STRIP * width);
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
    attn_winograd_transform_weights(j->u + panel * panel_size(j->weights->depth),
                                    j->weights, panel, first, first + ATTN_LANES);
}

void attn_winograd_transform_all_weights(float *u, const winograd_weights *w)
{
    weights_job job = {u, w};
    attn_parallel(weights_task, &job, panel_count(w->columns) * (w->depth / ATTN_LANES));
}

void attn_winograd_multiply(const winograd_form *form, const spots *out, const spots *in,
                            int64_t first, const float *u, int64_t depth, int64_t width)
{
    for (int64_t matrix = 0; matrix < MATRICES; matrix++, u += spot_step(depth, ATTN_PANEL)) {
        winograd_place place = form->place(matrix);
        spot_rows y = spots_rows(out, place, 0, 0), x = spots_rows(in, place, 0, first);
        attn_kernel->gemm_rows(y.data, y.block, x.data, x.block, u, y.rows * out->tiles, depth,
                               width, false);
    }
}

/* Forward ------------------------------------------------------------------------------------ */

typedef struct {
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    winograd_form form;
    winograd_tiles tiles;
    int64_t blocks; /* of tiles */
    float *y;
    const float *x, *u; /* u: all panels, transformed beforehand, or NULL */
    winograd_weights weights;
    const attn_finish *finish;
} forward_job;

static void transform_input(const forward_job *j, const spots *v, int64_t channel, int64_t first,
                            int64_t count, int64_t at)
{
    const attn_conv_shape *s = &j->plan->shape;
    j->form.input(v->data, v->spot, spots_offset(v, channel, at), j->x + channel * s->H * s->W,
                  &j->tiles.input, first, count);
}

/* One panel of output channels of the tiles in m, the first of which is tile `first`. */
static void store_output(const forward_job *j, const spots *m, int64_t panel, int64_t first)
{
    const attn_conv_shape *s = &j->plan->shape;
    for (int64_t k = 0; k < attn_panel_width(s->K, panel); k += ATTN_LANES) {
        int64_t channel = panel * ATTN_PANEL + k, plane = channel * s->P * s->Q;
        attn_finish finish = attn_finish_at(j->finish, channel, plane);
        j->form.output(j->y + plane, m->data, m->spot, spots_offset(m, k, 0), &j->tiles.output,
                       first, m->tiles, &finish);
    }
}

static bool transformed(attn_conv_form form)
{
    return form == ATTN_FORM_WINOGRAD || form == ATTN_FORM_POLYPHASE;
}

static int64_t input_parts(const attn_conv_shape *s)
{
    enum { FEW_IMAGES = 16 };
    return s->N < FEW_IMAGES ? attn_min(FEW_IMAGES / s->N, s->C / ATTN_LANES) : 1;
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
    spots m = spots_at(scratch + spots_size(&j->form, s->C, block), ATTN_PANEL, count);
    for (int64_t c = 0; c < s->C; c += ATTN_LANES)
        transform_input(j, &v, c, first, count, 0);
    for (int64_t panel = 0; panel < panel_count(s->K); panel++) {
        const float *u = j->u + panel * panel_size(s->C);
        attn_winograd_multiply(&j->form, &m, &v, 0, u, s->C, attn_panel_width(s->K, panel));
        store_output(j, &m, panel, first);
    }
}

/* By channels, first step: the tiles of some images (of one for each part of the channels, where
 * there are only a few images). */
static void input_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const forward_job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t tiles = j->tiles.an_image, parts = input_parts(s), n = index / parts;
    int64_t blocks = s->C / ATTN_LANES, part = index % parts;
    spots v = spots_at(j->space->shared, s->C, j->tiles.count);
    for (int64_t i = blocks * part / parts; i < blocks * (part + 1) / parts; i++)
        transform_input(j, &v, i * ATTN_LANES, n * tiles, tiles, n * tiles);
}

/* Second step: one panel of weights, transformed, against one block of tiles. */
static void multiply_block(const forward_job *j, int64_t panel, int64_t block, const float *u,
                           float *products)
{
    const attn_conv_shape *s = &j->plan->shape;
    int64_t size = j->plan->forward.block, first = block * size;
    spots v = spots_at(j->space->shared, s->C, j->tiles.count);
    spots m = spots_at(products, ATTN_PANEL, attn_min(size, j->tiles.count - first));
    attn_winograd_multiply(&j->form, &m, &v, first, u, s->C, attn_panel_width(s->K, panel));
    store_output(j, &m, panel, first);
}

static void panel_task(void *context, int64_t panel, int worker)
{
    const forward_job *j = context;
    int64_t depth = j->plan->shape.C;
    float *u = attn_conv_scratch(j->space, worker), *products = u + panel_size(depth);
    attn_winograd_transform_weights(u, &j->weights, panel, 0, depth);
    for (int64_t block = 0; block < j->blocks; block++)
        multiply_block(j, panel, block, u, products);
}

static void kept_panel_task(void *context, int64_t index, int worker)
{
    const forward_job *j = context;
    int64_t panel = index / j->blocks;
    multiply_block(j, panel, index % j->blocks, j->u + panel * panel_size(j->plan->shape.C),
                   attn_conv_scratch(j->space, worker));
}

void attn_winograd_forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                           const float *x, const float *weight, const attn_finish *finish)
{
    const attn_conv_shape *s = &plan->shape;
    forward_job j = {
        .plan = plan, .space = space, .form = attn_winograd_form(s),
        .tiles = attn_winograd_tiles_of(s), .y = y, .x = x,
        .weights = attn_winograd_weights(s, weight, false), .finish = finish,
    };
    j.blocks = attn_ceil_div(j.tiles.count, plan->forward.block);
    j.weights.panels = plan->form == ATTN_FORM_PANELS;
    if (transformed(plan->form)) {
        j.u = weight;
    } else if (!plan->forward.by_channels) {
        attn_winograd_transform_all_weights(space->shared, &j.weights);
        j.u = space->shared;
    }
    if (plan->forward.by_channels) {
        attn_conv_parallel(space, input_task, &j, s->N * input_parts(s));
        if (j.u)
            attn_conv_parallel(space, kept_panel_task, &j, panel_count(s->K) * j.blocks);
        else
            attn_conv_parallel(space, panel_task, &j, panel_count(s->K));
    } else {
        attn_conv_parallel(space, block_task, &j, j.blocks);
    }
}

void attn_winograd_pack(const attn_conv_plan *plan, float *packed, const float *weight)
{
    winograd_weights weights = attn_winograd_weights(&plan->shape, weight, false);
    if (transformed(plan->form))
        attn_winograd_transform_all_weights(packed, &weights);
    else
        attn_conv_pack_panels(plan, packed, weight);
}

void attn_winograd_forward_memory(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    attn_conv_pass *pass = &plan->forward;
    winograd_form form = attn_winograd_form(s);
    pass->worker = spots_size(&form, ATTN_PANEL, pass->block); /* products of a panel */
    if (pass->by_channels) {
        pass->shared = spots_size(&form, s->C, attn_winograd_tiles_of(s).count);
        pass->worker += transformed(plan->form) ? 0 : panel_size(s->C);
    } else {
        pass->shared = transformed(plan->form) ? 0 : weights_size(s->C, s->K);
        pass->worker += spots_size(&form, s->C, pass->block);
    }
}
