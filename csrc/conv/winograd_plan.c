/* The Winograd engines: which shapes they take, how the work is cut, and what distinguishes the form
 * of stride 2 from that of stride 1, and small tiles from large ones.
 *
 * Relative error (root mean square) against float64, normal data, stride 1: 8e-7 with 64 channels,
 * 2.5e-6 with 512, output and input gradient alike; 6e-7 to 1.6e-6 for the weight gradient. That is
 * two to two and a half times the error of the direct sum. At stride 2 the output has the error of
 * the direct sum or less, the gradients up to 1.7 times as much. Small tiles: two thirds of it. A
 * test bounds all.
 */
#include "winograd.h"

/* Forms -------------------------------------------------------------------------------------- */

static winograd_place place(int64_t matrix) { return (winograd_place){matrix, 1}; }

/* As kernels/polyphase.h says: along an axis five matrices meet one row of a tile, the one of the
 * middle tap meets four. */
static winograd_place polyphase_place(int64_t matrix)
{
    int64_t i = matrix / 6, j = matrix % 6, rows = i == 5 ? 4 : 1, columns = j == 5 ? 4 : 1;
    return (winograd_place){9 * i + rows * j, rows * columns};
}

/* Nothing but two pixels by two, and the padding around them. */
static bool is_pair(const attn_conv_shape *s)
{
    return s->stride[0] == 1 && s->stride[1] == 1 && s->H == 2 && s->W == 2 && s->P == 2 &&
           s->Q == 2;
}

winograd_form attn_winograd_form(const attn_conv_shape *s, int64_t tile)
{
    const attn_kernel_table *k = attn_kernel;
    if (tile == SMALL_TILE && is_pair(s))
        return (winograd_form){9, 9, SMALL_TILE, 2, 4, ATTN_FORM_PAIR, place,
                               k->winograd_pair_input, k->winograd_pair_input_adjoint,
                               k->winograd_pair_output, k->winograd_pair_output_adjoint,
                               k->winograd_pair_weight, k->winograd_pair_weight_adjoint};
    if (tile == SMALL_TILE)
        return (winograd_form){.matrices = 16, .spots = 16, .tile = tile, .step = 2, .window = 4,
                               .kept = ATTN_FORM_STRIPS, .place = place,
                               .input = k->winograd_small_input, .output = k->winograd_small_output,
                               .weight = k->winograd_small_weight};
    if (s->stride[0] == 1)
        return (winograd_form){36, 36, TILE, 4, 6, ATTN_FORM_WINOGRAD, place,
                               k->winograd_input, k->winograd_input_adjoint,
                               k->winograd_output, k->winograd_output_adjoint,
                               k->winograd_weight, k->winograd_weight_adjoint};
    return (winograd_form){36, 81, TILE, 8, 9, ATTN_FORM_POLYPHASE, polyphase_place,
                           k->polyphase_input, k->polyphase_input_adjoint,
                           k->polyphase_output, k->polyphase_output_adjoint,
                           k->polyphase_weight, k->polyphase_weight_adjoint};
}

winograd_tiles attn_winograd_tiles_of(const attn_conv_shape *s, int64_t tile)
{
    int64_t rows = attn_ceil_div(s->P, tile), columns = attn_ceil_div(s->Q, tile);
    return (winograd_tiles){
        .input = {s->H, s->W, s->C * s->H * s->W, rows, columns, {s->padding[0], s->padding[1]}},
        .output = {s->P, s->Q, s->K * s->P * s->Q, rows, columns, {0, 0}},
        .an_image = rows * columns,
        .count = s->N * rows * columns,
    };
}

/* Plans -------------------------------------------------------------------------------------- */

static bool fits_both(const attn_conv_shape *s, int64_t stride)
{
    return s->groups == 1 && s->R == 3 && s->S == 3 && s->stride[0] == stride &&
           s->stride[1] == stride && s->padding[0] <= 2 && s->padding[1] <= 2 && s->C > 0 &&
           s->C % ATTN_LANES == 0 && s->K > 0 && s->K % ATTN_LANES == 0;
}

static bool fits(const attn_conv_shape *s) { return fits_both(s, 1); }

/* Without padding there may be a last pixel that no window has. */
static bool polyphase_fits(const attn_conv_shape *s)
{
    return fits_both(s, 2) && s->padding[0] > 0 && s->padding[1] > 0;
}

/* Not a single small tile an image, most of whose products are for outputs that are not there,
 * unless its form knows. */
static bool suits(const attn_conv_shape *s, bool keep)
{
    return s->P * s->Q > 4 || (is_pair(s) && !(keep && attn_conv_is_small(s)));
}

/* So few pixels that kept weights take more time than they: these are quickly transformed for small
 * tiles, and need not be kept, and read, in a larger form. */
static bool small_suits(const attn_conv_shape *s, bool keep)
{
    return suits(s, keep) && keep && attn_conv_is_small(s);
}

/* The 81 products of a tile must save a fifth of the nine that each output takes otherwise. */
static bool polyphase_suits(const attn_conv_shape *s, bool keep)
{
    return 5 * 81 * attn_winograd_tiles_of(s, TILE).an_image < 4 * 9 * s->P * s->Q &&
           !(keep && attn_conv_is_small(s));
}

/* Tiles of a task by images: what it transforms should stay in the second cache beside the weights
 * that stream by, but every block meets all weights, so wide ones need more tiles. */
static int64_t block_of_images(int64_t channels)
{
    return channels > 64 && channels <= 128 ? 32 : 64;
}

/* The smaller operand is kept whole. Backward by images would also have dU to add up. */
static void choose_cuts(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    int64_t tile = is_pair(s) ? SMALL_TILE : TILE;
    int64_t tiles = attn_winograd_tiles_of(s, tile).count;
    plan->forward.tile = plan->backward.tile = tile;
    plan->forward.by_channels = tiles <= s->K;
    plan->backward.by_channels = tiles * (s->C + s->K) <= 4 * s->C * s->K;
}

/* Transformed weights mostly take four times the memory, and the time to read it: large ones are
 * transformed at each call, panel by panel, if the work is cut that way. */
static void choose_form(attn_conv_plan *plan)
{
    enum { LARGE = 1 << 16 };
    const attn_conv_shape *s = &plan->shape;
    winograd_form form = attn_winograd_form(s, plan->forward.tile);
    if (!plan->keep)
        return;
    bool grown = form.matrices > TAPS && plan->forward.by_channels && s->C * s->K > LARGE;
    plan->form = grown ? ATTN_FORM_STRIPS : form.kept;
    plan->form_size = plan->form == ATTN_FORM_STRIPS ? TAPS * s->C * s->K
                                                     : weights_size(&form, s->C, s->K);
}

/* With the blocks as they should be: the parts, of a block or more, and the memory. */
static void finish_plan(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    attn_conv_pass *f = &plan->forward, *b = &plan->backward;
    int64_t tiles = attn_max(1, attn_winograd_tiles_of(s, b->tile).count);
    f->block = attn_min(attn_max(1, attn_winograd_tiles_of(s, f->tile).count), f->block);
    b->block = attn_min(tiles, b->block);
    plan->splits = plan->parts = 1;
    if (!b->by_channels)
        plan->parts = attn_conv_parts(TAPS * s->C * s->K, attn_min(s->N, tiles / b->block));
    choose_form(plan);
    attn_winograd_forward_memory(plan);
    attn_winograd_backward_memory(plan);
}

static void choose_blocks(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    attn_conv_pass *f = &plan->forward, *b = &plan->backward;
    f->block = f->by_channels ? 128 : block_of_images(attn_max(s->C, s->K));
    b->block = b->by_channels ? 128 : 64;
    finish_plan(plan);
}

static void make_plan(attn_conv_plan *plan)
{
    choose_cuts(plan);
    choose_blocks(plan);
}

/* The backward pass is that of the large tiles. */
static void make_small_plan(attn_conv_plan *plan)
{
    choose_cuts(plan);
    plan->forward.tile = SMALL_TILE;
    plan->forward.by_channels = true;
    choose_blocks(plan);
}

static void make_polyphase_plan(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    attn_conv_pass *f = &plan->forward, *b = &plan->backward;
    choose_cuts(plan);
    f->block = 32;
    b->block = b->by_channels ? 64 : block_of_images(attn_max(s->C, s->K));
    finish_plan(plan);
}

const attn_conv_engine attn_conv_winograd_small = {
    "winograd_small", ATTN_BLOCKED16, ATTN_BLOCKED16, true, fits, small_suits, make_small_plan,
    attn_winograd_pack, attn_winograd_forward, attn_winograd_backward,
};
const attn_conv_engine attn_conv_winograd = {
    "winograd", ATTN_BLOCKED16, ATTN_BLOCKED16, true, fits, suits, make_plan,
    attn_winograd_pack, attn_winograd_forward, attn_winograd_backward,
};
const attn_conv_engine attn_conv_polyphase = {
    "polyphase", ATTN_BLOCKED16, ATTN_BLOCKED16, true, polyphase_fits, polyphase_suits,
    make_polyphase_plan, attn_winograd_pack, attn_winograd_forward, attn_winograd_backward,
};
