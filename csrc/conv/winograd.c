/* The forward pass of the Winograd engines. */
#include "winograd.h"

/* One of so many shares, into the second cache. */
static void fetch_share(const float *ahead, int64_t size, int64_t share, int64_t shares)
{
    for (int64_t i = size * share / shares; i < size * (share + 1) / shares; i += ATTN_LANES)
        __builtin_prefetch(ahead + i, 0, 2);
}

void attn_winograd_multiply(const winograd_form *form, const spots *out, const spots *in,
                            int64_t first, const winograd_slice *u, int64_t width,
                            const float *ahead, int64_t ahead_size)
{
    for (int64_t matrix = 0; matrix < form->matrices; matrix++) {
        winograd_place place = form->place(matrix);
        spot_rows y = spots_rows(out, place, 0, 0), x = spots_rows(in, place, u->first, first);
        attn_kernel->gemm_rows(y.data, y.block, x.data, x.block, u->data + matrix * u->matrix,
                               y.rows * out->tiles, u->depth, width, u->first > 0);
        fetch_share(ahead, ahead_size, matrix, form->matrices);
    }
}

typedef struct {
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    winograd_geometry g;
    int64_t blocks; /* of tiles */
    float *y;
    const attn_conv_input *x;
    const float *u; /* all panels, transformed beforehand, or NULL */
    winograd_weights weights;
    const attn_finish *finish;
} forward_job;

/* One panel of output channels of the tiles in m, the first of which is tile `first`. */
static void store_output(const forward_job *j, const spots *m, int64_t panel, int64_t first)
{
    const attn_conv_shape *s = &j->plan->shape;
    for (int64_t k = 0; k < attn_panel_width(s->K, panel); k += ATTN_LANES) {
        int64_t channel = panel * ATTN_PANEL + k, plane = channel * s->P * s->Q;
        attn_finish finish = attn_finish_at(j->finish, channel, plane);
        j->g.form.output(j->y + plane, m->data, m->spot, spots_offset(m, k, 0), &j->g.tiles.output,
                       first, m->tiles, &finish);
    }
}

static bool transformed(attn_conv_form form)
{
    return form == ATTN_FORM_WINOGRAD || form == ATTN_FORM_POLYPHASE || form == ATTN_FORM_PAIR;
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
    int64_t count = attn_min(block, j->g.tiles.count - first);
    float *plane = attn_conv_scratch(j->space, worker);
    spots v = spots_at(plane + attn_winograd_plane_size(s), s->C, count);
    spots m = spots_at(v.data + spots_size(&j->g.form, s->C, block), ATTN_PANEL, count);
    for (int64_t c = 0; c < s->C; c += ATTN_LANES)
        attn_winograd_transform_input(&j->g, &v, c, j->x, first, count, 0, plane);
    for (int64_t panel = 0; panel < panel_count(s->K); panel++) {
        winograd_slice u = whole_panel(j->u + panel * panel_size(&j->g.form, s->C), s->C);
        attn_winograd_multiply(&j->g.form, &m, &v, 0, &u, attn_panel_width(s->K, panel), NULL, 0);
        store_output(j, &m, panel, first);
    }
}

/* By channels, first step: the tiles of some images (of one for each part of the channels, where
 * there are only a few images). */
static void input_task(void *context, int64_t index, int worker)
{
    const forward_job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    float *plane = attn_conv_scratch(j->space, worker);
    int64_t tiles = j->g.tiles.an_image, parts = input_parts(s), n = index / parts;
    int64_t blocks = s->C / ATTN_LANES, part = index % parts;
    spots v = spots_at(j->space->shared, s->C, j->g.tiles.count);
    for (int64_t i = blocks * part / parts; i < blocks * (part + 1) / parts; i++)
        attn_winograd_transform_input(&j->g, &v, i * ATTN_LANES, j->x, n * tiles, tiles, n * tiles,
                                      plane);
}

/* Second step: a slice of a panel of weights, transformed, against one block of tiles. */
static void multiply_block(const forward_job *j, int64_t panel, int64_t block,
                           const winograd_slice *u, float *products, attn_range ahead)
{
    const attn_conv_shape *s = &j->plan->shape;
    int64_t size = j->plan->forward.block, first = block * size;
    spots v = spots_at(j->space->shared, s->C, j->g.tiles.count);
    spots m = spots_at(products, ATTN_PANEL, attn_min(size, j->g.tiles.count - first));
    attn_winograd_multiply(&j->g.form, &m, &v, first, u, attn_panel_width(s->K, panel),
                           j->weights.weight + ahead.begin, ahead.end - ahead.begin);
    if (u->first + u->depth == s->C)
        store_output(j, &m, panel, first);
}

/* Weights that meet only a few tiles are transformed slice by slice, which stay in the second cache;
 * with more of them the products would come and go too often. */
static int64_t slice_depth(const attn_conv_plan *plan, const winograd_geometry *g)
{
    enum { FEW_TILES = 16, SLICE_FLOATS = 16 << 10 };
    int64_t depth = plan->shape.C;
    if (g->tiles.count > FEW_TILES)
        return depth;
    int64_t most = SLICE_FLOATS / (g->form.matrices * ATTN_PANEL) / ATTN_LANES * ATTN_LANES;
    return attn_min(depth, attn_max(most, ATTN_LANES));
}

static void panel_task(void *context, int64_t panel, int worker)
{
    const forward_job *j = context;
    int64_t depth = j->plan->shape.C, slice = slice_depth(j->plan, &j->g);
    winograd_slice u = {attn_conv_scratch(j->space, worker), spot_step(slice, ATTN_PANEL), 0, slice};
    float *products = u.data + j->g.form.matrices * u.matrix;
    for (; u.first < depth; u.first += slice) {
        u.depth = attn_min(slice, depth - u.first);
        attn_winograd_transform_weights(&u, &j->weights, panel);
        attn_range ahead = {0, 0};
        if (j->weights.strips)
            ahead = attn_winograd_strips(&j->weights, panel, u.first + u.depth, slice);
        for (int64_t block = 0; block < j->blocks; block++)
            multiply_block(j, panel, block, &u, products, ahead);
    }
}

static void kept_panel_task(void *context, int64_t index, int worker)
{
    const forward_job *j = context;
    int64_t panel = index / j->blocks, depth = j->plan->shape.C;
    winograd_slice u = whole_panel(j->u + panel * panel_size(&j->g.form, depth), depth);
    multiply_block(j, panel, index % j->blocks, &u, attn_conv_scratch(j->space, worker),
                   (attn_range){0, 0});
}

void attn_winograd_forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                           const attn_conv_input *x, const float *weight, const attn_finish *finish)
{
    const attn_conv_shape *s = &plan->shape;
    winograd_geometry g = attn_winograd_geometry(s, plan->forward.tile);
    forward_job j = {
        .plan = plan, .space = space, .g = g, .y = y, .x = x,
        .weights = attn_winograd_weights(&g, weight, false), .finish = finish,
    };
    j.blocks = attn_ceil_div(j.g.tiles.count, plan->forward.block);
    j.weights.strips = plan->form == ATTN_FORM_STRIPS;
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
    winograd_geometry g = attn_winograd_geometry(&plan->shape, plan->forward.tile);
    winograd_weights weights = attn_winograd_weights(&g, weight, false);
    if (transformed(plan->form))
        attn_winograd_transform_all_weights(packed, &weights);
    else
        attn_winograd_pack_all_weights(packed, &weights);
}

void attn_winograd_forward_memory(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    attn_conv_pass *pass = &plan->forward;
    winograd_geometry g = attn_winograd_geometry(s, pass->tile);
    pass->worker = spots_size(&g.form, ATTN_PANEL, pass->block); /* products of a panel */
    if (pass->by_channels) {
        pass->shared = spots_size(&g.form, s->C, g.tiles.count);
        if (!transformed(plan->form))
            pass->worker += g.form.matrices * spot_step(slice_depth(plan, &g), ATTN_PANEL);
        pass->worker = attn_max(pass->worker, attn_winograd_plane_size(s));
    } else {
        pass->shared = transformed(plan->form) ? 0 : weights_size(&g.form, s->C, s->K);
        pass->worker += attn_winograd_plane_size(s) + spots_size(&g.form, s->C, pass->block);
    }
}
