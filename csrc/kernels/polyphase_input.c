/* The transform of the inputs in polyphase form, V = B^T x B, and its adjoint, dx = B dV B^T. */
#include "polyphase.h"

/* t = B^T d of the outer pixels, and its adjoint d = B t. */
INLINE void input_axis(vf t[OUTER], const vf d[OUTER])
{
    input_middle(t, d[0], d[1], d[2], d[3], F42);
    t[4] = input_end(d[0], d[2], d[4], F42);
}
INLINE void input_axis_adjoint(vf d[OUTER], const vf t[OUTER])
{
    vf odd[3], even[2];
    input_adjoint_odd(odd, t, t[4], F42);
    input_adjoint_even(even, t, F42);
    UNROLL(2)
    for (int i = 0; i < 2; i++) {
        d[2 * i] = odd[i];
        d[2 * i + 1] = even[i];
    }
    d[4] = odd[2];
}

INLINE void input_tile(const phases *v, const float *x, const window *w, int64_t W,
                       const bool edge)
{
    pixels p;
    find_pixels(&p, x, w, W, WINDOW, edge);
    vf d[OUTER], t[OUTER], half[OUTER][OUTER];
    UNROLL(5)
    for (int j = 0; j < OUTER; j++) {
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            d[i] = pixel(&p, 2 * i, 2 * j, edge);
        input_axis(t, d);
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            half[i][j] = t[i];
    }
    UNROLL(5)
    for (int i = 0; i < OUTER; i++) {
        input_axis(t, half[i]);
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            vstore(outer(v, i, j), t[j]);
    }
    UNROLL(4)
    for (int j = 0; j < TILE; j++) {
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            d[i] = pixel(&p, 2 * i, 2 * j + 1, edge);
        input_axis(t, d);
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            vstore(column(v, i, j), t[i]);
    }
    UNROLL(4)
    for (int i = 0; i < TILE; i++) {
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            d[j] = pixel(&p, 2 * i + 1, 2 * j, edge);
        input_axis(t, d);
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            vstore(row(v, i, j), t[j]);
        UNROLL(4)
        for (int j = 0; j < TILE; j++)
            vstore(middle(v, i, j), pixel(&p, 2 * i + 1, 2 * j + 1, edge));
    }
}

/* v = B^T d B of tiles first, first + 1, ... of one channel block; x is that block of image 0. */
void KERNEL(polyphase_input)(float *v, int64_t spot, int64_t at, const float *x,
                             const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    window w = first_window(tiles, first, WINDOW, STEP);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, WINDOW, STEP)) {
        fetch_ahead(x, &w, tiles, STEP);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            phases out = find_phases(v, spot, at + tile * ATTN_LANES, part);
            if (w.left > 0 || w.right < WINDOW)
                input_tile(&out, x + part, &w, tiles->W, true);
            else
                input_tile(&out, x + part, &w, tiles->W, false);
        }
    }
}

/* Pixel (i, j) of the window. Windows share their first row and column with those before. */
INLINE void add_pixel(float *dx, int i, int j, vf d, int64_t W, const window *w, const bool edge,
                      bool add)
{
    if (edge && (i < w->top || i >= w->bottom || j < w->left || j >= w->right))
        return;
    store_pixel(dx + (i * W + j) * ATTN_LANES, d,
                add || (i == 0 && w->row > 0) || (j == 0 && w->column > 0));
}

INLINE void input_adjoint_tile(float *dx, const phases *v, const window *w, int64_t W,
                               const bool edge, bool add)
{
    vf d[OUTER], t[OUTER], half[OUTER][OUTER];
    UNROLL(5)
    for (int i = 0; i < OUTER; i++) {
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            t[j] = vload(outer(v, i, j));
        input_axis_adjoint(half[i], t);
    }
    UNROLL(5)
    for (int j = 0; j < OUTER; j++) {
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            t[i] = half[i][j];
        input_axis_adjoint(d, t);
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            add_pixel(dx, 2 * i, 2 * j, d[i], W, w, edge, add);
    }
    UNROLL(4)
    for (int j = 0; j < TILE; j++) {
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            t[i] = vload(column(v, i, j));
        input_axis_adjoint(d, t);
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            add_pixel(dx, 2 * i, 2 * j + 1, d[i], W, w, edge, add);
    }
    UNROLL(4)
    for (int i = 0; i < TILE; i++) {
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            t[j] = vload(row(v, i, j));
        input_axis_adjoint(d, t);
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            add_pixel(dx, 2 * i + 1, 2 * j, d[j], W, w, edge, add);
        UNROLL(4)
        for (int j = 0; j < TILE; j++)
            add_pixel(dx, 2 * i + 1, 2 * j + 1, vload(middle(v, i, j)), W, w, edge, add);
    }
}

/* dx = [dx +] the sum over all tiles of B v B^T, one channel block. Tiles of an image must come in
 * order: the first that reaches a pixel writes it, the others add. */
void KERNEL(polyphase_input_adjoint)(float *dx, const float *v, int64_t spot, int64_t at,
                                     const attn_winograd_tiles *tiles, int64_t first,
                                     int64_t count, bool add)
{
    window w = first_window(tiles, first, WINDOW, STEP);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, WINDOW, STEP)) {
        fetch_ahead(dx, &w, tiles, STEP);
        bool edge = w.left > 0 || w.top > 0 || w.right < WINDOW || w.bottom < WINDOW;
        for (int part = 0; part < ATTN_LANES; part += VL) {
            phases in = find_phases(v, spot, at + tile * ATTN_LANES, part);
            if (edge)
                input_adjoint_tile(dx + w.at + part, &in, &w, tiles->W, true, add);
            else
                input_adjoint_tile(dx + w.at + part, &in, &w, tiles->W, false, add);
        }
    }
}
