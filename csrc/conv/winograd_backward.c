/* The backward pass of the Winograd engines: the exact adjoint of the forward pass.
 *
 *   dM = A dy A^T               the transformed output gradient, shared by both gradients
 *   dV = dM U^T, dx = B dV B^T  windows of neighbouring tiles overlap and add up
 *   dU = V^T dM, dweight = G^T dU G
 *
 * By images: each part of the batch adds up its own dU and leaves its own dweight; these are summed
 * in the order of the parts. By channels: V and dM of all tiles are kept, and every number of dx
 * and dweight belongs to one task.
 */
#include "winograd.h"

typedef struct {
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    winograd_geometry g;
    const attn_conv_gradients *operands;
    winograd_weights weights; /* transposed: depth K, columns C */
    float *partial;           /* by images: dweight of each part, [panel][tap][C][width] */
} backward_job;

/* All channels of tiles first, first + 1, ..., in v or dm from place `at` on. */
static void transform_input(const backward_job *j, const spots *v, int64_t first, int64_t count,
                            int64_t at, float *plane)
{
    for (int64_t c = 0; c < j->plan->shape.C; c += ATTN_LANES)
        attn_winograd_transform_input(&j->g, v, c, &j->operands->x, first, count, at, plane);
}

static void transform_gradient(const backward_job *j, const spots *dm, int64_t first,
                               int64_t count, int64_t at, float *plane)
{
    for (int64_t k = 0; k < j->plan->shape.K; k += ATTN_LANES)
        attn_winograd_transform_gradient(&j->g, dm, k, j->operands, first, count, at, plane);
}

/* dx of one panel of input channels: the tiles in dv, the first of which is tile `first`. */
static void store_input_gradient(const backward_job *j, const spots *dv, int64_t panel,
                                 int64_t first)
{
    const attn_conv_shape *s = &j->plan->shape;
    for (int64_t c = 0; c < attn_panel_width(s->C, panel); c += ATTN_LANES) {
        int64_t plane = (panel * ATTN_PANEL + c) * s->H * s->W;
        j->g.form.input_adjoint(j->operands->dx + plane, dv->data, dv->spot, spots_offset(dv, c, 0),
                              &j->g.tiles.input, first, dv->tiles, j->operands->add);
    }
}

/* du(matrices, [channel, channel + depth), width) = [du +] V^T dM for one panel of output channels. */
static void weight_product(const backward_job *j, float *du, int64_t du_step, const spots *v,
                           int64_t channel, int64_t depth, const spots *dm, int64_t panel,
                           int64_t width, bool add)
{
    for (int64_t matrix = 0; matrix < j->g.form.matrices; matrix++, du += du_step) {
        winograd_place place = j->g.form.place(matrix);
        spot_rows x = spots_rows(v, place, channel, 0);
        spot_rows y = spots_rows(dm, place, panel * ATTN_PANEL, 0);
        attn_kernel->gemm_outer(du, x.data, x.block, y.data, y.block, x.rows * v->tiles, depth,
                                width, add);
    }
}

/* By images ---------------------------------------------------------------------------------- */

static void block_gradients(const backward_job *j, int64_t first, int64_t count, float *du,
                            bool add, float *plane)
{
    const attn_conv_shape *s = &j->plan->shape;
    const attn_conv_gradients *o = j->operands;
    int64_t block = j->plan->backward.block;
    spots dm = spots_at(plane + attn_winograd_plane_size(s), s->K, count);
    spots v = spots_at(dm.data + spots_size(&j->g.form, s->K, block), s->C, count);
    spots dv = spots_at(v.data + spots_size(&j->g.form, s->C, block), ATTN_PANEL, count);
    transform_gradient(j, &dm, first, count, 0, plane);
    for (int64_t panel = 0; o->dx && panel < panel_count(s->C); panel++) {
        winograd_slice u = whole_panel(j->space->shared + panel * panel_size(&j->g.form, s->K), s->K);
        attn_winograd_multiply(&j->g.form, &dv, &dm, 0, &u, attn_panel_width(s->C, panel),
                               NULL, 0);
        store_input_gradient(j, &dv, panel, first);
    }
    if (!o->dweight)
        return;
    transform_input(j, &v, first, count, 0, plane);
    for (int64_t panel = 0; panel < panel_count(s->K); panel++)
        weight_product(j, du + panel * panel_size(&j->g.form, s->C), spot_step(s->C, ATTN_PANEL), &v, 0, s->C,
                       &dm, panel, attn_panel_width(s->K, panel), add);
}

/* A part of the images, block of tiles by block. */
static void part_task(void *context, int64_t part, int worker)
{
    const backward_job *j = context;
    const attn_conv_plan *plan = j->plan;
    const attn_conv_shape *s = &plan->shape;
    int64_t begin = s->N * part / plan->parts * j->g.tiles.an_image;
    int64_t end = s->N * (part + 1) / plan->parts * j->g.tiles.an_image;
    float *du = attn_conv_scratch(j->space, worker), *plane = du + weights_size(&j->g.form, s->C, s->K);
    for (int64_t first = begin; first < end; first += plan->backward.block)
        block_gradients(j, first, attn_min(plan->backward.block, end - first), du, first > begin,
                        plane);
    if (!j->operands->dweight)
        return;
    float *dweight = j->partial + part * TAPS * s->C * s->K;
    for (int64_t panel = 0; panel < panel_count(s->K); panel++) {
        int64_t size = s->C * attn_panel_width(s->K, panel);
        j->g.form.weight_adjoint(dweight + panel * TAPS * s->C * ATTN_PANEL, size,
                               du + panel * panel_size(&j->g.form, s->C), spot_step(s->C, ATTN_PANEL), size);
    }
}

/* One panel of dweight: the parts in their order. */
static void sum_task(void *context, int64_t panel, int worker)
{
    (void)worker;
    const backward_job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t width = attn_panel_width(s->K, panel);
    const float *partial = j->partial + panel * TAPS * s->C * ATTN_PANEL;
    attn_kernel->unpack_panel(j->operands->dweight + panel * ATTN_PANEL * s->C * TAPS, partial,
                              TAPS * s->C * s->K, j->plan->parts, TAPS, TAPS, s->C * TAPS, s->C,
                              width);
}

/* By channels -------------------------------------------------------------------------------- */

enum { STRIP = 128 }; /* input channels of a task of the weight gradient */

static spots all_gradients(const backward_job *j)
{
    return spots_at(j->space->shared, j->plan->shape.K, j->g.tiles.count);
}

static spots all_inputs(const backward_job *j)
{
    const attn_conv_shape *s = &j->plan->shape;
    float *data = j->space->shared + spots_size(&j->g.form, s->K, j->g.tiles.count);
    return spots_at(data, s->C, j->g.tiles.count);
}

/* The tiles of an image: of dM first, then of V. */
static void transform_task(void *context, int64_t index, int worker)
{
    const backward_job *j = context;
    float *plane = attn_conv_scratch(j->space, worker);
    int64_t images = j->plan->shape.N, tiles = j->g.tiles.an_image, first = index % images * tiles;
    spots dm = all_gradients(j), v = all_inputs(j);
    if (index < images)
        transform_gradient(j, &dm, first, tiles, first, plane);
    else
        transform_input(j, &v, first, tiles, first, plane);
}

/* dx of one panel of input channels. */
static void input_panel_task(void *context, int64_t panel, int worker)
{
    const backward_job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t block = j->plan->backward.block, width = attn_panel_width(s->C, panel);
    float *scratch = attn_conv_scratch(j->space, worker), *products = scratch + panel_size(&j->g.form, s->K);
    winograd_slice u = whole_panel(scratch, s->K);
    spots dm = all_gradients(j);
    attn_winograd_transform_weights(&u, &j->weights, panel);
    for (int64_t first = 0; first < j->g.tiles.count; first += block) {
        spots dv = spots_at(products, ATTN_PANEL, attn_min(block, j->g.tiles.count - first));
        attn_winograd_multiply(&j->g.form, &dv, &dm, first, &u, width, NULL, 0);
        store_input_gradient(j, &dv, panel, first);
    }
}

/* dweight of one strip of input channels and one panel of output channels. */
static void weight_panel_task(void *context, int64_t index, int worker)
{
    const backward_job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    int64_t strips = attn_ceil_div(s->C, STRIP), panel = index / strips;
    int64_t channel = index % strips * STRIP, depth = attn_min(STRIP, s->C - channel);
    int64_t width = attn_panel_width(s->K, panel), size = depth * width;
    float *du = attn_conv_scratch(j->space, worker), *taps = du + panel_size(&j->g.form, STRIP);
    spots dm = all_gradients(j), v = all_inputs(j);
    weight_product(j, du, spot_step(depth, width), &v, channel, depth, &dm, panel, width, false);
    j->g.form.weight_adjoint(taps, size, du, spot_step(depth, width), size);
    float *dweight = j->operands->dweight + (panel * ATTN_PANEL * s->C + channel) * TAPS;
    attn_kernel->unpack_panel(dweight, taps, 0, 1, TAPS, TAPS, s->C * TAPS, depth, width);
}

/* Both --------------------------------------------------------------------------------------- */

void attn_winograd_backward(const attn_conv_plan *plan, const attn_conv_workspace *space,
                            const attn_conv_gradients *operands)
{
    const attn_conv_shape *s = &plan->shape;
    winograd_geometry g = attn_winograd_geometry(s, plan->backward.tile);
    backward_job j = {
        .plan = plan, .space = space, .g = g, .operands = operands,
        .weights = attn_winograd_weights(&g, operands->weight, true),
        .partial = space->shared + weights_size(&g.form, s->K, s->C),
    };
    if (plan->backward.by_channels) {
        attn_conv_parallel(space, transform_task, &j, operands->dweight ? 2 * s->N : s->N);
        if (operands->dx)
            attn_conv_parallel(space, input_panel_task, &j, panel_count(s->C));
        if (operands->dweight)
            attn_conv_parallel(space, weight_panel_task, &j,
                          attn_ceil_div(s->C, STRIP) * panel_count(s->K));
    } else {
        if (operands->dx)
            attn_winograd_transform_all_weights(space->shared, &j.weights);
        attn_conv_parallel(space, part_task, &j, plan->parts);
        if (operands->dweight)
            attn_conv_parallel(space, sum_task, &j, panel_count(s->K));
    }
}

void attn_winograd_backward_memory(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    attn_conv_pass *pass = &plan->backward;
    winograd_form form = attn_winograd_form(s, pass->tile);
    int64_t tiles = attn_winograd_tiles_of(s, pass->tile).count, block = pass->block;
    int64_t product = spots_size(&form, ATTN_PANEL, block);
    if (pass->by_channels) {
        pass->shared = spots_size(&form, s->K, tiles) + spots_size(&form, s->C, tiles);
        pass->worker = attn_max(panel_size(&form, s->K) + product,
                                panel_size(&form, STRIP) + TAPS * STRIP * ATTN_PANEL);
        pass->worker = attn_max(pass->worker, attn_winograd_plane_size(s));
    } else {
        pass->shared = weights_size(&form, s->K, s->C) + plan->parts * TAPS * s->C * s->K;
        pass->worker = weights_size(&form, s->C, s->K) + attn_winograd_plane_size(s) +
                       spots_size(&form, s->K, block) + spots_size(&form, s->C, block) + product;
    }
}
